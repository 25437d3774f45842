"""Scores of masks, and which mask an application should show: the same rule on every runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

STABILITY_OFFSET = 1.0


def stability_score(logits: Floats, offset: float = STABILITY_OFFSET) -> Floats:
    """IoU of each mask with itself when its threshold moves by ``offset`` either way.

    Args:
        logits: ... x H x W mask logits.
        offset: in logits; EdgeSAM uses 1.0.

    Returns:
        ... scores in [0, 1]; 0 for an empty mask, where the published formula divides 0 by 0.
    """
    inner = np.count_nonzero(logits > offset, axis=(-2, -1))
    outer = np.count_nonzero(logits > -offset, axis=(-2, -1))
    score: Floats = (inner / np.maximum(outer, 1)).astype(np.float32)
    return score


def competing(count: int, *, has_box: bool, point_masks: int) -> range:
    """Indices, among ``count`` masks, of those that may be shown for a kind of prompt.

    A box means one object, so token 0 answers it. Points are ambiguous, so the masks trained for ambiguity
    compete: the last three (``point_masks`` 3, SAM) or all four (4, EdgeSAM).
    """
    return range(1) if has_box else range(count - point_masks, count)


def best_mask(scores: Floats, *, has_box: bool, point_masks: int) -> int:
    """Index, among the four masks, of the one to show: the first best-scored of those that compete.

    Args:
        scores: 4 scores, of tokens 0 to 3.
    """
    rivals = competing(len(scores), has_box=has_box, point_masks=point_masks)
    return rivals.start + int(np.argmax(scores[rivals.start : rivals.stop]))
