"""Prompts for pictures without annotations: objects that the teacher finds by itself.

As in SAM's "segment everything" (arXiv 2304.02643, section 4 and appendix B): a grid of points, three masks a point,
kept where the teacher is sure and the mask does not depend on the threshold, without duplicates. What is left gives
boxes and points to prompt with; the masks themselves are not kept, since the teacher answers prompts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batch import valid_pixels
from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.data.masks import mask_point
from edgesam_mobile.model.choice import STABILITY_OFFSET
from edgesam_mobile.model.registry import architecture
from edgesam_mobile.model.sam import MASK_THRESHOLD, Sam

# Larger batches fall out of a CPU's cache; masks at the frame's size are 1 MB each.
_DECODED_AT_ONCE = 16
_ENLARGED_AT_ONCE = 8


@dataclass(frozen=True)
class PromptSettings:
    """Which of the teacher's masks become prompts. Shares are of the picture's area, without the padding.

    Attributes:
        points_per_side: of the grid, along the longer side; the shorter has as many as fit at that distance.
        min_predicted_iou: of the teacher's own estimate; not asked of teachers whose head is unusable (EdgeSAM).
        min_stability: IoU of the mask with itself at thresholds +1 and -1.
        min_area: share below which a mask is a speck.
        max_area: share above which it is background.
        max_overlap: IoU with a better mask above which it is the same object.
        max_prompts: the best so many of a picture are kept.
    """

    points_per_side: int = 8
    min_predicted_iou: float = 0.8
    min_stability: float = 0.9
    min_area: float = 0.001
    max_area: float = 0.9
    max_overlap: float = 0.7
    max_prompts: int = 64

    def __post_init__(self) -> None:
        shares = (self.min_predicted_iou, self.min_stability, self.min_area, self.max_area, self.max_overlap)
        if min(self.points_per_side, self.max_prompts) < 1 or not all(0 <= share <= 1 for share in shares):
            raise UsageError(
                f"impossible settings of the teacher's prompts: {self}", hint="counts from 1, shares 0..1"
            )


@torch.no_grad()
def find_prompts(
    model: Sam, embedding: Tensor, size: tuple[int, int], settings: PromptSettings, *, bfloat16: bool = False
) -> tuple[Tensor, Tensor]:
    """Objects that a teacher sees in one picture, best first.

    Args:
        model: the teacher; only its prompt encoder and mask decoder are used.
        embedding: float32 256 x g x g.
        size: (height, width) of the picture inside the frame.
        bfloat16: let the mask decoder compute in it (autocast).

    Returns:
        Boxes float32 N x 4 and points float32 N x 2 in pixels of the frame, on the embedding's device. A point is the
        grid's that found the object where it lies inside the mask, otherwise the one farthest from the mask's edge.
    """
    points = grid_points(size, model.image_size, settings.points_per_side).to(embedding.device)
    with torch.autocast(embedding.device.type, torch.bfloat16, enabled=bfloat16):
        logits, scores, points = _sure_masks(model, embedding, size, points, settings)
    masks = _picture_only(logits, model.image_size, size) > MASK_THRESHOLD
    kept = distinct(masks, scores, settings.max_overlap)[: settings.max_prompts]
    boxes = _boxes(logits[kept], model.image_size, size)
    some = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[some], _points_inside(masks[kept[some]], points[kept[some]], model.image_size)


def grid_points(size: tuple[int, int], image_size: int, per_side: int) -> Tensor:
    """Points float32 K x 2, (x, y), evenly over the picture, at a distance of image_size / per_side or a bit more."""
    height, width = size
    rows, columns = (max(1, int(side * per_side / image_size + 0.5)) for side in size)
    y = (torch.arange(rows) + 0.5) * (height / rows)
    x = (torch.arange(columns) + 0.5) * (width / columns)
    return torch.cartesian_prod(y, x).flip(1)


def stability(logits: Tensor) -> Tensor:
    """:func:`edgesam_mobile.model.choice.stability_score` on tensors: ... x H x W to ..., 0 for empty masks."""
    inner = (logits > MASK_THRESHOLD + STABILITY_OFFSET).sum((-2, -1))
    outer = (logits > MASK_THRESHOLD - STABILITY_OFFSET).sum((-2, -1))
    return inner / outer.clamp(min=1)


def distinct(masks: Tensor, scores: Tensor, max_overlap: float) -> Tensor:
    """Greedy non-maximum suppression by the IoU of masks.

    Args:
        masks: bool K x H x W.
        scores: K.

    Returns:
        Indices of the kept, by falling score: none overlaps a better kept one by more than ``max_overlap``.
    """
    order = scores.argsort(descending=True, stable=True)
    flat = masks[order].flatten(1).float()
    shared, areas = flat @ flat.T, flat.sum(1)
    overlap = shared / (areas[:, None] + areas[None, :] - shared).clamp(min=1)
    beats = (overlap > max_overlap).triu(1)
    # Whether the first i are kept is right after i rounds at the latest; in practice all are after a few.
    keep = torch.ones(len(order), dtype=torch.bool, device=masks.device)
    while True:
        after = ~(beats & keep[:, None]).any(0)
        if bool((after == keep).all()):
            return order[keep]
        keep = after


def _sure_masks(
    model: Sam, embedding: Tensor, size: tuple[int, int], points: Tensor, settings: PromptSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits N x s x s, scores N and points N x 2 of the masks that pass every threshold but the overlap's."""
    kind = architecture(model.architecture)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for chunk in torch.split(points, _DECODED_AT_ONCE):
        labels = torch.ones(len(chunk), 1, dtype=torch.int64, device=chunk.device)
        with torch.autocast(chunk.device.type, enabled=False):  # bfloat16 would round a place by pixels
            sparse, dense = model.prompt_encoder((chunk[:, None], labels), None, None)
            positions = model.prompt_encoder.get_dense_pe()
        # One dense row for all: what the decoder derives from the picture alone, it then computes once.
        logits, iou = model.mask_decoder(embedding[None], positions, sparse, dense[:1], kind.point_masks)
        logits = logits.float()
        shown = _picture_only(logits, model.image_size, size)
        steady = stability(shown)
        cells = logits.shape[-1] ** 2 * size[0] * size[1] / model.image_size**2
        share = (shown > MASK_THRESHOLD).sum((-2, -1)) / cells
        sure = (steady >= settings.min_stability) & (share >= settings.min_area) & (share <= settings.max_area)
        score = steady
        if kind.score == "iou":
            sure, score = sure & (iou >= settings.min_predicted_iou), iou.float()
        found.append((logits[sure], score[sure], chunk[sure.nonzero()[:, 0]]))
    logits, scores, points = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, scores, points


