"""TFLite (LiteRT): for Android; pictures and embeddings are N x H x W x C, as the format's kernels want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import litert_torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import calibrator, qtyping, quantizer
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.layers import scope_pattern
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

_OPS = qtyping.TFLOperationName
# What integer kernels do faster; all else (GELU, norms, softmax) is small, and its rounding costs masks. An old
# runtime refuses SQRT of integers altogether.
_INTEGER = (_OPS.CONV_2D, _OPS.DEPTHWISE_CONV_2D, _OPS.FULLY_CONNECTED)
_SIGNATURE = "serving_default"
_THREADS = 2


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Convert once; every precision is made from the converted file.

    ``fp16`` and ``int8-weights`` store weights smaller and compute in floating point, ``int8-dynamic`` scales
    activations at each call, ``int8`` and ``int16x8`` by ranges measured on ``samples``. Integer arithmetic is for
    convolutions and linear layers only. Inputs and outputs stay floating point. Layers that a plan leaves out
    compute in floating point, on weights stored in 8 bits.
    """
    full = next(iter(targets)).with_name("full.tflite")
    inputs = dict(zip((port.name for port in graph.inputs), graph.examples(), strict=True))
    litert_torch.convert(graph.module, sample_kwargs=inputs).export(str(full))
    _name_outputs(full, [port.name for port in graph.outputs])
    ranges: dict[str, Any] = {}
    for path, plan in targets.items():
        if plan.precision == "fp32":
            path.write_bytes(full.read_bytes())
            continue
        if plan.calibrated and plan.precision not in ranges:
            ranges[plan.precision] = _measure(full, plan.precision, samples)
        _compress(full, path, graph, plan, ranges.get(plan.precision))
        _drop_names(path)
    full.unlink()
    return {path: ExportReport(op_types(path)) for path in targets}


def _name_outputs(path: Path, names: list[str]) -> None:
    """Call the signature's outputs by our names: the converter knows them as ``output_0`` and so on."""
    model: Any = tfl_flatbuffer_utils.read_model(path)
    outputs = model.signatureDefs[0].outputs
    for output in outputs:
        output.name = names[int(output.name.decode().rsplit("_", 1)[1])].encode()
    tfl_flatbuffer_utils.write_model(model, path)


def _drop_names(path: Path) -> None:
    """Empty the names of tensors inside: they say where in our code each comes from, a third of a megabyte."""
    model: Any = tfl_flatbuffer_utils.read_model(path)
    for subgraph in model.subgraphs:
        outer = {*subgraph.inputs, *subgraph.outputs}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in outer:
                tensor.name = b""
    tfl_flatbuffer_utils.write_model(model, path)


def _measure(full: Path, precision: str, samples: Sequence[Sample]) -> Any:
    """Ranges of all that a precision computes in integers; plans that leave layers out use a part of them."""
    work = quantizer.Quantizer(str(full))
    _RECIPES[precision](work)
    feeds = [{name: tensor.numpy() for name, tensor in sample.items()} for sample in samples]
    # Its other mode keeps every activation of a run: 12 GB for MobileSAM's encoder instead of 1.
    mode = calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED
    return work.calibrate({_SIGNATURE: feeds}, num_threads=_THREADS, mode=mode)


def _compress(full: Path, path: Path, graph: Graph, plan: Plan, ranges: Any) -> None:
    work = quantizer.Quantizer(str(full))
    _RECIPES[plan.precision](work)
    for layer in plan.left_out:
        work.add_weight_only_config(scope_pattern(graph.module, layer), _OPS.ALL_SUPPORTED, 8)
    work.quantize(ranges).export_model(str(path), overwrite=True)


def _half_weights(work: quantizer.Quantizer) -> None:
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    work.update_quantization_recipe(".*", _OPS.ALL_SUPPORTED, config, quantizer.AlgorithmName.FLOAT_CASTING)


def _integer(activation_bits: int, work: quantizer.Quantizer) -> None:
    for operation in _INTEGER:
        work.add_static_config(".*", operation, activation_num_bits=activation_bits, weight_num_bits=8)


_RECIPES: dict[str, Callable[[quantizer.Quantizer], None]] = {
    "fp16": _half_weights,
    "int8": partial(_integer, 8),
    "int16x8": partial(_integer, 16),
    "int8-dynamic": lambda work: work.add_dynamic_config(".*", _OPS.ALL_SUPPORTED, 8),
    "int8-weights": lambda work: work.add_weight_only_config(".*", _OPS.ALL_SUPPORTED, 8),
}


def op_types(path: Path) -> dict[str, int]:
    """Operations of a ``.tflite`` file as stored (before any delegate rewrites them)."""
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    counts = Counter(op["op_name"] for op in interpreter._get_ops_details())
    return dict(sorted(counts.items()))
