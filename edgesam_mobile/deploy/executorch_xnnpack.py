"""ExecuTorch with XNNPACK: ``.pte`` for the CPUs of Android phones, runs on this machine too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.half import half_graph
from edgesam_mobile.deploy.integers import marked_program
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Lower; what is compressed is marked in PyTorch's graph first.

    ``int8`` computes convolutions and linear layers in integers, by ranges measured on ``samples``; ``int8-dynamic``
    computes linear layers in integers, scaled at each call. What a plan leaves out is stored and computed in single
    precision. ``fp16`` stores and computes all but prompts in half precision.
    """
    return {path: _lower(graph, plan, samples, path) for path, plan in targets.items()}


def _lower(graph: Graph, plan: Plan, samples: Sequence[Sample], path: Path) -> ExportReport:
    partitioners: list[Any] = [XnnpackPartitioner()]
    if plan.precision == "int8-dynamic":
        partitioners.insert(0, XnnpackDynamicallyQuantizedPartitioner())
    return lower(_program(graph, plan, samples), partitioners, path)


def _program(graph: Graph, plan: Plan, samples: Sequence[Sample]) -> torch.export.ExportedProgram:
    if plan.precision.startswith("int8"):
        return marked_program(graph, plan, samples)
    if plan.precision == "fp16":
        graph = half_graph(graph)
    return torch.export.export(graph.module, graph.examples(), strict=False)
