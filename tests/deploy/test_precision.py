"""Compressed precisions: plans, calibration sets, and what TFLite and ONNX files become."""

from __future__ import annotations

import copy
import gc
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgesam_mobile.deploy import worker
from edgesam_mobile.deploy.calibration import encoder_inputs, finite_answers, graph_inputs
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import FORMATS, Format
from edgesam_mobile.deploy.layers import layer_names, refuse_strange, scope_pattern, within
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.deploy.palettes import fit_palettes
from edgesam_mobile.deploy.ports import Graph, Port
from edgesam_mobile.deploy.precision import PRECISIONS, Plan
from edgesam_mobile.deploy.report import ExportReport
from edgesam_mobile.deploy.tuning import tune_palettes
from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.evaluate.metrics import cosine
from edgesam_mobile.files import size_of
from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.weights.checkpoint import Metadata, write_checkpoint

# coremltools leaves temporary folders to the collector, which warns of them.
leaves_folders = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")


class Layers(nn.Module):
    """Two convolutions and a linear layer with enough weights to compress."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(64, 64, 3, padding=1)])
        self.head = nn.Linear(64, 32)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = self.stem(image.permute(0, 3, 1, 2) / 255)
        for block in self.blocks:
            x = torch.relu(block(x))
        return (self.head(x.mean((2, 3))),)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    ports = (Port("image", (1, 16, 16, 3), "float32", "NHWC", ""),)
    return Graph("encoder", Layers().eval().requires_grad_(False), ports, (Port("y", (1, 32), "float32", "NX", ""),))


@pytest.fixture(scope="module")
def noise(graph: Graph) -> list[dict[str, Tensor]]:
    calibration, _ = calibration_set("random:3", 3)
    return graph_inputs(graph, graph, calibration)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_formats_offer_precisions_that_exist_and_recommend_what_they_offer(form: Format) -> None:
    assert {*form.precisions, *form.compressed} <= set(PRECISIONS)
    assert form.offers("recommended") == bool(form.recommended)
    assert set(form.recommended) in (set(), {"encoder", "decoder", "proposals"})
    assert all(form.offers(plan.precision) for plan in form.recommended.values())
    assert set(form.leaves_out) <= set(form.compressed)
    assert not form.sensitive or form.recommended["encoder"].precision in form.leaves_out


@pytest.mark.parametrize("name", ["edge-sam", "mobile-sam"])
def test_what_is_recommended_to_be_left_out_is_there(name: str) -> None:
    from edgesam_mobile.deploy.decoder import decoder_graph
    from edgesam_mobile.deploy.proposals import proposals_graph
    from edgesam_mobile.model.proposals import ProposalHead, Stages

    model = build_model(name).eval()
    graphs = [encoder_graph(model), decoder_graph(model)]
    if name == "edge-sam":
        graphs.append(proposals_graph(model, ProposalHead(Stages(model).widths).eval()))
    every = 0
    for form in FORMATS.values():
        left_out = {graph.name: form.recommendation(graph.name, name).left_out for graph in graphs}
        for graph in graphs:
            refuse_strange(graph, left_out[graph.name])
        assert len(left_out["encoder"] + left_out["decoder"]) == len(form.sensitive.get(name, ()))
        assert len(left_out.get("proposals", left_out["encoder"])) == len(left_out["encoder"])
        every += len(left_out["encoder"])
    assert every > 0


@pytest.fixture(scope="module")
def tiny_model() -> Sam:
    """The smallest student at 256 pixels; no test changes it."""
    return untrained_model("edge-sam-tiny", upsample="bilinear", image_size=256)


def carry_out(model: Sam, folder: Path, plan: Plan) -> None:
    """A worker's job in this process: export the ONNX encoder of a model."""
    weights = write_checkpoint(folder / "weights.safetensors", model.state_dict(), Metadata("edge-sam-tiny"))
    (folder / "out").mkdir()
    options = {"image_dtype": "float32", "slots": 2, "prompts": 1, "mask_input": False, "score": "stability"}
    job = {"format": "onnx", "weights": str(weights), "upsample": "bilinear", "image_size": 256, "options": options}
    parts = {"encoder": [{"folder": str(folder / "out"), "plan": plan.to_json()}]}
    worker._carry_out({**job, "calibration": None, "parts": parts}, io.StringIO())


