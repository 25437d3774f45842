"""ExecuTorch with XNNPACK: ``.pte`` for the CPUs of Android phones, runs on this machine too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.report import ExportReport


def export(graph: Graph, targets: Mapping[str, Path]) -> dict[str, ExportReport]:
    """Lower in single precision."""
    return {precision: lower(graph, XnnpackPartitioner(), path) for precision, path in targets.items()}
