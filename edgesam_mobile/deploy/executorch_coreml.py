"""ExecuTorch with Core ML: ``.pte`` whose work Apple's runtime does. Lowered here, executed only by Apple systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import coremltools as ct
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

_COMPUTE = {"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:  # noqa: ARG001
    """Lower for iOS 16 and later; inputs and outputs stay in single precision."""
    reports = {}
    for path, plan in targets.items():
        specs = CoreMLBackend.generate_compile_specs(
            compute_precision=_COMPUTE[plan.precision], minimum_deployment_target=ct.target.iOS16
        )
        reports[path] = lower(graph, CoreMLPartitioner(compile_specs=specs), path)
    return reports
