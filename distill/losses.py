"""The losses of stages 1 and 2, and which cells of the padded frame count; everything in single precision.

Facts: EdgeSAM, arXiv 2312.06660, section 3, and what is known of its training (features: squared error; masks:
binary cross-entropy and Dice with equal weights, on the teacher's masks cut at logit 0).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IN_CACHE = 1 << 19  # logits whose loss is computed together, on a processor: larger pieces wait for memory


def valid_cells(sizes: Tensor, frame: int, cells: int) -> Tensor:
    """Which cells of a coarse grid over the frame belong to the picture.

    The published rule shrinks the picture's area bilinearly to the grid and keeps what stays above one half.
    That is: the pixel just right of and below the cell's middle belongs to the picture. Of a picture thinner
    than half a cell the first row or column counts all the same, so that no picture is without cells.

    Args:
        sizes: B x 2, (height, width) of each picture inside its frame.
        frame: side of the frame in pixels, an even multiple of ``cells``.
        cells: side of the grid.

    Returns:
        bool B x cells x cells.
    """
    step = frame // cells
    middles = torch.arange(cells, device=sizes.device) * step + step // 2
    rows, columns = (middles < sizes.clamp(min=step // 2 + 1)[:, :, None]).unbind(1)
    return rows[:, :, None] & columns[:, None, :]


def feature_loss(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Squared error of embeddings: mean over channels, over each picture's valid cells, and over pictures.

    Args:
        student, teacher: B x C x G x G.
        valid: bool B x G x G, at least one cell a picture.
    """
    error = (student.float() - teacher.float()).square().mean(1)
    return masked_mean(error, valid).mean()


@torch.no_grad()
def feature_cosine(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Cosine between the two embeddings of a cell, averaged as in :func:`feature_loss`; 1 is equal direction."""
    return masked_mean(F.cosine_similarity(student.float(), teacher.float(), dim=1), valid).mean()


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """N x H x W to N: each map's mean where ``valid`` (bool, N x H x W)."""
    return (values * valid).sum((1, 2)) / valid.sum((1, 2))


def mask_losses(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice of each prompt's masks; padding has no part in either.

    Args:
        logits: P x M x H x W.
        target: bool P x M x H x W.
        valid: bool P x H x W, at least one pixel a prompt.

    Returns:
        Cross-entropy P, a mean over the valid pixels of all M masks together, and Dice loss P,
        1 - (2 |A ∩ B| + 1) / (|A| + |B| + 1) of each mask, averaged over the M.
    """
    size = max(1, _IN_CACHE // logits[0].numel()) if logits.device.type == "cpu" else len(logits)
    chunks = zip(*(torch.split(each, size) for each in (logits, target, valid)), strict=True)
    parts = [_mask_losses(*chunk) for chunk in chunks]
    cross, dice = zip(*parts, strict=True)
    return torch.cat(cross), torch.cat(dice)


def _mask_losses(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    # Booleans as numbers first: products of mixed types are slow on CPUs, as are sums of products that go to memory.
    logits, wanted, inside = logits.float(), target.float(), valid[:, None].float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, weight=inside, reduction="none")
    cross = entropy.sum((1, 2, 3)) / (valid.sum((1, 2)) * logits.shape[1])
    found, wanted = (logits.sigmoid() * inside).flatten(2), (wanted * inside).flatten(2)
    shared = torch.linalg.vecdot(found, wanted)
    dice = 1 - (2 * shared + 1) / (found.sum(2) + wanted.sum(2) + 1)
    return cross, dice.mean(1)


@torch.no_grad()
def mask_agreement(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Intersection over union of masks bool P x M x H x W inside the picture: P x M; 1 where both are empty."""
    inside = valid[:, None]
    union = ((a | b) & inside).sum((2, 3))
    return torch.where(union > 0, (a & b & inside).sum((2, 3)) / union.clamp(min=1), 1.0)


def picture_weights(image: Tensor, pictures: int) -> Tensor:
    """What each of P prompts weighs so that every picture weighs 1 / ``pictures``, whatever it has of prompts.

    The sum of weighted losses is then a mean over pictures, which splits over processes and accumulated steps
    without changing; a plain mean over prompts, as published, would not where their numbers differ.

    Args:
        image: int64 P, the picture of each prompt.
    """
    share = torch.bincount(image, minlength=pictures)
    return 1.0 / (share[image] * pictures)


def no_loss(parameters: Iterable[tuple[str, nn.Parameter]]) -> Tensor:
    """0, with a gradient of zeros for every parameter: a process with nothing to learn from must not leave others
    waiting for its gradients."""
    return torch.stack([0.0 * parameter.sum() for _, parameter in parameters]).sum()