def _picture_only(logits: Tensor, image_size: int, size: tuple[int, int]) -> Tensor:
    """Logits ... x s x s with those of cells beyond the picture far below any threshold."""
    side = logits.shape[-1]
    cells = torch.tensor([[-(-length * side // image_size) for length in size]], device=logits.device)
    return logits.masked_fill(~valid_pixels(cells, side)[0], -1e4)


def _boxes(logits: Tensor, image_size: int, size: tuple[int, int]) -> Tensor:
    """Boxes N x 4 around masks, at the frame's resolution; all zero around a mask that vanishes there."""
    boxes = [logits.new_zeros(0, 4)]
    for some in torch.split(logits, _ENLARGED_AT_ONCE):
        shape = (image_size, image_size)
        enlarged = F.interpolate(some[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]
        masks = enlarged[:, : size[0], : size[1]] > MASK_THRESHOLD
        sides = [_extent(masks.any(1)), _extent(masks.any(2))]
        boxes.append(torch.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], 1).float())
    return torch.cat(boxes)


def _extent(there: Tensor) -> tuple[Tensor, Tensor]:
    """First true and the one past the last true of each row, N x L to N and N; 0 and 0 where none is."""
    first, last = there.int().argmax(1), there.shape[1] - there.flip(1).int().argmax(1)
    some = there.any(1)
    return first * some, last * some


def _points_inside(masks: Tensor, points: Tensor, image_size: int) -> Tensor:
    """Points N x 2 moved into their masks N x s x s where they are not."""
    stride = image_size // masks.shape[-1]
    x, y = (points // stride).long().clamp(0, masks.shape[-1] - 1).unbind(1)
    outside = ~masks[torch.arange(len(masks), device=masks.device), y, x]
    points = points.clone()
    for index in outside.nonzero()[:, 0].tolist():
        inner = points.new_tensor(mask_point(masks[index].cpu().numpy()))
        points[index] = (inner + 0.5) * stride - 0.5
    return points