def test_weights_that_overflow_make_no_artefact_in_any_precision(tiny_model: Sam, tmp_path: Path) -> None:
    broken = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for layer in broken.image_encoder.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(1e20)
    with pytest.raises(WeightsError, match=r"encoder\.features\.\S+ of the encoder answers sample 1 with NaN or"):
        carry_out(broken, tmp_path, Plan("fp32"))
    assert list((tmp_path / "out").iterdir()) == []


def test_what_only_half_precision_cannot_hold_makes_no_artefact_in_half(tiny_model: Sam, tmp_path: Path) -> None:
    broken = copy.deepcopy(tiny_model)
    with torch.no_grad():
        next(layer for layer in broken.image_encoder.modules() if isinstance(layer, nn.Conv2d)).weight.mul_(1e5)
    with pytest.raises(WeightsError, match=r"of the encoder answers sample 1 with \d\S+, more than half") as refused:
        carry_out(broken, tmp_path, Plan("fp16"))
    assert "--precision fp32" in (refused.value.hint or "")
    assert list((tmp_path / "out").iterdir()) == []
    single = encoder_graph(broken)
    finite_answers(single, encoder_inputs(single, calibration_set(None, 1)[0].views))  # in which nothing overflows


@pytest.mark.parametrize("name", FORMATS)
def test_every_precision_without_single_precision_in_it_is_looked_at_in_half(name: str) -> None:
    """Of formats whose phones compute so; the others widen what they store."""
    form = FORMATS[name]
    offered = {*form.precisions, *form.compressed}
    computed = {"coreml": offered - {"fp32"}, "executorch-coreml": offered, "tflite": set()}
    assert set(form.half) == computed.get(name, {"fp16"})


class Squares(nn.Module):
    """Its answer is small, what lies between is not."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return ((image * 300).pow(2).mean().sqrt(),)


class Ramp(nn.Module):
    """A steep one, as the decoder's score has it."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return ((image * 1e5).clamp(0.0, 1.0),)


def test_what_is_clamped_at_once_may_overflow(graph: Graph) -> None:
    ramp = Graph("decoder", Ramp(), graph.inputs, graph.outputs)
    ((answer,),) = finite_answers(ramp, [{"image": torch.ones(2)}], torch.float16)
    assert answer.tolist() == (torch.ones(2).half() * 1e5).clamp(0.0, 1.0).tolist() == [1, 1]


def test_operations_between_layers_are_looked_at_too(graph: Graph) -> None:
    squares = Graph("encoder", nn.Sequential(Squares()), graph.inputs, graph.outputs)
    ((answer,),) = finite_answers(squares, [{"image": torch.ones(2)}])
    assert float(answer) == 300
    with pytest.raises(WeightsError, match="0 of the encoder answers sample 1 with 90000, more than half"):
        finite_answers(squares, [{"image": torch.ones(2)}], torch.float16)


def test_a_plan_for_other_layers_makes_no_artefact(tiny_model: Sam, tmp_path: Path) -> None:
    plan = Plan("int8", ("encoder.neck", "encoder.features.99"))
    with pytest.raises(UsageError, match=r"the encoder has no layer 'encoder\.features\.99' to leave out"):
        carry_out(tiny_model, tmp_path, plan)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_plan_with_left_out_has_a_key_of_its_own_in_any_order() -> None:
    plain, one, other = Plan("int8"), Plan("int8", ("a", "b")), Plan("int8", ("b", "a"))
    assert plain.key == "int8" != one.key == other.key
    assert Plan.from_json(one.to_json()) == one


def test_groups_are_whole_names() -> None:
    assert within("features.1.fc", ["features.1"]) and within("neck", ["neck"])
    assert not within("features.11.fc", ["features.1"])


def test_scopes_leave_lists_of_modules_out(graph: Graph) -> None:
    assert layer_names(graph) == ["stem", "blocks.0", "head"]
    assert scope_pattern(graph.module, "blocks.0") == r"(^|;)[^/;]*/[^/;]*_0[/;]"


def test_a_layer_that_answers_nan_is_named_and_nothing_is_calibrated(graph: Graph) -> None:
    broken = Graph(graph.name, copy.deepcopy(graph.module), graph.inputs, graph.outputs)
    broken.module.blocks[0].weight.data[0, 0, 0, 0] = float("nan")
    calibration, _ = calibration_set("random:2", 2)
    with pytest.raises(WeightsError, match=r"blocks\.0 of the encoder answers sample 1 with NaN"):
        graph_inputs(broken, broken, calibration)
    assert not any(module._forward_hooks for module in broken.module.modules())
    assert len(graph_inputs(graph, graph, calibration)) == 2


