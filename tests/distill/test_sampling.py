"""Correction points: uniform over the wrong pixels, and the same as a loop over prompts finds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.losses import valid_cells
from distill.sampling import LEAST_ERRORS, NOTHING_WRONG, correction_points, second_number

SIDE, FRAME = 16, 64


def random_masks(prompts: int, seed: int, share: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher's masks, the student's with some pixels turned over, and pictures of various sizes."""
    dice = torch.Generator().manual_seed(seed)
    teacher = torch.rand(prompts, SIDE, SIDE, generator=dice) > 0.5
    shares = share * torch.rand(prompts, 1, 1, generator=dice)
    student = teacher ^ (torch.rand(prompts, SIDE, SIDE, generator=dice) < shares)
    sizes = torch.randint(1, FRAME + 1, (prompts, 2), generator=dice)
    return student, teacher, valid_cells(sizes, FRAME, SIDE)


def loop(student: Tensor, teacher: Tensor, valid: Tensor, uniform: Tensor) -> list[tuple[float, float, int]]:
    """One prompt after the other, one pixel after the other."""
    found = []
    for n in range(len(student)):
        wrong = [
            (y, x)
            for y in range(SIDE)
            for x in range(SIDE)
            if valid[n, y, x] and bool(student[n, y, x]) != bool(teacher[n, y, x])
        ]
        if len(wrong) < 10:
            found.append((0.0, 0.0, -2))
        else:
            y, x = wrong[int(uniform[n].item() * len(wrong))]
            found.append((x * 4 + 1.5, y * 4 + 1.5, int(teacher[n, y, x])))
    return found


def rows(points: Tensor, labels: Tensor) -> list[tuple[float, float, int]]:
    return [(x, y, int(label)) for (x, y), label in zip(points[:, 0].tolist(), labels[:, 0].tolist(), strict=True)]


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_points_are_those_that_a_loop_draws_from_the_same_numbers(seed: int, prompts: int) -> None:
    student, teacher, valid = random_masks(prompts, seed)
    uniform = torch.rand(prompts, generator=torch.Generator().manual_seed(seed))
    points, labels = correction_points(student, teacher, valid, uniform, FRAME)
    assert points.shape == (prompts, 1, 2) and labels.shape == (prompts, 1)
    assert points.dtype == labels.dtype == torch.float32
    assert rows(points, labels) == loop(student, teacher, valid, uniform)


@given(st.integers(0, 10_000))
def test_numbers_spread_evenly_hit_every_wrong_pixel_equally_often(seed: int) -> None:
    student, teacher, valid = random_masks(1, seed, share=1.0)
    valid[:] = valid | valid_cells(torch.tensor([[40, 24]]), FRAME, SIDE)
    count = int(((student ^ teacher) & valid).sum())
    if count < LEAST_ERRORS:
        return
    each = 3
    uniform = (torch.arange(each * count) + 0.5) / (each * count)
    many = (mask.expand(len(uniform), -1, -1) for mask in (student, teacher, valid))
    hits = Counter(rows(*correction_points(*many, uniform, FRAME)))
    assert len(hits) == count and set(hits.values()) == {each}


@given(st.integers(LEAST_ERRORS, SIDE * SIDE))
def test_the_largest_number_takes_the_last_wrong_pixel_and_zero_the_first(count: int) -> None:
    teacher = (torch.arange(SIDE * SIDE) < count).reshape(1, SIDE, SIDE).expand(2, -1, -1)
    everywhere = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    uniform = torch.tensor([0.0, 1 - 2**-24])
    points, _ = correction_points(torch.zeros_like(teacher), teacher, everywhere, uniform, FRAME)
    last = count - 1
    assert points[:, 0].tolist() == [[1.5, 1.5], [last % SIDE * 4 + 1.5, last // SIDE * 4 + 1.5]]


@pytest.mark.parametrize("wrong", [0, LEAST_ERRORS - 1, LEAST_ERRORS])
@pytest.mark.parametrize("missed", [True, False])
def test_labels_tell_missed_from_overrun_and_too_little_from_enough(wrong: int, missed: bool) -> None:
    mask = (torch.arange(SIDE * SIDE) < wrong).reshape(1, SIDE, SIDE)
    pair = (torch.zeros_like(mask), mask) if missed else (mask, torch.zeros_like(mask))
    points, labels = correction_points(*pair, torch.ones_like(mask), torch.tensor([0.999]), FRAME)
    if wrong < LEAST_ERRORS:
        assert rows(points, labels) == [(0, 0, NOTHING_WRONG)]
    else:
        assert labels.item() == missed


def test_pixels_wrong_in_the_padding_do_not_count() -> None:
    teacher = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    valid = valid_cells(torch.tensor([[12, 12]]), FRAME, SIDE)  # 3 x 3 pixels of the small grid
    _, labels = correction_points(~teacher, teacher, valid, torch.tensor([0.5]), FRAME)
    assert labels.item() == NOTHING_WRONG


def test_the_second_number_is_uniform_whatever_the_first_is_near() -> None:
    low_bits = torch.arange(4096) / 2**24
    for first in (0, 1, 2047, 4095):
        second = second_number(first / 4096 + low_bits)
        assert torch.equal(second.sort().values, torch.arange(4096) / 4096)
