"""The losses against loops over cells, and padding that must not count."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_stage import inside
from torch import Tensor

from distill.losses import (
    feature_cosine,
    feature_loss,
    mask_agreement,
    mask_losses,
    picture_weights,
    valid_cells,
)
from edgesam_mobile.evaluate.metrics import mask_iou

FRAME, STEP = 64, 16
SIZES = torch.tensor([[64, 41], [20, 64]])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(9, FRAME), st.integers(9, FRAME), st.sampled_from([4, 16]))
def test_a_cell_is_valid_where_the_area_shrunk_bilinearly_is_above_one_half(h: int, w: int, cells: int) -> None:
    area = torch.zeros(1, 1, FRAME, FRAME)
    area[..., :h, :w] = 1
    published = F.interpolate(area, size=(cells, cells), mode="bilinear", align_corners=False)[0] > 0.5
    assert torch.equal(valid_cells(torch.tensor([[h, w]]), FRAME, cells), published)


@given(st.integers(1, FRAME), st.integers(1, FRAME))
def test_even_the_thinnest_picture_has_valid_cells(h: int, w: int) -> None:
    assert valid_cells(torch.tensor([[h, w]]), FRAME, 4)[0, 0, 0]


def test_feature_loss_is_the_mean_over_channels_valid_cells_and_pictures() -> None:
    student, teacher = random(2, 5, 4, 4), random(2, 5, 4, 4, seed=1)
    per_picture = []
    for n, size in enumerate(SIZES):
        errors = []
        for y, x in inside(size, FRAME, STEP):
            errors.append(sum((student[n, c, y, x] - teacher[n, c, y, x]).item() ** 2 for c in range(5)) / 5)
        per_picture.append(sum(errors) / len(errors))
    loss = feature_loss(student, teacher, valid_cells(SIZES, FRAME, 4))
    assert loss.item() == pytest.approx(sum(per_picture) / 2, rel=1e-5)


def test_cosine_is_one_for_equal_directions_and_averages_valid_cells() -> None:
    student, valid = random(2, 5, 4, 4), valid_cells(SIZES, FRAME, 4)
    teacher = torch.where(valid[:, None], 3 * student, -student)
    assert feature_cosine(student, teacher, valid).item() == pytest.approx(1)
    teacher[0] = -teacher[0]
    assert feature_cosine(student, teacher, valid).item() == pytest.approx(0, abs=1e-6)


def test_padding_changes_no_loss_and_gets_no_gradient() -> None:
    valid = valid_cells(SIZES, FRAME, 4)
    clean, dirty = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    dirty = torch.where(valid[:, None], clean, 100 * dirty).requires_grad_()
    wanted = random(2, 3, 4, 4, seed=2)
    for loss in (feature_loss, lambda a, b, v: torch.stack(mask_losses(a, b > 0, v)).sum()):
        assert torch.equal(loss(dirty, wanted, valid), loss(clean, wanted, valid))
        (gradient,) = torch.autograd.grad(loss(dirty, wanted, valid), dirty)
        assert not (gradient * ~valid[:, None]).any()
        assert gradient[valid[:, None].expand_as(gradient)].all()


@pytest.mark.parametrize("channels", [1, 4])
def test_mask_losses_equal_loops_over_pixels(channels: int) -> None:
    logits, target = 4 * random(2, channels, 4, 4), random(2, channels, 4, 4, seed=1) > 0.3
    bce, dice = mask_losses(logits, target, valid_cells(SIZES, FRAME, 4))
    for n, size in enumerate(SIZES):
        pixels = inside(size, FRAME, STEP)
        entropy, dices = 0.0, []
        for c in range(channels):
            shared = found = wanted = 0.0
            for y, x in pixels:
                p, t = 1 / (1 + math.exp(-logits[n, c, y, x].item())), float(target[n, c, y, x])
                entropy -= t * math.log(p) + (1 - t) * math.log(1 - p)
                shared, found, wanted = shared + p * t, found + p, wanted + t
            dices.append(1 - (2 * shared + 1) / (found + wanted + 1))
        assert bce[n].item() == pytest.approx(entropy / (len(pixels) * channels), rel=1e-5)
        assert dice[n].item() == pytest.approx(sum(dices) / channels, rel=1e-5)


@given(st.floats(20, 1e4))
def test_mask_losses_of_a_sure_mask(logit: float) -> None:
    target, valid = random(2, 1, 4, 4) > 0, valid_cells(SIZES, FRAME, 4)
    right = torch.where(target, logit, -logit)
    bce, dice = mask_losses(right, target, valid)
    assert bce.max() < 1e-6 and dice.abs().max() < 1e-6
    bce, dice = mask_losses(-right, target, valid)
    assert torch.allclose(bce, torch.full((2,), logit)) and dice.min() > 0.5


def test_losses_are_computed_in_single_precision_even_under_autocast() -> None:
    logits, valid = random(2, 4, 4, 4).bfloat16(), valid_cells(SIZES, FRAME, 4)
    with torch.autocast("cpu", torch.bfloat16):
        bce, dice = mask_losses(logits, logits > 0, valid)
        features = feature_loss(logits, logits.float() + 0.001, valid)
    assert bce.dtype == dice.dtype == features.dtype == torch.float32
    assert features.item() == pytest.approx(1e-6, rel=1e-2)  # bfloat16 would have rounded the 0.001 away


def test_mask_agreement_is_the_iou_inside_the_picture() -> None:
    a, b, valid = random(2, 3, 4, 4) > 0, random(2, 3, 4, 4, seed=1) > 0, valid_cells(SIZES, FRAME, 4)
    a[1, 2] = b[1, 2] = ~valid[1]
    found = mask_agreement(a, b, valid)
    for n in range(2):
        for c in range(3):
            assert found[n, c] == pytest.approx(mask_iou((a[n, c] & valid[n]).numpy(), (b[n, c] & valid[n]).numpy()))
    assert found[1, 2] == 1  # both are empty inside the picture


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_every_picture_weighs_the_same_whatever_it_has_of_prompts(counts: list[int]) -> None:
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    weights = picture_weights(image, len(counts))
    for picture, count in enumerate(counts):
        assert weights[image == picture].sum().item() == pytest.approx(1 / len(counts) if count else 0)