def test_calibrated_precisions_without_pictures_are_refused(tmp_path: Path) -> None:
    from edgesam_mobile.deploy.build import build

    with pytest.raises(UsageError, match="calibrated"):
        build(BuildOptions("edge-sam-open", targets=("host",), precisions=("int8",)), tmp_path / "p")


COMPRESSED = ("fp16", "int8", "int8-weights")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")  # the quantiser's own
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_files_shrink_and_still_compute_nearly_the_same(
    name: str, graph: Graph, noise: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    from edgesam_mobile.runtime.session import SessionOptions, open_session

    form = FORMATS[name]
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    plans = {p: Plan(p) for p in ("fp32", *COMPRESSED)} | {"part": Plan("int8", ("blocks.0",))}
    targets = {tmp_path / f"{label}{form.suffix}": plan for label, plan in plans.items()}
    reports = exporter.export(graph, targets, noise)
    sizes = {label: path.stat().st_size for label, path in zip(plans, targets, strict=True)}
    assert sizes["fp32"] > 1.6 * sizes["fp16"] > 1.3 * sizes["int8"]
    assert sizes["int8-weights"] < 0.45 * sizes["fp32"]

    def quantised(label: str) -> int:
        kinds = reports[tmp_path / f"{label}{form.suffix}"].op_types
        return sum(count for kind, count in kinds.items() if kind in ("QUANTIZE", "QuantizeLinear"))

    assert quantised("int8") >= quantised("part") > quantised("int8-weights") == 0
    contents = {label: path.read_bytes() for label, path in zip(plans, targets, strict=True)}
    assert contents["int8"] != contents["part"]  # the layer left out is stored, but not computed, in integers
    expected = graph.module(noise[0]["image"])[0].numpy()
    for label, path in zip(plans, targets, strict=True):
        record = _record(graph)
        session = open_session(path, record, name, SessionOptions(threads=1))
        (found,) = session.run({"image": noise[0]["image"].numpy()}).values()
        assert np.abs(found - expected).max() < (1e-5 if label == "fp32" else 0.05 * np.abs(expected).max()), label


@pytest.fixture(scope="module")
def real(tiny_model: Sam) -> tuple[Graph, Graph, list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Encoder and decoder of the smallest student, N x C x H x W, and what they are calibrated with."""
    from edgesam_mobile.deploy.decoder import decoder_graph

    encoder, decoder = encoder_graph(tiny_model), decoder_graph(tiny_model)
    calibration, _ = calibration_set("generated:1", 1)
    return (
        encoder,
        decoder,
        graph_inputs(encoder, encoder, calibration),
        graph_inputs(decoder, encoder, calibration)[:2],
    )


def _run(name: str, graph: Graph, path: Path, report: ExportReport, sample: dict[str, Tensor]) -> np.ndarray:
    """The first output of an exported graph on a sample."""
    from edgesam_mobile.deploy.worker import describe
    from edgesam_mobile.package.manifest import FileRecord, GraphRecord
    from edgesam_mobile.runtime.session import SessionOptions, open_session

    file = FileRecord(path="graph", sha256="0" * 64, bytes=1)
    record = GraphRecord(file=file, op_types=report.op_types, **describe(graph, report.dtypes))
    session = open_session(path, record, name, SessionOptions(threads=1))
    found = session.run({key: tensor.numpy() for key, tensor in sample.items()})
    return np.asarray(found[graph.outputs[0].name], np.float32)


@pytest.mark.slow
@leaves_folders
@pytest.mark.parametrize("name", ["coreml", "executorch-coreml", "executorch-xnnpack"])
def test_calibrated_integers_reach_every_format_with_marks(name: str, real: Any, tmp_path: Path) -> None:
    """Layers left out are not marked: fewer operations quantise, and the embedding is nearer."""
    encoder, _, samples, _ = real
    form = FORMATS[name]
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    plans = {"all": Plan("int8"), "part": Plan("int8", ("encoder.features", "encoder.fuse_stage3"))}
    targets = {tmp_path / f"{label}{form.suffix}": plan for label, plan in plans.items()}
    reports = exporter.export(encoder, targets, samples)
    expected = encoder.module(samples[0]["image"])[0].numpy()
    marks, errors = [], []
    for path, report in reports.items():
        # ExecuTorch counts the layers that a backend took with their marks inside; Core ML lists them apart.
        marks.append(sum(n for kind, n in report.op_types.items() if "quantize" in kind))
        found = _run(name, encoder, path, report, samples[0])
        errors.append(float(np.square(found - expected).mean() / np.square(expected).mean()))
    assert marks[0] > marks[1] > 0
    assert 0 < errors[1] < errors[0] < 0.2
    gc.collect()  # what coremltools leaves to it would warn in another test


@pytest.mark.slow
@leaves_folders
def test_fitted_palettes_reach_the_core_ml_program(real: Any, tmp_path: Path) -> None:
    encoder, _, samples, _ = real
    whole, small = tmp_path / "whole.mlpackage", tmp_path / "small.mlpackage"
    exporter = importlib.import_module("edgesam_mobile.deploy.coreml")
    report = exporter.export(encoder, {whole: Plan("fp16"), small: Plan("palette4-fitted")}, samples)[small]
    fitted = copy.deepcopy(encoder.module)
    layers = fit_palettes(fitted, samples, bits=4, group=16)
    tune_palettes(fitted, encoder.module, layers, samples)
    assert report.op_types["constexpr_lut_to_dense"] == len(layers) > 5
    assert size_of(small) < 0.5 * size_of(whole)
    found = _run("coreml", encoder, small, report, samples[0])
    expected, before = (graph(samples[0]["image"])[0].numpy() for graph in (fitted, encoder.module))
    assert cosine(found, expected) > 0.9999 > cosine(before, expected)
    gc.collect()  # what coremltools leaves to it would warn in another test


@pytest.mark.slow
@leaves_folders
def test_half_precision_programs_of_xnnpack_answer_as_pytorch_does(real: Any, tmp_path: Path) -> None:
    """Their layer norms are single: ExecuTorch's own answer half precision with nonsense."""
    from edgesam_mobile.deploy import executorch_xnnpack

    encoder, decoder, pictures, prompts = real
    for graph, sample in ((encoder, pictures[0]), (decoder, prompts[0])):
        plans = {tmp_path / f"{graph.name}-{p}.pte": Plan(p) for p in ("fp16", "fp32")}
        reports = executorch_xnnpack.export(graph, plans, [])
        expected = graph.module(*sample.values())[0].numpy()
        half, full = (
            np.abs(_run("executorch-xnnpack", graph, path, report, sample) - expected).max()
            for path, report in reports.items()
        )
        assert full < half < 0.02 * np.abs(expected).max()
    small, large = (path.stat().st_size for path in plans)
    assert small < 0.6 * large


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")  # the quantiser's own
def test_integers_of_tflite_are_for_convolutions_and_in_int8_for_linear_layers(real: Any, tmp_path: Path) -> None:
    """Norms and attention scores stay floating point: an old runtime refuses SQRT of integers altogether."""
    from edgesam_mobile.deploy import tflite

    _, decoder, _, prompts = real
    plans = {tmp_path / f"{p}.tflite": Plan(p) for p in ("fp32", "int8", "int16x8", "int8-dynamic")}
    reports = tflite.export(decoder, plans, prompts)
    expected = decoder.module(*prompts[0].values())[0].numpy()
    for path, report in reports.items():
        floating = {"SQRT", "RSQRT", "SOFTMAX", "BATCH_MATMUL", "TRANSPOSE_CONV"} & set(report.op_types)
        assert {"SOFTMAX", "BATCH_MATMUL"} <= floating and floating & {"SQRT", "RSQRT"}
        computed = _computed(path)
        assert {kind for name in floating for kind in computed[name]} == {"FLOAT32"}
        # Of other integers than int8 with measured ranges, an old runtime makes empty masks, or noise.
        integers = {"INT8"} if path.stem == "int8" else set()
        assert computed["FULLY_CONNECTED"] - {"FLOAT32", "INT32", "INT64"} == integers
        found = _run("tflite", decoder, path, report, prompts[0])
        assert cosine(found, expected) > (0.99999 if path.stem == "fp32" else 0.95)
        assert path.stem == "fp32" or path.stat().st_size < 0.5 * (tmp_path / "fp32.tflite").stat().st_size


@pytest.mark.slow
def test_integers_of_onnx_are_for_layers(real: Any, tmp_path: Path) -> None:
    """Not for products of prompts' labels, nor for the ranking of masks: their constants are no layer's weights."""
    import onnx

    from edgesam_mobile.deploy import onnx as exporter

    _, decoder, _, prompts = real
    path = tmp_path / "small.onnx"
    report = exporter.export(decoder, {path: Plan("int8")}, prompts)[path]
    made = onnx.load(str(path)).graph
    stored = {tensor.name for tensor in made.initializer}
    marks = {n.output[0]: n.input[0] in stored for n in made.node if n.op_type == "DequantizeLinear"}
    products = [n for n in made.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[0] in marks]
    assert sum(marks.get(product.input[1], False) for product in products) == len(layer_names(decoder))
    expected = decoder.module(*prompts[0].values())[0].numpy()
    assert cosine(_run("onnx", decoder, path, report, prompts[0]), expected) > 0.95


def _computed(path: Path) -> dict[str, set[str]]:
    """By operation of a TFLite file, the types of what goes in and comes out, biases and shapes among them."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    kinds = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    model: Any = tfl_flatbuffer_utils.read_model(path)
    found: dict[str, set[str]] = {}
    for subgraph in model.subgraphs:
        for op in subgraph.operators:
            tensors = [subgraph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
            name = names[model.operatorCodes[op.opcodeIndex].builtinCode]
            found.setdefault(name, set()).update(kinds[tensor.type] for tensor in tensors)
    return found


@pytest.fixture(scope="module")
def products() -> Graph:
    """Two linear layers, which integers scaled at each call are for."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 32))

    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers.eval().requires_grad_(False)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.layers(x),)

    ports = (Port("x", (1, 4, 64), "float32", "BNC", ""),), (Port("y", (1, 4, 32), "float32", "BNC", ""),)
    return Graph("decoder", Tuple(), *ports)


@pytest.mark.slow
@leaves_folders
@pytest.mark.parametrize(
    ("name", "precision", "share", "least"),
    [
        ("executorch-xnnpack", "int8-dynamic", 0.45, 0.999),
        ("coreml", "palette8", 0.65, 0.999),
        ("coreml", "palette4-grouped", 0.45, 0.93),  # 16 values of random weights: measured 0.948
    ],
)
def test_files_of_other_precisions_shrink_and_still_compute_nearly_the_same(
    name: str, precision: str, share: float, least: float, real: Any, products: Graph, tmp_path: Path
) -> None:
    form = FORMATS[name]
    graph, sample = (
        (products, {"x": products.examples()[0]}) if precision == "int8-dynamic" else (real[0], real[2][0])
    )
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    plain, small = (tmp_path / f"{p}{form.suffix}" for p in (form.precisions[0], precision))
    reports = exporter.export(graph, {plain: Plan(form.precisions[0]), small: Plan(precision)}, [])
    assert size_of(small) < share * size_of(plain)
    expected = graph.module(*sample.values())[0].numpy()
    near, nearer = (cosine(_run(name, graph, path, reports[path], sample), expected) for path in (small, plain))
    assert least < near < nearer
    gc.collect()  # what coremltools leaves to it would warn in another test


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")  # the quantiser's own
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_layers_of_the_encoder_are_left_out_of_the_proposals_graph_too(
    name: str, tiny_model: Sam, tmp_path: Path
) -> None:
    from edgesam_mobile.deploy.proposals import proposals_graph
    from edgesam_mobile.model.proposals import ProposalHead, Stages

    form = FORMATS[name]
    head = ProposalHead(Stages(tiny_model).widths).eval()
    graph = proposals_graph(tiny_model, head, channels_last=form.channels_last)
    calibration, _ = calibration_set("generated:1", 1)
    plans = {"all": Plan("int8"), "part": Plan("int8", ("features.1", "neck.2"))}
    targets = {tmp_path / f"{label}{form.suffix}": plan for label, plan in plans.items()}
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    reports = exporter.export(graph, targets, graph_inputs(graph, graph, calibration))
    whole, part = (
        sum(n for kind, n in report.op_types.items() if kind in ("QUANTIZE", "QuantizeLinear"))
        for report in reports.values()
    )
    assert whole > part > 0


def _record(graph: Graph):  # type: ignore[no-untyped-def]
    from edgesam_mobile.deploy.worker import describe
    from edgesam_mobile.package.manifest import FileRecord, GraphRecord

    record = FileRecord(path="graph", sha256="0" * 64, bytes=1)
    return GraphRecord(file=record, op_types={"conv": 1}, **describe(graph, {}))
