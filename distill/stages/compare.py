"""The teacher's and the student's mask of a picture side by side, to look at while training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batch import Batch, Prompts, normalise
from distill.decode import Prompted
from distill.stages.base import Stage
from edgesam_mobile.model.sam import MASK_THRESHOLD, Sam

Comparison = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
MOST = 4


@torch.no_grad()
def embed_as_used(stage: Stage, batch: Batch) -> Tensor:
    """The student's embeddings in evaluation mode: a look must not move the averages of its batch norms."""
    training = stage.training
    stage.eval()
    embeddings: Tensor = stage.model.image_encoder(normalise(stage.model, batch))
    stage.train(training)
    return embeddings.float()


@torch.no_grad()
def compare(batch: Batch, teacher: tuple[Sam, Tensor], student: tuple[Sam, Tensor]) -> list[Comparison]:
    """Masks of the first pictures for one prompt each: its first, or its middle in a batch without prompts.

    For a point, where four masks come out, both show the one that the teacher thinks best.

    Args:
        teacher, student: a model to decode with, and embeddings of the whole batch.

    Returns:
        Up to four (picture H x W x 3, teacher's mask H x W, student's mask H x W).
    """
    prompts = _first_of_each(batch)
    if not len(prompts):
        return []
    asked, frame = Prompted.first(prompts), batch.frames.shape[-1]
    theirs, quality = asked.decode(*teacher)
    ours, _ = asked.decode(*student)
    best = quality.argmax(1)
    masks = [_enlarged(logits, best, frame) for logits in (theirs, ours)]
    comparisons = []
    for row, picture in enumerate(prompts.image.tolist()):
        height, width = batch.sizes[picture].tolist()
        photo = batch.frames[picture, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        told, found = (mask[row, :height, :width].cpu().numpy() for mask in masks)
        comparisons.append((photo, told, found))
    return comparisons


def _first_of_each(batch: Batch) -> Prompts:
    """The first prompt of the first pictures that have any; middles where the batch has no prompts at all."""
    device = batch.sizes.device
    if batch.prompts is None:
        image = torch.arange(min(MOST, len(batch)), device=device)
        points = batch.sizes[image].flip(1) / 2
        return Prompts(image, points.new_zeros(len(image), 4), points, points[:, :0], "point")
    rows: dict[int, int] = {}
    for row, picture in enumerate(batch.prompts.image.tolist()):
        rows.setdefault(picture, row)
    first = torch.tensor(list(rows.values())[:MOST], dtype=torch.int64, device=device)
    some = batch.prompts
    return Prompts(some.image[first], some.boxes[first], some.points[first], some.uniform[first], some.kind)


def _enlarged(logits: Tensor, best: Tensor, frame: int) -> Tensor:
    """Mask ``best`` (P) of P x M x H x W logits as bool P x frame x frame."""
    chosen = logits[torch.arange(len(logits), device=logits.device), best][:, None].float()
    enlarged = F.interpolate(chosen, size=(frame, frame), mode="bilinear", align_corners=False)
    return enlarged[:, 0] > MASK_THRESHOLD
