"""Core ML: ``.mlpackage`` programs for iOS 16 and later."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import torch

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.folding import keep_constants_small
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.deploy.palettes import Palette, cells, centroids, fit_palettes
from edgesam_mobile.deploy.ports import SINGLE, Graph, Port
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport
from edgesam_mobile.deploy.saving import make_small
from edgesam_mobile.deploy.tuning import tune_palettes


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Convert once per precision.

    The encoder takes an RGB image (a ``CVPixelBuffer``). All but ``fp32`` compute in half precision, and their
    embedding and masks are half precision, so that nothing is converted between encoder and decoder. ``int8-weights``
    and palettes compress what is stored; ``int8`` also computes convolutions and linear layers in integers, by ranges
    measured on ``samples``; fitted palettes choose values by them. Layers that a plan leaves out are stored and
    computed in half precision.
    """
    keep_constants_small()
    plain = torch.export.export(graph.module, graph.examples(), strict=False)
    reports = {}
    for path, plan in targets.items():
        program, fitted = plain, dict[str, Palette]()
        if plan.precision == "int8":
            program = _marked(graph, plan, samples)
        elif fit := _FITTED.get(plan.precision):
            module = copy.deepcopy(graph.module)
            fitted = fit(module, samples, left_out=plan.left_out)
            if (plan.precision, graph.name) in _TUNED:
                tune_palettes(module, graph.module, fitted, samples)
            program = torch.export.export(module, graph.examples(), strict=False)
        reports[path] = _convert(graph, program.run_decompositions({}), plan, fitted, path)
    return reports


def _marked(graph: Graph, plan: Plan, samples: Sequence[Sample]) -> torch.export.ExportedProgram:
    from edgesam_mobile.deploy.integers import marked_program  # ExecuTorch's, which no other precision needs

    return marked_program(graph, plan, samples)


def _convert(
    graph: Graph, program: torch.export.ExportedProgram, plan: Plan, fitted: Mapping[str, Palette], path: Path
) -> ExportReport:
    """``fitted``: layers whose weights are palettes already."""
    half = plan.precision != "fp32"
    dtypes = {port.name: _dtype(port, half) for port in (*graph.inputs, *graph.outputs)}
    compute = ct.transform.FP16ComputePrecision(op_selector=_half(graph)) if half else ct.precision.FLOAT32
    model = ct.convert(
        program,
        inputs=[_input(port, dtypes[port.name]) for port in graph.inputs],
        outputs=[ct.TensorType(name=port.name, dtype=_NUMPY[dtypes[port.name]]) for port in graph.outputs],
        minimum_deployment_target=_target(plan),
        compute_precision=compute,
    )
    if fitted:
        model = _stored_as_palettes(model, fitted)
    if plan.precision in _COMPRESSORS:
        model = _compressed(model, plan)
    model.save(str(path))
    make_small(path)
    return ExportReport(op_types(path), dtypes)


def _target(plan: Plan) -> Any:
    """The least system that runs it, as coremltools names it: ``iOS16`` and so on."""
    least = FORMATS["coreml"].least_os([plan.precision])
    assert least is not None
    return ct.target[least.replace(" ", "")]


def _compressed(model: Any, plan: Plan) -> Any:
    """Compress what is stored: one pass for the plan's precision, another for what its left-out layers take."""
    left_out = _constants(model.get_spec(), plan.left_out)
    model = _COMPRESSORS[plan.precision](model, dict.fromkeys(left_out))
    if plan.instead and left_out:
        model = _COMPRESSORS[plan.instead](model, {})  # takes what is not compressed yet
    return model


def _stored_as_palettes(model: Any, fitted: Mapping[str, Palette]) -> Any:
    spec = model.get_spec()  # a copy, each time
    configs = {
        name: cto.OpPalettizerConfig(
            mode="custom",
            lut_function=partial(_clustered, 2**palette.bits),
            granularity=_GRANULARITY[palette.grouped],
            group_size=palette.channels,
            weight_threshold=_SMALLEST,
        )
        for layer, palette in fitted.items()
        for name in _constants(spec, [layer])
        if name.startswith(f"{_parameter(layer)}_weight")
    }
    return cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=configs))


def _clustered(count: int, weights: Any) -> tuple[Any, Any]:
    """The best ``count`` values for a group's weights, or all where they have no more, and which each weight becomes.

    coremltools' own way sorts in half precision, which NumPy 2.3 gets wrong on some processors.
    """
    row = torch.from_numpy(weights.astype(np.float32)).reshape(1, -1)
    values = centroids(row, torch.ones_like(row), count)
    return values[0].numpy().astype(weights.dtype), cells(row, values)[0].numpy()


def _constants(spec: Any, layers: Sequence[str]) -> list[str]:
    """Names of the constants that belong to some layers."""
    prefixes = tuple(f"{_parameter(layer)}_" for layer in layers)
    constants = (op.outputs[0].name for op in _operations(spec) if op.type == "const")
    return [name for name in constants if name.startswith(prefixes)]


def _parameter(layer: str) -> str:
    """How the exporter begins the names of a layer's parameters, as in ``p_encoder_neck_2_weight``."""
    return f"p_{layer.replace('.', '_')}"


def _linear(model: Any, left_out: Mapping[str, None]) -> Any:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=_SMALLEST)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(config, op_name_configs=dict(left_out)))


def _palette(bits: int, group: int, model: Any, left_out: Mapping[str, None]) -> Any:
    config = cto.OpPalettizerConfig(
        mode="custom",
        lut_function=partial(_clustered, 2**bits),
        granularity=_GRANULARITY[group > 0],
        group_size=group,
        weight_threshold=_SMALLEST,
    )
    return cto.palettize_weights(model, cto.OptimizationConfig(config, op_name_configs=dict(left_out)))


_SMALLEST = 1024  # weights of fewer numbers stay as they are
_GRANULARITY = {False: "per_tensor", True: "per_grouped_channel"}
_GROUP = 16  # channels that share a palette
# Of a decoder: fitted to 16 values, these cost 6 of the 8 points of agreement that all layers together cost.
_FINER = (
    *(f"transformer.layers.{i}.{a}" for i in (0, 1) for a in ("self_attn", "cross_attn_token_to_image")),
    *(f"transformer.layers.{i}.cross_attn_image_to_token" for i in (0, 1)),
    "transformer.final_attn_token_to_image",
    "up1",
    "up2",
)
_FITTED = {
    "palette6-fitted": partial(fit_palettes, bits=6, group=0),
    "palette4-fitted": partial(fit_palettes, bits=4, group=_GROUP, finer=_FINER),
}
_TUNED = {("palette4-fitted", "encoder"), ("palette4-fitted", "proposals")}
_COMPRESSORS: dict[str, Callable[[Any, Mapping[str, None]], Any]] = {
    "int8-weights": _linear,
    "palette8": partial(_palette, 8, 0),
    "palette6": partial(_palette, 6, 0),
    "palette6-grouped": partial(_palette, 6, _GROUP),
    "palette4": partial(_palette, 4, 0),
    "palette4-grouped": partial(_palette, 4, _GROUP),
    **dict.fromkeys(_FITTED, _linear),  # of what fitting did not take
}
_NUMPY = {"float16": np.float16, "float32": np.float32}


def _dtype(port: Port, half: bool) -> str:
    if port.name == "image":
        return "image"
    return "float16" if half and port.name not in SINGLE else "float32"


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
    counts = Counter(op.type for op in _operations(spec) if op.type != "const")
    return dict(sorted(counts.items()))


def _operations(spec: Any) -> Iterator[Any]:
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from block.operations
