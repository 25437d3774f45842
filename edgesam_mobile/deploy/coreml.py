"""Core ML: ``.mlpackage`` programs for iOS 16 and later. Converted here, executed only by Apple systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.ports import Graph, Port
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

# Prompts stay in single precision: half precision places a point up to a quarter of a pixel off.
_ALWAYS_FLOAT32 = {"point_coords", "point_labels"}


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:  # noqa: ARG001
    """Convert once per precision from one exported program.

    The encoder takes an RGB image (a ``CVPixelBuffer``); in ``fp16`` the embedding and the masks are half
    precision, so that nothing is converted between encoder and decoder.
    """
    program = torch.export.export(graph.module, graph.examples(), strict=False).run_decompositions({})
    return {path: _convert(graph, program, plan.precision, path) for path, plan in targets.items()}


def _convert(graph: Graph, program: torch.export.ExportedProgram, precision: str, path: Path) -> ExportReport:
    half = precision == "fp16"
    dtypes = {port.name: _dtype(port, half) for port in (*graph.inputs, *graph.outputs)}
    compute = ct.transform.FP16ComputePrecision(op_selector=_half(graph)) if half else ct.precision.FLOAT32
    model = ct.convert(
        program,
        inputs=[_input(port, dtypes[port.name]) for port in graph.inputs],
        outputs=[ct.TensorType(name=port.name, dtype=_NUMPY[dtypes[port.name]]) for port in graph.outputs],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=compute,
    )
    model.save(str(path))
    # A debugging aid of coremltools that is no part of the package format.
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    return ExportReport(op_types(path), dtypes)


_NUMPY = {"float16": np.float16, "float32": np.float32}


def _dtype(port: Port, half: bool) -> str:
    if port.name == "image":
        return "image"
    return "float16" if half and port.name not in _ALWAYS_FLOAT32 else "float32"


def _input(port: Port, dtype: str) -> Any:
    if dtype == "image":
        return ct.ImageType(name=port.name, shape=port.shape, color_layout=ct.colorlayout.RGB)
    return ct.TensorType(name=port.name, shape=port.shape, dtype=_NUMPY[dtype])


def _half(graph: Graph) -> Any:
    """Which operations may run in half precision: all but those on prompt slots before they join the tokens.

    Those are told by their shape: B x slots x anything, which nothing else in the decoder has.
    """
    slots = next((port.shape for port in graph.inputs if port.name == "point_coords"), None)

    def selected(op: Any) -> bool:
        shapes = [tuple(out.shape or ()) for out in op.outputs]
        return slots is None or not any(len(s) == 3 and s[:2] == slots[:2] for s in shapes)

    return selected


def op_types(path: Path) -> dict[str, int]:
    """Operations of a saved ``.mlpackage``, without constants.

    Raises:
        Exception: whatever coremltools or protobuf raise on a damaged package.
    """
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    counts: Counter[str] = Counter()
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            counts.update(op.type for op in block.operations if op.type != "const")
    return dict(sorted(counts.items()))
