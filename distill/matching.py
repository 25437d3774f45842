"""Which anchors stand for which boxes: assignment by overlap, as focal-loss detectors do it (arXiv 1708.02002)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesam_mobile.model.anchors import box_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
_OBJECT, _BACKGROUND = 0.5, 0.4  # overlap from which an anchor stands for a box, and below which for none
_CROWDED = 0.5  # share of its own area in a crowd from which an anchor is not taken for background
_BOXES_AT_ONCE = 64  # bounds memory: a picture of SA-1B has hundreds of boxes, a frame 200,000 anchors


def match(anchors: Tensor, boxes: Tensor, crowds: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Assign anchors to the boxes of one picture.

    An anchor stands for the box that it overlaps most if their IoU is 0.5 or more, for background if that is below
    0.4, and counts for neither in between. So that no box goes without, each also takes the anchor that overlaps it
    most, whatever their IoU (two boxes with the same best anchor: the earlier box has it). An anchor that would be
    background, but lies in a crowd by half of its area or more, counts for neither: there are objects without boxes.

    Args:
        anchors: A x 4, corners in pixels of the frame.
        boxes: N x 4, likewise; N may be 0.
        crowds: M x 4, likewise, of groups; None for none.

    Returns:
        int64 A: :data:`POSITIVE`, :data:`NEGATIVE` or :data:`IGNORED`; int64 A: the row of ``boxes`` that each
        positive anchor stands for (meaningless elsewhere).
    """
    overlap = anchors.new_zeros(len(anchors))
    index = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    claimed, best = [], []
    for start in range(0, len(boxes), _BOXES_AT_ONCE):
        iou = box_iou(anchors, boxes[start : start + _BOXES_AT_ONCE])
        largest = iou.max(1)
        index = torch.where(largest.values > overlap, largest.indices + start, index)
        overlap = torch.maximum(overlap, largest.values)
        of_boxes = iou.max(0)
        best.append(of_boxes.values)
        claimed.append(of_boxes.indices)
    labels = torch.full_like(index, IGNORED)
    labels[overlap >= _OBJECT] = POSITIVE
    labels[(overlap < _BACKGROUND) & ~_crowded(anchors, crowds)] = NEGATIVE
    if claimed:
        touches = torch.cat(best) > 0  # a box beside the frame has no best anchor
        taken, rows = torch.cat(claimed)[touches], torch.arange(len(boxes), device=boxes.device)[touches]
        labels[taken] = POSITIVE
        index = index.scatter_reduce(0, taken, rows, "amin", include_self=False)
    return labels, index


def _crowded(anchors: Tensor, crowds: Tensor | None) -> Tensor:
    """Which anchors lie in one of the crowds by half of their area or more: bool A."""
    found = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    for crowd in crowds if crowds is not None else ():
        shared = torch.minimum(anchors[:, 2:], crowd[2:]) - torch.maximum(anchors[:, :2], crowd[:2])
        found |= shared.clamp(min=0).prod(1) >= _CROWDED * (anchors[:, 2:] - anchors[:, :2]).prod(1)
    return found
