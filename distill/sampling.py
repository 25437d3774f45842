"""Where the next point of the prompt loop goes: onto a pixel that the student gets wrong."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING_WRONG = -2  # label of a point that stands for "no disagreement": its token is zero
LEAST_ERRORS = 10  # with fewer wrong pixels there is no disagreement worth a point


@torch.no_grad()
def correction_points(
    student: Tensor, teacher: Tensor, valid: Tensor, uniform: Tensor, frame: int
) -> tuple[Tensor, Tensor]:
    """Draw one point a prompt, uniformly from the pixels where the student's mask is not the teacher's.

    All prompts at once. Of a mask's n wrong pixels, numbered by row, that of number floor(n u) is taken: first
    its row, from the rows' counts, then its column, so that only H + W numbers a mask are summed up.

    The published rule has the point at the pixel's corner (coordinates times the step between the grids); here
    it is the pixel's middle, which is where bilinear up-sampling has that pixel's value.

    Args:
        student, teacher: bool P x H x W.
        valid: bool P x H x W, the picture without its padding.
        uniform: P random numbers in [0, 1).
        frame: side in pixels of the input frame, which H x W cover.

    Returns:
        Coordinates P x 1 x 2, (x, y) in pixels of the frame, and labels P x 1, both float32: 1 where the object
        is missed, 0 where it is overrun; (0, 0) and :data:`NOTHING_WRONG` for fewer than 10 wrong pixels.
    """
    wrong = (student ^ teacher) & valid
    by_row = wrong.sum(2).cumsum(1)
    count = by_row[:, -1:]
    number = (uniform.double()[:, None] * count).long()  # in double precision u < 1 keeps it below the count
    # With nothing wrong the search ends one past the last row; that prompt's point is discarded below.
    row = torch.searchsorted(by_row, number, right=True).clamp(max=wrong.shape[1] - 1)
    every = torch.arange(len(wrong), device=wrong.device)
    in_row = wrong[every, row[:, 0]].long().cumsum(1)
    number = number - by_row.gather(1, row) + in_row[:, -1:]
    column = torch.searchsorted(in_row, number, right=True).clamp(max=wrong.shape[2] - 1)
    step = frame / wrong.shape[2]
    middle = (torch.cat([column, row], 1).float() + 0.5) * step - 0.5
    enough = count >= LEAST_ERRORS
    missed = teacher[every, row[:, 0], column[:, 0]].float()[:, None]
    return (middle * enough)[:, None], torch.where(enough, missed, float(NOTHING_WRONG))


def second_number(uniform: Tensor) -> Tensor:
    """Another number in [0, 1) out of each of ``uniform``: the lower 12 of its 24 bits, the upper chose a pixel."""
    return (uniform * 4096.0).frac()
