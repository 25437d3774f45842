"""TFLite (LiteRT): for Android; pictures and embeddings are N x H x W x C, as the format's kernels want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import litert_torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.report import ExportReport


def export(graph: Graph, targets: Mapping[str, Path]) -> dict[str, ExportReport]:
    """Convert once; ``fp16`` stores the same weights in half precision and computes as the phone likes."""
    full = next(iter(targets.values())).with_name("full.tflite")
    inputs = dict(zip((port.name for port in graph.inputs), graph.examples(), strict=True))
    litert_torch.convert(graph.module, sample_kwargs=inputs).export(str(full))
    _name_outputs(full, [port.name for port in graph.outputs])
    for precision, path in targets.items():
        if precision == "fp16":
            _half_weights(full, path)
        else:
            path.write_bytes(full.read_bytes())
    full.unlink()
    return {precision: ExportReport(op_types(path)) for precision, path in targets.items()}


def _name_outputs(path: Path, names: list[str]) -> None:
    """Call the signature's outputs by our names: the converter knows them as ``output_0`` and so on."""
    model: Any = tfl_flatbuffer_utils.read_model(path)
    outputs = model.signatureDefs[0].outputs
    for output in outputs:
        output.name = names[int(output.name.decode().rsplit("_", 1)[1])].encode()
    tfl_flatbuffer_utils.write_model(model, path)


def _half_weights(full: Path, path: Path) -> None:
    half = quantizer.Quantizer(str(full))
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    half.update_quantization_recipe(".*", everything, config, quantizer.AlgorithmName.FLOAT_CASTING)
    half.quantize().export_model(str(path))


def op_types(path: Path) -> dict[str, int]:
    """Operations of a ``.tflite`` file as stored (before any delegate rewrites them)."""
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    counts = Counter(op["op_name"] for op in interpreter._get_ops_details())
    return dict(sorted(counts.items()))
