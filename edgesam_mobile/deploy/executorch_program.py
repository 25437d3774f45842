"""What both ExecuTorch backends share: lowering to a ``.pte`` file and listing what it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executorch.exir import to_edge_transform_and_lower
from executorch.exir.lowered_backend_module import get_lowered_submodules

from edgesam_mobile.deploy.report import ExportReport


def lower(program: Any, partitioners: Sequence[Any], path: Path) -> ExportReport:
    """Lower an exported program, each part by the first partitioner that takes it, and write the result.

    Operations that a backend took are listed by name; those left to ExecuTorch's portable kernels carry
    ``(portable)`` behind it, since they are what slows a model down.
    """
    edge = to_edge_transform_and_lower(program, partitioner=list(partitioners))
    top = edge.exported_program().graph_module
    counts = Counter(f"{name} (portable)" for name in _operations(top))
    for _, lowered, _ in get_lowered_submodules(top):
        counts.update(_operations(lowered.original_module.graph_module))
        counts["delegate"] += 1
    with path.open("wb") as stream:
        edge.to_executorch().write_to_file(stream)
    return ExportReport(dict(sorted(counts.items())))


def _operations(module: Any) -> list[str]:
    """Names such as ``convolution`` of a graph module's computing nodes."""
    targets = [node.target for node in module.graph.nodes if node.op == "call_function"]
    # Edge operators have a name; what has none is plumbing, such as picking one of several outputs.
    names = [t.name().removeprefix("aten::") for t in targets if callable(getattr(t, "name", None))]
    return [name for name in names if name != "executorch_call_delegate"]
