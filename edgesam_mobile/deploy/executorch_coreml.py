"""ExecuTorch with Core ML: ``.pte`` whose work Apple's runtime does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import coremltools as ct
import torch
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.folding import keep_constants_small
from edgesam_mobile.deploy.integers import marked_program
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport
from edgesam_mobile.deploy.saving import small_packages

_WEIGHTS = {"int8-weights": {"mode": "linear_symmetric", "dtype": "int8", "granularity": "per_channel"}}


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Lower for iOS 16 and later; inputs and outputs stay in single precision, all else is half precision.

    ``int8-weights`` stores weights in 8 bits: all of them, since this backend cannot leave any out. ``int8`` also
    computes convolutions and linear layers in integers, by ranges measured on ``samples``, from iOS 17 on.
    """
    keep_constants_small()
    reports = {}
    for path, plan in targets.items():
        # Lowering takes a program's buffers away: each precision needs one of its own.
        if plan.calibrated:
            program = marked_program(graph, plan, samples)
        else:
            program = torch.export.export(graph.module, graph.examples(), strict=False)
        specs = CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=ct.target.iOS17 if plan.calibrated else ct.target.iOS16,
            compute_precision=ct.precision.FLOAT16,
            op_linear_quantizer_config=_WEIGHTS.get(plan.precision),
        )
        with small_packages():
            reports[path] = lower(program, [CoreMLPartitioner(compile_specs=specs)], path)
    return reports
