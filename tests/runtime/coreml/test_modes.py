"""Inputs, open sides, and the two kinds of arithmetic."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_damage import change, function, operation
from mil_programs import interpret, save

from edgesam_mobile.deploy.calibration import Sample, graph_inputs
from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.package.manifest import read_manifest
from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.coreml.types import ProgramError


def test_inputs_that_do_not_fit_are_refused(package: Path) -> None:
    interpreter = Interpreter(read_program(package))
    with pytest.raises(ProgramError, match="the input x0 is missing"):
        interpreter.run({})
    for wrong in (torch.zeros(1, 3, 8, 9), torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int32)):
        with pytest.raises(ProgramError, match=r"the input x0 is torch\.\w+\[.*\], the program declares fp32"):
            interpreter.run({"x0": wrong})


def test_sides_that_are_open_are_known_when_the_program_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "model.mlpackage", lambda mb, x: mb.relu(x=x), np.ones((2, 3), np.float32))

    def opened(model: Any) -> None:
        for kind in (function(model).inputs[0].type, operation(model, "relu").outputs[0].type):
            kind.tensorType.dimensions[0].unknown.variadic = False
        for port in (*model.description.input, *model.description.output):
            del port.type.multiArrayType.shape[:]

    interpreter = Interpreter(read_program(change(path, opened)))
    for rows in (1, 5):
        (answer,) = interpreter.run({"x0": -torch.ones(rows, 3)}).values()
        assert answer.tolist() == [[0, 0, 0]] * rows
    with pytest.raises(ProgramError, match="more than 1 GiB"):
        interpreter.run({"x0": torch.ones(1, 3).expand(1 << 28, 3)})


def halves(mb: Any, x: Any) -> Any:
    """x / 3 and x * x in half precision, and x * x in single precision."""
    half = mb.cast(x=x, dtype="fp16")
    third = mb.cast(x=mb.real_div(x=half, y=np.float16(3)), dtype="fp32")
    return third, mb.cast(x=mb.mul(x=half, y=half), dtype="fp32"), mb.mul(x=x, y=x)


def test_half_precision_is_rounded_as_on_a_device_or_not_at_all() -> None:
    x = np.array([1, 10], np.float32)
    exact, device = interpret(halves, x), interpret(halves, x, mode="device-like")
    np.testing.assert_array_equal(exact[0], x / np.float32(3))
    np.testing.assert_array_equal(device[0], (x.astype(np.float16) / np.float16(3)).astype(np.float32))
    assert not np.array_equal(exact[0], device[0])
    for answers in (exact, device):
        np.testing.assert_array_equal(answers[1], x * x)
        np.testing.assert_array_equal(answers[2], x * x)


def test_half_precision_overflows_as_on_a_device_or_not_at_all() -> None:
    x = np.array([70000, 300], np.float32)
    exact, device = interpret(halves, x), interpret(halves, x, mode="device-like")
    assert np.isfinite(exact).all()
    np.testing.assert_array_equal(exact[1], x * x)
    np.testing.assert_array_equal(device[0], [np.inf, 100])
    np.testing.assert_array_equal(device[1], [np.inf, np.inf])
    np.testing.assert_array_equal(device[2], x * x)


def test_what_is_given_in_half_precision_is_rounded_as_on_a_device_or_not_at_all(tmp_path: Path) -> None:
    path = save(tmp_path / "model.mlpackage", lambda mb, x: mb.identity(x=x), np.ones(2, np.float16))
    given = {"x0": torch.tensor([1 / 3, 70000])}
    (exact,) = Interpreter(read_program(path)).run(given).values()
    assert torch.equal(exact, given["x0"])

    def cast(mb: Any, x: Any) -> Any:
        return mb.cast(x=x, dtype="fp32")

    path = save(tmp_path / "cast.mlpackage", cast, np.ones(2, np.float16))
    (device,) = Interpreter(read_program(path), mode="device-like").run(given).values()
    assert torch.equal(device, given["x0"].half().float())


def assert_near(interpreter: Interpreter, graph: Graph, samples: Iterable[Sample]) -> None:
    """Every output within 1e-4 of the largest number in PyTorch's."""
    for sample in samples:
        with torch.inference_mode():
            found, answers = interpreter.run(sample), graph.module(*sample.values())
        for port, expected in zip(graph.outputs, answers, strict=True):
            assert (found[port.name] - expected).abs().max() <= 1e-4 * expected.abs().max(), port.name


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning"
)  # coremltools leaves that to the collector
def test_exact_arithmetic_is_pytorch_s_on_both_graphs_of_the_smallest_student(tmp_path: Path) -> None:
    from edgesam_mobile.deploy import coreml

    model = untrained_model("edge-sam-tiny", upsample="bilinear", image_size=256)
    encoder, decoder = encoder_graph(model), decoder_graph(model, score="iou")  # stability is 0 of such masks
    calibration, _ = calibration_set("generated:1", 1)
    for graph in (encoder, decoder):
        path = tmp_path / f"{graph.name}.mlpackage"
        coreml.export(graph, {path: Plan("fp32")}, [])
        assert_near(Interpreter(read_program(path)), graph, graph_inputs(graph, encoder, calibration))
    gc.collect()  # what coremltools leaves to it would warn in another test


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile-sam", "edge-sam"])
def test_exact_arithmetic_is_pytorch_s_on_the_whole_programs(name: str, request: pytest.FixtureRequest) -> None:
    """At 1024 pixels: of the real MobileSAM, and of the untrained EdgeSAM."""
    package: Path = request.getfixturevalue(f"{name.replace('-', '_')}_package")
    weights = request.getfixturevalue("mobile_sam_path" if name == "mobile-sam" else "standin_file")
    model = load_model(weights, upsample=read_manifest(package).upsample)
    encoder = encoder_graph(model)
    calibration, _ = calibration_set(None, 1)
    one = replace(calibration, views=(replace(calibration.views[0], prompts=calibration.views[0].prompts[:6]),))
    artefact = read_manifest(package).artifact("coreml-fp32")
    for graph in (encoder, decoder_graph(model)):
        program = read_program(package / artefact.graphs()[graph.name].file.path)
        assert_near(Interpreter(program), graph, graph_inputs(graph, encoder, one))
