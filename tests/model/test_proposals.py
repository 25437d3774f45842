"""The granularity prior: anchors, boxes, the head on an encoder's stages, and the box that a point gets."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.model.anchors import (
    KINDS,
    STRIDES,
    Anchors,
    all_anchors,
    box_iou,
    decode,
    encode,
    level_anchors,
    non_maximum_suppression,
)
from edgesam_mobile.model.layers import fuse_convolutions
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.prior import PriorPredictor, PriorRule, Proposals, prior_boxes, select_proposals
from edgesam_mobile.model.proposals import ProposalHead, Stages, load_proposals, read_proposals, write_proposals
from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.weights.checkpoint import Metadata, read_checkpoint, write_checkpoint

SIDE = 256
METADATA = Metadata(architecture="edge-sam-tiny", licence="Apache-2.0", trained=False)


@pytest.fixture(scope="module")
def tiny() -> Sam:
    """A tiny EdgeSAM with untrained weights at 256 pixels; no test changes it."""
    return untrained_model("edge-sam-tiny", image_size=SIDE)


@pytest.fixture(scope="module")
def head(tiny: Sam) -> ProposalHead:
    """An untrained head for it, whose batch norms do something; no test changes it."""
    torch.manual_seed(0)
    head = ProposalHead(Stages(tiny).widths)
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.normal_(norm.running_mean, std=0.1)
    for tower in (head.objectness, head.box):
        nn.init.normal_(tower.answer[1].weight, std=0.3)
        nn.init.zeros_(tower.answer[1].bias)
    return head.eval()


def noise(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def random_boxes(count: int, seed: int, side: float = 100.0) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * side
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def naive_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0


def naive_prior(proposals: Proposals, point: list[float], rule: PriorRule) -> list[float] | None:
    """The rule again, in loops."""
    candidates = []
    for box, score in zip(proposals.boxes.tolist(), proposals.scores.tolist(), strict=True):
        if rule.merge == "published" and not (box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]):
            continue
        away = math.hypot(point[0] - (box[0] + box[2]) / 2, point[1] - (box[1] + box[3]) / 2)
        candidates.append((away, score, box))
    nearest = sorted(candidates, key=lambda c: c[0])[: rule.neighbours]
    if not nearest:
        return None
    if rule.merge == "published":
        return max(nearest, key=lambda c: c[1])[2]
    total = sum(score for _, score, _ in nearest)
    return [sum(score * box[k] for _, score, box in nearest) / total for k in range(4)]


# --- anchors and boxes


@pytest.mark.parametrize("side", [256, 512])
def test_anchors_are_ordered_by_level_kind_row_and_column(side: int) -> None:
    expected = []
    for stride in STRIDES:
        for size in (4 * stride * 2 ** (k / 3) for k in range(3)):
            for shape in (1.0, 0.5, 2.0):
                for row in range(side // stride):
                    for column in range(side // stride):
                        width, height = size / math.sqrt(shape), size * math.sqrt(shape)
                        expected.append([(column + 0.5) * stride, (row + 0.5) * stride, width, height])
    found = torch.stack(all_anchors(side), 1)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert len(found) == KINDS * sum((side // stride) ** 2 for stride in STRIDES)


@given(seed=st.integers(0, 1000))
def test_deltas_take_anchors_to_boxes_and_back(seed: int) -> None:
    boxes = random_boxes(20, seed) * torch.tensor([1, 1, 1, 1]) + torch.tensor([0, 0, 1, 1])
    anchors = Anchors(*(t[:: len(t) // 20][:20] for t in all_anchors(SIDE)))
    again = torch.stack(decode(encode(boxes, anchors).unbind(-1), anchors), -1)
    torch.testing.assert_close(again, boxes, atol=1e-3, rtol=1e-4)


def test_no_delta_makes_a_box_that_half_precision_cannot_hold() -> None:
    huge = [torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1e6), torch.tensor(1e6)]
    corners = decode(huge, level_anchors(1024, 128))
    assert all(corner.half().isfinite().all() for corner in corners)


@given(seed=st.integers(0, 1000), n=st.integers(0, 6), m=st.integers(0, 6))
def test_overlap_is_that_of_a_naive_version(seed: int, n: int, m: int) -> None:
    a, b = random_boxes(n, seed), random_boxes(m, seed + 1)
    expected = [[naive_iou(x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(box_iou(a, b), torch.tensor(expected).reshape(n, m), atol=1e-5, rtol=0)


def test_boxes_without_area_overlap_nothing() -> None:
    point, box = torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([[0.0, 0, 10, 10]])
    assert box_iou(point, point).item() == box_iou(point, box).item() == 0.0


@given(seed=st.integers(0, 1000), count=st.integers(0, 30), limit=st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_suppression_is_greedy(seed: int, count: int, limit: float) -> None:
    boxes = random_boxes(count, seed)
    kept: list[int] = []
    for k in range(count):
        if all(box_iou(boxes[j : j + 1], boxes[k : k + 1]).item() <= limit for j in kept):
            kept.append(k)
    assert non_maximum_suppression(boxes, limit).nonzero().flatten().tolist() == kept


# --- the encoder's stages and the head


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
def test_stages_are_those_that_the_encoder_goes_through(tiny: Sam, fused: bool) -> None:
    encoder = tiny.image_encoder.fuse() if fused else tiny.image_encoder
    stages, x = Stages(tiny), noise()
    features = stages.features(encoder, x)
    assert [f.shape[1:] for f in features] == [
        (width, SIDE // stride, SIDE // stride) for width, stride in zip(stages.widths, STRIDES[:3], strict=True)
    ]
    assert torch.equal(stages.embedding(encoder, features), encoder(x))


def test_the_head_fits_the_published_encoder_and_costs_what_its_docstring_says() -> None:
    with torch.device("meta"):
        model = build_model("edge-sam")
        stages = Stages(model)
        head = ProposalHead(stages.widths)
        features = [torch.empty(1, w, 1024 // s, 1024 // s) for w, s in zip(stages.widths, STRIDES[:3], strict=True)]
    assert stages.widths == (96, 192, 384)
    assert stages.ends == (8, 24, 27) and stages.ends[1] == model.image_encoder.fine_end
    macs = []

    def count(conv: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        macs.append(output.numel() * conv.weight[0].numel())

    for conv in (m for m in head.modules() if isinstance(m, nn.Conv2d)):
        conv.register_forward_hook(count)
    head.eval()(features)
    assert sum(p.numel() for p in head.parameters()) == 194_598
    assert round(sum(macs) / 1e9, 2) == 1.26


@torch.no_grad()
def test_the_head_answers_in_the_order_of_the_anchors(head: ProposalHead, tiny: Sam) -> None:
    features = Stages(tiny).features(tiny.image_encoder, noise(2))
    logits, deltas = head(features)
    by_level = head.maps(features)
    assert logits.shape == (2, len(all_anchors(SIDE).x)) and deltas.shape == (2, 4, logits.shape[1])
    start = 0
    for stride, scores, shifts in zip(STRIDES, *by_level, strict=True):
        cells = SIDE // stride
        for kind, row, column in ((0, 0, 0), (4, 1, 0), (8, cells - 1, cells - 1)):
            place = start + (kind * cells + row) * cells + column
            assert torch.equal(logits[:, place], scores[:, kind, row, column])
            assert torch.equal(deltas[:, :, place], shifts[:, kind::KINDS, row, column])
        start += KINDS * cells * cells


@torch.no_grad()
def test_an_untrained_head_proposes_next_to_nothing(tiny: Sam) -> None:
    torch.manual_seed(0)
    logits, _ = ProposalHead(Stages(tiny).widths)(Stages(tiny).features(tiny.image_encoder, noise(2)))
    assert 0.003 < logits.sigmoid().mean() < 0.03


@torch.no_grad()
def test_folding_changes_nothing(head: ProposalHead, tiny: Sam) -> None:
    features = [f.double() for f in Stages(tiny).features(tiny.image_encoder, noise())]
    exact = copy.deepcopy(head).double()
    fused = fuse_convolutions(exact)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    for found, expected in zip(fused(features), exact(features), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        assert expected.std() > 0.01


def test_models_without_such_stages_are_refused() -> None:
    with torch.device("meta"), pytest.raises(UsageError, match="mobile-sam has no stages"):
        Stages(build_model("mobile-sam"))


# --- checkpoints


@pytest.mark.parametrize("with_model", [False, True])
def test_a_head_is_kept_in_a_file_of_its_own_or_with_its_model(
    tiny: Sam, head: ProposalHead, tmp_path: Path, with_model: bool
) -> None:
    path = write_proposals(tmp_path / "head.safetensors", head, METADATA)
    if with_model:
        state = read_checkpoint(path).state | tiny.state_dict()
        path = write_checkpoint(tmp_path / "both.safetensors", state, METADATA)
    again = read_proposals(path, tiny)
    assert not again.training
    assert all(torch.equal(again.state_dict()[key], value) for key, value in head.state_dict().items())


def test_what_is_no_head_or_another_s_is_refused(tiny: Sam, head: ProposalHead, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors", tiny.state_dict(), METADATA)
    with pytest.raises(WeightsError, match="holds no proposal head"):
        read_proposals(path, tiny)
    state = {f"proposals.{key}": value for key, value in head.state_dict().items()}
    first = min(state)
    with pytest.raises(WeightsError, match=rf"{re.escape(first)} missing"):
        load_proposals(copy.deepcopy(head), {k: v for k, v in state.items() if k != first}, source="x")
    with pytest.raises(WeightsError, match=r"proposals\.strange missing, unexpected or mis-shaped"):
        load_proposals(copy.deepcopy(head), {**state, "proposals.strange": state[first]}, source="x")
    other = ProposalHead((96, 192, 384))
    with pytest.raises(WeightsError, match=r"lateral.0.c.weight and \d more missing, unexpected or mis-shaped"):
        load_proposals(other, state, source="x")


# --- the rule


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 12),
    points=st.integers(1, 5),
    neighbours=st.integers(1, 6),
    merge=st.sampled_from(["paper", "published"]),
)
def test_a_point_s_box_is_that_of_a_naive_version(
    seed: int, count: int, points: int, neighbours: int, merge: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator).clamp(min=0.01).sort(descending=True).values
    proposals = Proposals(random_boxes(count, seed), scores)
    places = torch.rand(points, 2, generator=generator) * 100
    rule = PriorRule(merge=merge, neighbours=neighbours)  # type: ignore[arg-type]
    boxes, found = prior_boxes(proposals, places, rule)
    for place, box, has in zip(places.tolist(), boxes, found.tolist(), strict=True):
        expected = naive_prior(proposals, place, rule)
        assert has == (expected is not None)
        torch.testing.assert_close(box, torch.tensor(expected or [0.0] * 4), atol=1e-3, rtol=0)


def test_of_equally_near_proposals_the_more_confident_counts() -> None:
    proposals = Proposals(torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8], [4, 4, 6, 6]]), torch.tensor([0.9, 0.5, 0.4]))
    boxes, _ = prior_boxes(proposals, torch.tensor([[5.0, 5.0]]), PriorRule(neighbours=1))
    assert boxes.tolist() == [[0, 0, 10, 10]]


def test_proposals_that_count_are_confident_and_within_the_picture() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [-5, -5, 200, 200], [60, 0, 70, 10], [5, 5, 5, 9], [1, 1, 9, 9]])
    scores = torch.tensor([0.3, 0.9, 0.95, 0.8, 0.05])
    found = select_proposals(boxes.T, scores, (40, 50), PriorRule())
    assert found.boxes.tolist() == [[0, 0, 50, 40], [0, 0, 10, 10]]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.3]))
    few = select_proposals(boxes.T, scores, (40, 50), PriorRule(limit=2))
    assert few.scores.tolist() == found.scores[:1].tolist()
    near = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    apart = select_proposals(near.T, torch.tensor([0.5, 0.6, 0.4]), (40, 50), PriorRule(overlap=0.5))
    assert apart.boxes.tolist() == near[[1, 2]].tolist()


# --- the predictor


@pytest.fixture
def picture() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_the_predictor_s_boxes_are_in_pixels_of_the_picture(
    tiny: Sam, head: ProposalHead, picture: npt.NDArray[np.uint8]
) -> None:
    predictor = PriorPredictor(tiny, head, rule=PriorRule(neighbours=1))
    predictor.set_image(picture)
    plain = SamPredictor(tiny)
    plain.set_image(picture)
    assert torch.equal(predictor.features, plain.features)
    assert predictor.proposals is not None and len(predictor.proposals.scores) > 10
    points = np.array([[10.0, 20.0], [120.0, 90.0], [60.5, 3.0]])
    boxes, found = predictor.prior_boxes(points)
    assert found.all() and boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [120, 90]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    for point, box in zip(points, boxes, strict=True):
        in_frame = naive_prior(predictor.proposals, (point * [256 / 120, 192 / 90]).tolist(), predictor.rule)
        assert in_frame is not None
        np.testing.assert_allclose(box, np.array(in_frame) * [120 / 256, 90 / 192, 120 / 256, 90 / 192], atol=1e-3)


def test_an_object_is_predicted_from_the_point_and_its_prior_box(
    tiny: Sam, head: ProposalHead, picture: npt.NDArray[np.uint8]
) -> None:
    predictor = PriorPredictor(tiny, head)
    predictor.set_image(picture)
    (box,), _ = predictor.prior_boxes([[40, 30]])
    _, _, expected = predictor.predict([[40, 30]], [1], box=box, num_multimask_outputs=1)
    masks, scores, logits = predictor.predict_object((40, 30))
    assert masks.shape == (1, 90, 120) and scores.shape == (1,)
    np.testing.assert_array_equal(logits, expected)


def test_without_a_confident_proposal_the_point_stands_alone(
    tiny: Sam, head: ProposalHead, picture: npt.NDArray[np.uint8]
) -> None:
    predictor = PriorPredictor(tiny, head, rule=PriorRule(confidence=1.1))
    predictor.set_image(picture)
    _, found = predictor.prior_boxes([[40, 30]])
    assert not found.any()
    _, _, expected = predictor.predict([[40, 30]], [1], num_multimask_outputs=1)
    np.testing.assert_array_equal(predictor.predict_object((40, 30))[2], expected)


def test_a_prior_needs_a_picture_and_a_point_in_it(
    tiny: Sam, head: ProposalHead, picture: npt.NDArray[np.uint8]
) -> None:
    predictor = PriorPredictor(tiny, head)
    with pytest.raises(UsageError, match="no picture is set"):
        predictor.prior_boxes([[1, 1]])
    predictor.set_image(picture)
    with pytest.raises(UsageError, match="outside the picture"):
        predictor.predict_object((121, 1))
    predictor.reset_image()
    with pytest.raises(UsageError, match="no picture is set"):
        predictor.prior_boxes([[1, 1]])
