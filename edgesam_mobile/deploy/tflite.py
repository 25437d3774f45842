"""TFLite (LiteRT): for Android; pictures and embeddings are N x H x W x C, as the format's kernels want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import litert_torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.layers import layer_names, scope_pattern
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

_OPS = qtyping.TFLOperationName
# What integer kernels do faster, with linear layers; all else (GELU, norms, softmax) is small, and its rounding costs
# masks. An old runtime refuses SQRT of integers altogether.
_CONVOLUTIONS = (_OPS.CONV_2D, _OPS.DEPTHWISE_CONV_2D)
_SIGNATURE = "serving_default"
_THREADS = 2


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Convert once; every precision is made from the converted file.

    ``fp16`` and ``int8-weights`` store weights smaller and compute in floating point, ``int8-dynamic`` scales
    activations at each call, ``int8`` and ``int16x8`` by ranges measured on ``samples``. Integer arithmetic is for
    convolutions and, in ``int8``, for linear layers. Inputs and outputs stay floating point. Layers that a plan
    leaves out compute in floating point, on weights stored in 8 bits.
    """
    full = next(iter(targets)).with_name("full.tflite")
    inputs = dict(zip((port.name for port in graph.inputs), graph.examples(), strict=True))
    litert_torch.convert(graph.module, sample_kwargs=inputs).export(str(full))
    _name_outputs(full, [port.name for port in graph.outputs])
    ranges: dict[bool, Any] = {}
    for path, plan in targets.items():
        if plan.precision == "fp32":
            path.write_bytes(full.read_bytes())
            continue
        average = graph.name != "decoder" and plan.precision == "int8"
        if plan.calibrated and average not in ranges:
            ranges[average] = _measure(full, samples, average=average)
        _compress(full, path, graph, plan, ranges.get(average))
        _tidy(path)
    full.unlink()
    return {path: ExportReport(op_types(path)) for path in targets}


def _name_outputs(path: Path, names: list[str]) -> None:
    """Call the signature's outputs by our names: the converter knows them as ``output_0`` and so on."""
    model: Any = tfl_flatbuffer_utils.read_model(path)
    outputs = model.signatureDefs[0].outputs
    for output in outputs:
        output.name = names[int(output.name.decode().rsplit("_", 1)[1])].encode()
    tfl_flatbuffer_utils.write_model(model, path)


def _tidy(path: Path) -> None:
    """Let the signature lead to the graph's outputs, and empty the names of tensors inside.

    Of an output that is computed on inside too, the quantiser leaves the signature at the integers before it, which
    LiteRT's delegate does not keep. Names say where in our code each tensor comes from, a third of a megabyte; lists
    that are there many times, such as 64-bit zeros for every channel, are written once, which saves as much again.
    """
    model: Any = tfl_flatbuffer_utils.read_model(path)
    for said, output in zip(model.signatureDefs[0].outputs, model.subgraphs[0].outputs, strict=True):
        said.tensorIndex = output
    for subgraph in model.subgraphs:
        outer = {*subgraph.inputs, *subgraph.outputs}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in outer:
                tensor.name = b""
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal lists of numbers once: whoever reads a flatbuffer follows offsets, and cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        numbers = x.dtype.str, x.tobytes()
        if numbers not in self._written:
            self._written[numbers] = super().CreateNumpyVector(x)
        return self._written[numbers]


def _measure(full: Path, samples: Sequence[Sample], *, average: bool) -> Any:
    """Ranges of every tensor: the extremes of all samples, or the average of each one's.

    In 8 bits, a picture's rare extremes cost all others more than they are worth. A decoder's samples are prompts of
    several kinds, and what one kind needs would be cut off: of edge-sam-open's masks, averages change 6.8 % in 8 bits
    and 4.8 % in 16, extremes 2.3 % and 0.6 %. The quantiser's own moving average is the first sample's by 95 %.
    """
    work = calibrator.Calibrator(
        full.read_bytes(),
        num_threads=_THREADS,
        # Its other mode keeps every activation of a run: 12 GB for MobileSAM's encoder instead of 1.
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=_averaged if average else qsv_utils.min_max_update,
    )
    feeds = [{name: tensor.numpy() for name, tensor in sample.items()} for sample in samples]
    work.calibrate({_SIGNATURE: feeds}, recipe_manager.RecipeManager())
    return work.get_model_qsvs()


def _averaged(ranges: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    before = ranges.get("samples", 1)
    mean = {side: (ranges[side] * before + sample[side]) / (before + 1) for side in ("min", "max")}
    return {**mean, "samples": before + 1}


def _compress(full: Path, path: Path, graph: Graph, plan: Plan, ranges: Any) -> None:
    work = quantizer.Quantizer(str(full))
    _RECIPES[plan.precision](work, graph)
    for layer in plan.left_out:
        work.add_weight_only_config(scope_pattern(graph.module, layer), _OPS.ALL_SUPPORTED, 8)
    work.quantize(ranges).export_model(str(path), overwrite=True)


def _half_weights(work: quantizer.Quantizer, _: Graph) -> None:
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    work.update_quantization_recipe(".*", _OPS.ALL_SUPPORTED, config, quantizer.AlgorithmName.FLOAT_CASTING)


def _integer(work: quantizer.Quantizer, graph: Graph) -> None:
    _static(work, graph, (*_CONVOLUTIONS, _OPS.FULLY_CONNECTED), 8)


def _wide(work: quantizer.Quantizer, graph: Graph) -> None:
    _static(work, graph, _CONVOLUTIONS, 16)
    _float_products(work)


def _static(work: quantizer.Quantizer, graph: Graph, operations: Sequence[Any], bits: int) -> None:
    # Not the products of prompts' labels: an error of 1 in 32767 there is one of 0.3 in an attention's score.
    layers = "|".join(scope_pattern(graph.module, name) for name in layer_names(graph))
    for operation in operations:
        work.add_static_config(layers, operation, activation_num_bits=bits, weight_num_bits=8)


def _dynamic(work: quantizer.Quantizer, _: Graph) -> None:
    work.add_dynamic_config(".*", _OPS.ALL_SUPPORTED, 8)
    _float_products(work)


def _float_products(work: quantizer.Quantizer) -> None:
    """Linear layers in floating point, on weights of 8 bits.

    With a scale a channel, tflite-runtime 2.14 computes them rightly only where activations are int8 with measured
    ranges. In other integers it loads the file and answers masks that are empty or noise.
    """
    work.add_weight_only_config(".*", _OPS.FULLY_CONNECTED, 8)


_RECIPES: dict[str, Callable[[quantizer.Quantizer, Graph], None]] = {
    "fp16": _half_weights,
    "int8": _integer,
    "int16x8": _wide,
    "int8-dynamic": _dynamic,
    "int8-weights": lambda work, _: work.add_weight_only_config(".*", _OPS.ALL_SUPPORTED, 8),
}


def op_types(path: Path) -> dict[str, int]:
    """Operations of a ``.tflite`` file as stored (before any delegate rewrites them)."""
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    counts = Counter(op["op_name"] for op in interpreter._get_ops_details())
    return dict(sorted(counts.items()))
