"""Compressed Core ML programs of the real MobileSAM, at 256 pixels: run, and placed by operation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.calibration import Calibration, Sample, graph_inputs
from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.model.load import load_model
from edgesam_mobile.runtime.predictor import ArtifactPredictor

pytestmark = pytest.mark.slow

SIDE = 256
# The most that encoder and decoder may be off: root mean square, as a share of that of PyTorch's answer.
OFF = {
    "coreml-fp16": (0.006, 0.006),
    "coreml-int8-weights": (0.08, 0.06),
    "coreml-int8": (0.2, 0.2),
    "executorch-coreml-fp16": (0.006, 0.01),
    "executorch-coreml-int8-weights": (0.08, 0.06),
    "executorch-coreml-int8": (0.2, 0.2),
}

# Without integers and with them.
OPERATIONS = {"encoder": (532, 774), "decoder": (306, 462)}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    found, _ = calibration_set(None, 1)
    return replace(found, views=found.views[:2])


@pytest.fixture(scope="module")
def package(mobile_sam_path: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All precisions of a format come out of one export; integers leave the layers out that suffer most."""
    assert mobile_sam_path.is_file()
    folder = tmp_path_factory.mktemp("small") / "mobile-sam"
    plan = Plan("int8", FORMATS["executorch-xnnpack"].sensitive["mobile-sam"])
    options = BuildOptions(
        "mobile-sam",
        targets=("ios",),
        precisions=("fp16", "int8-weights", "int8"),
        plans={("coreml", "encoder"): plan, ("executorch-coreml", "encoder"): plan},
        calibration=calibration,
        input_size=SIDE,
    )
    build(options, folder)
    return folder


@pytest.fixture(scope="module")
def asked(mobile_sam_path: Path, calibration: Calibration) -> list[tuple[Graph, list[Sample]]]:
    model = load_model(mobile_sam_path, image_size=SIDE)
    encoder, decoder = encoder_graph(model), decoder_graph(model)
    return [
        (encoder, graph_inputs(encoder, encoder, calibration)),
        (decoder, graph_inputs(decoder, encoder, calibration)[:6]),
    ]


@pytest.mark.parametrize("artefact", OFF)
def test_it_answers_nearly_as_pytorch_does(
    artefact: str, package: Path, asked: list[tuple[Graph, list[Sample]]]
) -> None:
    predictor = ArtifactPredictor(package, artefact)
    found = []
    for (graph, samples), session in zip(asked, (predictor.encoder, predictor.decoder), strict=True):
        name = graph.outputs[0].name
        answers = [session.run({k: v.numpy() for k, v in sample.items()})[name] for sample in samples]
        expected = [graph.module(*sample.values())[0].numpy() for sample in samples]
        pairs = zip(answers, expected, strict=True)
        found.append(max(float(np.sqrt(np.square(a - b).mean() / np.square(b).mean())) for a, b in pairs))
    assert all(0 < off < most for off, most in zip(found, OFF[artefact], strict=True)), found


def test_fallbacks_are_as_many_as_in_half_precision(package: Path) -> None:
    """Integers add operations, all of them the Neural Engine's; Core ML's prompts are single, ExecuTorch's not."""
    graphs = json.loads(call("placement", package, "--json").stdout)["graphs"]
    assert {g["artefact"] for g in graphs} == set(OFF)
    for graph in graphs:
        name, role = graph["artefact"], graph["graph"]
        single = 31 if (name.startswith("coreml"), role) == (True, "decoder") else 0
        assert graph["counts"]["fallbacks"] == single, name
        assert graph["operations"] == OPERATIONS[role][name.endswith("-int8")], name
