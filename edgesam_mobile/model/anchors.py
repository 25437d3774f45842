"""Anchors and boxes: where proposals start from, how boxes are told relative to them, overlap, suppression.

Boxes are (x1, y1, x2, y2) in pixels of the square input frame. Anchors are EfficientDet's (arXiv 1911.09070), as
EdgeSAM's granularity prior has them: on each of five levels three sizes times three shapes about every cell's
centre, the smallest four cells wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""Pixels between the cells of each level."""

_SIZES = tuple(4 * 2 ** (third / 3) for third in range(3))  # in strides
_SHAPES = (1.0, 0.5, 2.0)  # height over width
KINDS = len(_SIZES) * len(_SHAPES)
"""Anchors of one cell."""

_LARGEST_LOG = 4.0  # a box is at most 55 times its anchor; in half precision that is still finite


class Anchors(NamedTuple):
    """Centres and sizes in pixels, in shapes that broadcast against one another."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor


def level_anchors(side: int, stride: int) -> Anchors:
    """The anchors of one level, to broadcast to kinds x rows x columns; ``side`` is that of the frame in pixels."""
    centres = (torch.arange(side // stride) + 0.5) * stride
    sizes = torch.tensor(_SIZES, dtype=torch.float64).repeat_interleave(len(_SHAPES)) * stride
    shapes = torch.tensor(_SHAPES, dtype=torch.float64).repeat(len(_SIZES)).sqrt()
    width, height = (sizes / shapes).float(), (sizes * shapes).float()
    return Anchors(centres.view(1, 1, -1), centres.view(1, -1, 1), width.view(-1, 1, 1), height.view(-1, 1, 1))


def all_anchors(side: int) -> Anchors:
    """Every anchor of a frame, each field of length A, in the order of the head's outputs.

    That order is: level, kind, row, column.
    """
    levels = []
    for stride in STRIDES:
        anchors, cells = level_anchors(side, stride), side // stride
        levels.append([field.expand(KINDS, cells, cells).flatten() for field in anchors])
    return Anchors(*(torch.cat(field) for field in zip(*levels, strict=True)))


def decode(deltas: Sequence[Tensor], anchors: Anchors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The corners x1, y1, x2, y2 of boxes told by how they differ from their anchors.

    Args:
        deltas: four tensors: the centre's shift, (x, y) in widths and heights of the anchor, then the logarithms
            of the width's and the height's ratio to the anchor's.
        anchors: of shapes that broadcast against the deltas.
    """
    dx, dy, dw, dh = deltas
    x, y = anchors.x + dx * anchors.width, anchors.y + dy * anchors.height
    half_width = anchors.width * 0.5 * dw.clamp(max=_LARGEST_LOG).exp()
    half_height = anchors.height * 0.5 * dh.clamp(max=_LARGEST_LOG).exp()
    return x - half_width, y - half_height, x + half_width, y + half_height


def encode(boxes: Tensor, anchors: Anchors) -> Tensor:
    """Boxes N x 4, each relative to the anchor of its row, as deltas N x 4: what :func:`decode` takes back."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    dx, dy = (0.5 * (x1 + x2) - anchors.x) / anchors.width, (0.5 * (y1 + y2) - anchors.y) / anchors.height
    return torch.stack([dx, dy, ((x2 - x1) / anchors.width).log(), ((y2 - y1) / anchors.height).log()], -1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap N x M of boxes N x 4 and M x 4: intersection over union; 0 for boxes without area."""
    overlap = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    shared = overlap.clamp(min=0).prod(-1)
    total = _area(a)[:, None] + _area(b) - shared
    return torch.where(total > 0, shared / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)


def non_maximum_suppression(boxes: Tensor, iou: float) -> Tensor:
    """Which boxes remain when each that overlaps an earlier, remaining one by more than ``iou`` goes.

    Greedy suppression, without its loop over boxes: a guess is corrected until it stays as it is. Box k is right
    after k rounds at the latest, and in practice all are after a handful.

    Args:
        boxes: N x 4, the best first.

    Returns:
        bool N.
    """
    beaten = (box_iou(boxes, boxes) > iou).triu(diagonal=1)
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while not torch.equal(again := ~(beaten & keep[:, None]).any(0), keep):
        keep = again
    return keep


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
