"""ONNX: for ONNX Runtime on this machine and elsewhere."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.layers import layer_names, within
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

OPSET = 20  # the first with Gelu as one operation
_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note on which module a node comes from
_INTEGER = ("Conv", "Gemm", "MatMul")
_SMALLEST = 1024  # weights of fewer numbers stay as they are


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Export once, weights inside the file; every precision is made from that file.

    ``fp16`` keeps inputs and outputs in single precision. ``int8`` marks convolutions and linear layers (QDQ), by
    ranges measured on ``samples``; ``int8-weights`` stores weights in 8 bits and computes in floating point, as do
    the layers that a plan leaves out.
    """
    full = next(iter(targets)).with_name("full.onnx")
    program = torch.onnx.export(
        graph.module,
        graph.examples(),
        input_names=[port.name for port in graph.inputs],
        output_names=[port.name for port in graph.outputs],
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None  # with ``dynamo``
    # As the exporter would, but for constants that grow by it, as attention's biases do: the runtime folds those.
    onnxscript.optimizer.optimize(program.model, output_size_limit=_SMALLEST)
    program.save(str(full))
    reports = {}
    for path, plan in targets.items():
        _compress(full, path, graph, plan, samples)
        reports[path] = ExportReport(op_types(path))
    full.unlink()
    return reports


def _compress(full: Path, path: Path, graph: Graph, plan: Plan, samples: Sequence[Sample]) -> None:
    model = onnx.load(str(full))
    if plan.precision == "fp16":
        converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
        converted.topological_sort()  # it appends its casts at the end, where no checker takes them
        model = converted.model
    elif plan.precision == "int8":
        model = _calibrated(model, full, path, graph, plan, samples)
    if plan.precision.startswith("int8"):
        _store_small(model)
    _drop_traces(model)
    onnx.save(model, str(path))


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Samples one at a time, as the quantiser asks for them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        sample = next(self._left, None)
        return None if sample is None else {name: tensor.numpy() for name, tensor in sample.items()}


def _calibrated(
    model: onnx.ModelProto, full: Path, path: Path, graph: Graph, plan: Plan, samples: Sequence[Sample]
) -> onnx.ModelProto:
    """``model`` is what ``full`` holds; the quantiser reads and writes files."""
    # Not the products of prompts' labels, nor the ranking of masks, which integers would turn around.
    layers = {name for name in layer_names(graph) if not within(name, plan.left_out)}
    chosen = [n.name for n in model.graph.node if n.op_type in _INTEGER and layers.intersection(_scopes(n))]
    if not chosen:
        return model  # to the quantiser, an empty list means everything
    quantize_static(
        full,
        path,
        _Feeds(samples),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(_INTEGER),
        nodes_to_quantize=chosen,
        # A picture's rare extremes widen a range for all others: embeddings' cosine 0.959 instead of 0.977. A
        # decoder's samples are prompts of several kinds, of which none may be cut off: 1.8 points of box mIoU.
        extra_options={"CalibMovingAverage": graph.name != "decoder"},
    )
    return onnx.load(str(path))


def _scopes(node: onnx.NodeProto) -> list[str]:
    """Names of the modules that a node comes from, outermost first."""
    said = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    return [str(name) for name in ast.literal_eval(said)]


def _store_small(model: onnx.ModelProto) -> None:
    """Store the weights that are still floating point in 8 bits, symmetric, a scale for each output channel."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    used = Counter(name for node in model.graph.node for name in node.input)
    for node, name, axis in list(_weights(model)):
        tensor = stored.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or used[name] > 1:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALLEST:
            continue
        others = tuple(a for a in range(values.ndim) if a != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
        small = np.round(values / scale).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(small, name))
        scales = numpy_helper.from_array(scale.reshape(-1).astype(np.float32), f"{name}.scale")
        model.graph.initializer.append(scales)
        restored = onnx.helper.make_node(
            "DequantizeLinear", [name, scales.name], [f"{name}.restored"], f"{name}.restore", axis=axis
        )
        position = next(i for i, other in enumerate(model.graph.node) if other.name == node.name)
        model.graph.node.insert(position, restored)
        index = list(node.input).index(name)
        model.graph.node[position + 1].input[index] = restored.output[0]


def _weights(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, int]]:
    """Nodes with weights, the weights' names, and which axis counts output channels."""
    for node in model.graph.node:
        if node.op_type == "Conv":
            yield node, node.input[1], 0
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            yield node, node.input[1], 0 if transposed else 1
        elif node.op_type == "MatMul":
            yield node, node.input[1], 1


def _drop_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on where each operation comes from: paths of this machine, half a megabyte.

    And the shapes of what is computed on the way, which a runtime finds by itself.
    """
    model.graph.ClearField("value_info")
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for part in (model, model.graph, *model.functions, *nodes):
        part.ClearField("metadata_props")


def op_types(path: Path) -> dict[str, int]:
    """Operations of an ONNX file, after checking that it is well formed."""
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
