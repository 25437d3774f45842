"""ExecuTorch with XNNPACK: ``.pte`` for the CPUs of Android phones, runs on this machine too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:  # noqa: ARG001
    """Lower in single precision."""
    return {path: lower(graph, XnnpackPartitioner(), path) for path in targets}
