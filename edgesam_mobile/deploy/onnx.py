"""ONNX: for ONNX Runtime on this machine and elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch

from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.report import ExportReport

OPSET = 20  # the first with Gelu as one operation


def export(graph: Graph, targets: Mapping[str, Path]) -> dict[str, ExportReport]:
    """Export in single precision, weights inside the file."""
    reports = {}
    for precision, path in targets.items():
        torch.onnx.export(
            graph.module,
            graph.examples(),
            str(path),
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        _drop_traces(path)
        reports[precision] = ExportReport(op_types(path))
    return reports


def _drop_traces(path: Path) -> None:
    """Drop the exporter's notes on where each operation comes from: paths of this machine, half a megabyte."""
    model = onnx.load(str(path))
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for part in (model, model.graph, *model.graph.value_info, *model.functions, *nodes):
        part.ClearField("metadata_props")
    onnx.save(model, str(path))


def op_types(path: Path) -> dict[str, int]:
    """Operations of an ONNX file, after checking that it is well formed."""
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
