"""Stage 3: the loss against a naive version, what trains and what does not, and that it learns."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.data.batch import Batch, Prompts
from distill.matching import IGNORED, NEGATIVE, POSITIVE, match
from distill.stages.proposals import ProposalStage
from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.model.anchors import Anchors, all_anchors, box_iou, decode
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.prior import PriorRule, select_proposals
from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model

SIDE = 256


@pytest.fixture(scope="module")
def tiny() -> Sam:
    """A tiny EdgeSAM with untrained weights at 256 pixels; tests copy it."""
    return untrained_model("edge-sam-tiny", image_size=SIDE)


@pytest.fixture
def stage(tiny: Sam) -> ProposalStage:
    torch.manual_seed(0)
    return ProposalStage(copy.deepcopy(tiny))


def batch_of(boxes: list[list[list[float]]], seed: int = 0) -> Batch:
    """Pictures of noise, each 200 x 256 pixels, with the given boxes."""
    frames = torch.zeros(len(boxes), 3, SIDE, SIDE, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    frames[:, :, :200] = torch.randint(0, 256, (len(boxes), 3, 200, SIDE), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[200, SIDE]] * len(boxes))
    flat = torch.tensor([box for own in boxes for box in own]).reshape(-1, 4)
    image = torch.tensor([row for row, own in enumerate(boxes) for _ in own], dtype=torch.int64)
    middle = 0.5 * (flat[:, :2] + flat[:, 2:])
    return Batch(
        [str(k) for k in range(len(boxes))], frames, sizes, Prompts(image, flat, middle, middle[:, :0], "box")
    )


TWO = [[[10.0, 20, 90, 110], [100, 30, 230, 190], [50, 50, 62, 58]], [[5.0, 5, 250, 195]]]


def naive_labels(anchors: list[list[float]], boxes: list[list[float]]) -> tuple[list[int], list[int]]:
    """Assignment in loops."""
    ious = box_iou(torch.tensor(anchors), torch.tensor(boxes).reshape(-1, 4)).tolist()
    labels, index = [], []
    for row in ious:
        best = max(range(len(row)), key=lambda k: row[k]) if row else 0
        highest = row[best] if row else 0.0
        labels.append(POSITIVE if highest >= 0.5 else NEGATIVE if highest < 0.4 else IGNORED)
        index.append(best)
    for k in reversed(range(len(boxes))):
        column = [row[k] for row in ious]
        if max(column) > 0:
            labels[column.index(max(column))], index[column.index(max(column))] = POSITIVE, k
    return labels, index


def naive_loss(logits: Tensor, deltas: Tensor, boxes: list[list[float]]) -> tuple[float, float]:
    """Focal and Huber loss of one picture, an anchor at a time."""
    anchors = torch.stack(all_anchors(SIDE), 1).tolist()
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in anchors]
    labels, index = naive_labels(corners, boxes)
    focal = huber = 0.0
    for k, label in enumerate(labels):
        if label == IGNORED:
            continue
        p = 1 / (1 + math.exp(-logits[k].item()))
        if label == NEGATIVE:
            focal -= 0.75 * p**1.5 * math.log(1 - p)
            continue
        focal -= 0.25 * (1 - p) ** 1.5 * math.log(p)
        (x, y, w, h), (x1, y1, x2, y2) = anchors[k], boxes[index[k]]
        wanted = [((x1 + x2) / 2 - x) / w, ((y1 + y2) / 2 - y) / h, math.log((x2 - x1) / w), math.log((y2 - y1) / h)]
        for found, right in zip(deltas[:, k].tolist(), wanted, strict=True):
            off = abs(found - right)
            huber += 50 / 4 * (0.5 * off**2 if off < 0.1 else 0.1 * (off - 0.05))
    positives = max(1, labels.count(POSITIVE))
    return focal / positives, huber / positives


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), count=st.integers(0, 6))
def test_anchors_are_assigned_as_by_a_naive_version(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(60, 2, 2, generator=generator) * 40
    anchors = torch.cat([anchors.amin(1), anchors.amax(1) + 8], 1)
    boxes = anchors[torch.randint(0, 60, (count,), generator=generator)] + torch.rand(count, 4, generator=generator)
    labels, index = match(anchors, boxes)
    expected, rows = naive_labels(anchors.tolist(), boxes.tolist())
    assert labels.tolist() == expected
    positive = labels == POSITIVE
    assert index[positive].tolist() == torch.tensor(rows)[positive].tolist()
    assert positive.sum() >= min(count, 1)


def test_many_boxes_are_assigned_as_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors = Anchors(*all_anchors(SIDE))
    corners = torch.stack(decode(torch.zeros(4, 1).unbind(), anchors), 1)
    boxes = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) * 100 + torch.tensor([0, 0, 110, 110])
    expected = match(corners, boxes)
    monkeypatch.setattr("distill.matching._BOXES_AT_ONCE", 7)
    assert all(torch.equal(a, b) for a, b in zip(match(corners, boxes), expected, strict=True))


def test_a_box_beside_the_frame_takes_no_anchor() -> None:
    labels, _ = match(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 20, 30, 30]]))
    assert labels.tolist() == [NEGATIVE]


def test_anchors_in_a_crowd_are_no_background() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [6, 0, 16, 10], [4, 0, 14, 10], [50, 0, 60, 10], [2, 2, 8, 8]])
    crowd, box = torch.tensor([[0.0, 0, 10, 40]]), torch.tensor([[2.0, 2, 8, 8]])
    labels, index = match(anchors, box, crowd)
    assert labels.tolist() == [IGNORED, NEGATIVE, IGNORED, NEGATIVE, POSITIVE] and index[4] == 0
    assert match(anchors, box)[0].tolist() == [NEGATIVE] * 4 + [POSITIVE]
    assert match(anchors, box[:0], crowd)[0].tolist() == [IGNORED, NEGATIVE, IGNORED, NEGATIVE, IGNORED]


def test_a_crowd_is_neither_learnt_nor_taught_as_background(stage: ProposalStage) -> None:
    stage.eval()
    batch = batch_of([[[10.0, 20, 90, 110], [100, 30, 230, 190]]])
    alone = stage(batch_of([[[10.0, 20, 90, 110]]]))
    assert batch.prompts is not None
    batch.prompts.crowd = torch.tensor([False, True])
    marked = stage(batch)
    assert marked["positives"] == alone["positives"] and marked["box"] == alone["box"]
    assert marked["objectness"] < alone["objectness"]
    batch.prompts.crowd = torch.tensor([True, False])
    ((_, annotated, _),) = stage.comparison(batch)
    assert annotated[30:190, 100:230].all() and not annotated[20:110, 10:90].any()


def test_the_loss_is_that_of_a_naive_version(stage: ProposalStage) -> None:
    batch = batch_of([*TWO, []])
    for tower in (stage.head.objectness, stage.head.box):
        torch.nn.init.normal_(tower.answer[1].weight, std=0.3)  # type: ignore[arg-type]
    logits, deltas = stage._propose(batch)
    assert logits.std() > 0.3 and deltas.std() > 0.3
    each = [naive_loss(logits[row], deltas[row], boxes) for row, boxes in enumerate([*TWO, []])]
    found = stage(batch)
    assert found["objectness"].item() == pytest.approx(sum(focal for focal, _ in each) / 3, rel=1e-4)
    assert found["box"].item() == pytest.approx(sum(huber for _, huber in each) / 3, rel=1e-4)
    assert found["loss"].item() == pytest.approx(sum(map(sum, each)) / 3, rel=1e-4)
    assert each[2][1] == 0 < each[2][0]
    assert [name for name, value in found.items() if value.requires_grad] == ["loss"]


def test_a_batch_s_loss_is_the_mean_of_its_halves(stage: ProposalStage) -> None:
    """So that it is the same on one process and on many."""
    stage.eval()
    whole = batch_of(TWO)
    halves = []
    for row, boxes in enumerate(TWO):
        half = batch_of([boxes])
        half.frames = whole.frames[row : row + 1]
        halves.append(stage(half)["loss"])
    torch.testing.assert_close(stage(whole)["loss"], torch.stack(halves).mean())


def test_every_parameter_of_the_head_and_no_other_gets_a_gradient(stage: ProposalStage) -> None:
    names = {name for name, _ in stage.trainable()}
    assert names == {f"model.proposals.{name}" for name, _ in stage.head.named_parameters()}
    sizes = [32.0 * 2**level for level in range(5)]  # an anchor of each level; the largest reaches beyond the frame
    boxes = [[128 - size / 2, 128 - size / 2, 128 + size / 2, 128 + size / 2] for size in sizes]
    stage(batch_of([boxes]))["loss"].backward()
    for name, parameter in stage.named_parameters():
        got = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert got == (name in names), name


def test_training_changes_nothing_but_the_head(stage: ProposalStage, tiny: Sam) -> None:
    stage.train()
    before = copy.deepcopy(stage.model.state_dict())
    optimiser = torch.optim.SGD([p for _, p in stage.trainable()], lr=0.01)
    stage(batch_of(TWO))["loss"].backward()
    optimiser.step()
    after = stage.model.state_dict()
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed and all(key.startswith("proposals.") for key in changed)
    assert any("running_mean" in key for key in changed)
    assert after.keys() == tiny.state_dict().keys() | {key for key in after if key.startswith("proposals.")}
    assert not any(m.training for m in stage.model.image_encoder.modules())
    stage.eval()
    assert not any(m.training for m in stage.modules())


@pytest.mark.parametrize("prompts", ["empty", "none"])
def test_pictures_without_boxes_teach_that_nothing_is_there(stage: ProposalStage, prompts: str) -> None:
    batch = batch_of([[], []])
    if prompts == "none":
        batch.prompts = None
    found = stage(batch)
    found["loss"].backward()
    assert found["positives"] == found["box"] == 0 < found["objectness"]
    bias = stage.head.objectness.answer[1].bias
    assert isinstance(bias, Tensor) and bias.grad is not None and (bias.grad > 0).all()  # the step takes it down
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.parameters())


def test_a_box_without_area_counts_as_a_pixel(stage: ProposalStage) -> None:
    found = stage(batch_of([[[40.0, 40, 40, 90]], [[70.0, 70, 70, 70]]]))
    assert found["positives"] == 1 and found["loss"].isfinite()


def test_half_precision_computes_the_loss_in_single(stage: ProposalStage) -> None:
    batch = batch_of(TWO)
    stage.eval()
    exact = stage(batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = stage(batch)["loss"]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.1)


def test_models_without_stages_or_of_another_size_are_refused(tiny: Sam) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match="no stages to propose boxes from"):
        ProposalStage(build_model("mobile-sam"))
    odd = copy.deepcopy(tiny)
    odd.image_size = 320
    with pytest.raises(UsageError, match="a multiple of 128 pixels, not 320"):
        ProposalStage(odd)


def test_comparisons_show_annotated_boxes_and_those_of_the_prior(stage: ProposalStage) -> None:
    batch = batch_of([*TWO, []])
    stage.train()
    shown = stage.comparison(batch)
    assert [picture.shape for picture, _, _ in shown] == [(200, SIDE, 3)] * 3
    (_, annotated, prior), _, (_, nothing, _) = shown
    assert annotated.sum() == 80 * 90 and annotated[20:110, 10:90].all()
    assert not nothing.any() and prior.dtype == bool and not prior.any()  # an untrained head is never confident
    assert stage.head.training
    with torch.no_grad():
        stage.head.objectness.answer[1].bias.fill_(5.0)  # type: ignore[union-attr, operator]
    assert stage.comparison(batch)[0][2].any()
    batch.prompts = None
    assert stage.comparison(batch) == []


def recall(stage: ProposalStage, batch: Batch, count: int = 10) -> float:
    """Share of the boxes that one of a picture's best ``count`` proposals overlaps by half."""
    assert batch.prompts is not None
    stage.eval()
    with torch.no_grad():
        logits, deltas = stage._propose(batch)
    anchors, rule = all_anchors(SIDE), PriorRule(confidence=0.0, overlap=0.7)
    hits = []
    for row in range(len(batch)):
        boxes = torch.stack(decode(deltas[row].unbind(), anchors))
        size = (int(batch.sizes[row, 0]), int(batch.sizes[row, 1]))
        found = select_proposals(boxes, logits[row].sigmoid(), size, rule).boxes[:count]
        hits.append(box_iou(batch.prompts.boxes[batch.prompts.image == row], found).amax(1) >= 0.5)
    stage.train()
    return torch.cat(hits).float().mean().item()


