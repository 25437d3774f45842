"""Mask prompts to an artefact: what comes with a point or a box, and is of the right shape and finite, or nothing."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unexported import SIDE, Unexported, unexported

from edgesam_mobile.deploy import coreml
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.worker import describe
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model import SamPredictor, load_model
from edgesam_mobile.package.manifest import FileRecord, GraphRecord
from edgesam_mobile.runtime.predictor import ArtifactPredictor
from edgesam_mobile.runtime.session import SessionOptions, open_session

PICTURE = np.random.default_rng(0).integers(0, 256, (192, SIDE, 3), np.uint8)
MASK = np.random.default_rng(1).normal(scale=5, size=(1, SIDE // 4, SIDE // 4)).astype(np.float32)
POINT: dict[str, Any] = {"point_coords": [[90, 70]], "point_labels": [1]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Unexported:
    return unexported(tmp_path_factory.mktemp("tiny"), prompts=1, mask_input=True)


@pytest.fixture
def artefact(tiny: Unexported, monkeypatch: pytest.MonkeyPatch) -> ArtifactPredictor:
    tiny.opened(monkeypatch)
    predictor = ArtifactPredictor(tiny.package, "onnx-fp32")
    predictor.set_image(PICTURE)
    return predictor


@pytest.fixture(scope="module")
def pytorch(tiny: Unexported) -> SamPredictor:
    predictor = SamPredictor(load_model(tiny.weights, upsample="bilinear", image_size=SIDE))
    predictor.set_image(PICTURE)
    return predictor


@pytest.mark.parametrize("prompt", [POINT, {"box": [20, 20, 200, 150]}], ids=["point", "box"])
def test_with_a_point_or_a_box_it_is_answered_as_pytorch_does(
    prompt: dict[str, Any], artefact: ArtifactPredictor, pytorch: SamPredictor
) -> None:
    _, _, expected = pytorch.predict(**prompt, mask_input=MASK, num_multimask_outputs=4)
    found = artefact.decode(artefact.prompt(**prompt, mask_input=MASK)).masks
    np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = artefact.decode(artefact.prompt(**prompt)).masks
    assert np.abs(found - plain).max() > 0.01, "the mask counts"


def test_alone_it_is_refused_since_the_graph_would_answer_otherwise(
    artefact: ArtifactPredictor, pytorch: SamPredictor
) -> None:
    with pytest.raises(UsageError, match="a mask alone") as caught:
        artefact.prompt(mask_input=MASK)
    assert caught.value.hint == "give a point or a box"
    inputs = artefact.prompt(**POINT, mask_input=MASK)
    inputs["point_labels"][:] = -1
    _, _, expected = pytorch.predict(mask_input=MASK, num_multimask_outputs=4)
    assert np.abs(artefact.decode(inputs).masks - expected).max() > 0.01


def spoilt(value: float) -> np.ndarray:
    mask = MASK.astype(np.float64)
    mask[0, 3, 5] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (spoilt(np.nan), "not every number is finite"),
        (spoilt(-np.inf), "not every number is finite"),
        (spoilt(1e39), "finite in single precision"),
        (MASK[0], r"1 x 64 x 64 logits, not \(64, 64\)"),
        (MASK[:, :32], r"1 x 64 x 64 logits, not \(1, 32, 64\)"),
        ("mask.png", "not an array of numbers"),
    ],
    ids=["nan", "infinite", "too large", "no axis", "half", "text"],
)
def test_what_is_mis_shaped_or_not_finite_is_refused_as_pytorch_s_predictor_does(
    mask: Any, says: str, artefact: ArtifactPredictor, pytorch: SamPredictor
) -> None:
    for predict in (artefact.prompt, pytorch.predict):
        with pytest.raises(UsageError, match=says):
            predict(**POINT, mask_input=mask)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # coremltools' own
@pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning"
)  # coremltools leaves that to the collector
def test_core_ml_keeps_what_stands_for_no_mask(tiny: Unexported, tmp_path: Path) -> None:
    """Its converter turned the sign of that embedding when it was subtracted from a convolution's answer."""
    graph = tiny.graphs["decoder"]
    plans = {tmp_path / f"{precision}.mlpackage": Plan(precision) for precision in ("fp32", "fp16")}
    reports = coreml.export(graph, plans, [])
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(graph.inputs[0].shape, generator=generator)
    coords, labels = torch.full((1, 4, 2), 90.0), torch.tensor([[1.0, -1.0, -1.0, -1.0]])
    for switch in (0.0, 1.0):
        inputs = [embedding, coords, labels, torch.from_numpy(MASK)[None], torch.tensor([switch])]
        with torch.no_grad():
            expected = graph.module(*inputs)[0].numpy()
        for path, plan in plans.items():
            file = FileRecord(path=path.name, sha256="0" * 64, bytes=1)
            described = describe(graph, reports[path].dtypes)
            record = GraphRecord(file=file, op_types=reports[path].op_types, **described)
            session = open_session(path, record, "coreml", SessionOptions(1, "exact"))
            named = {port.name: value.numpy() for port, value in zip(graph.inputs, inputs, strict=True)}
            atol = 1e-4 if plan.precision == "fp32" else 5e-3
            np.testing.assert_allclose(session.run(named)["masks"], expected, atol=atol)
    gc.collect()