def generated(count: int) -> Batch:
    """Generated pictures in frames of 256 pixels, with every box."""
    source, fit = open_source(f"generated:{count}"), ResizeLongestSide(SIDE)
    frames, sizes, boxes, images, names = [], [], [], [], []
    for row in range(count):
        sample = source[row]
        picture = sample.picture()
        resized = fit.apply_image(picture)
        frames.append(fit.pad_image(resized, (0, 0, 0)))
        sizes.append(resized.shape[:2])
        names.append(sample.name)
        own = fit.apply_boxes([instance.box for instance in sample.instances], picture.shape[:2])
        boxes.append(own)
        images += [row] * len(own)
    flat = torch.from_numpy(np.concatenate(boxes)).float()
    prompts = Prompts(torch.tensor(images), flat, 0.5 * (flat[:, :2] + flat[:, 2:]), flat[:, :0], "box")
    return Batch(names, torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), torch.tensor(sizes), prompts)


@pytest.mark.slow
def test_the_head_learns_the_boxes_of_a_few_pictures(stage: ProposalStage) -> None:
    batch = generated(8)
    before = recall(stage, batch)
    optimiser = torch.optim.AdamW([p for _, p in stage.trainable()], lr=4e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = stage(batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    after = recall(stage, batch)
    assert losses[-1] < 0.3 * losses[0]
    assert before < 0.3 and after > 0.8
