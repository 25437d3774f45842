"""Distances between masks and between tensors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.evaluate.data.masks import needs

BOUNDARY_RATIO = 0.02  # of the picture's diagonal, as published
# Lowest mask IoU against PyTorch that an artefact may show on any prompt. Single precision differs by rounding
# alone; half-precision weights move a boundary by a pixel here and there.
LEAST_IOU = {"fp32": 0.99, "fp16": 0.95}


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape, in [0, 1]; two empty masks agree fully (1)."""
    union = int(np.count_nonzero(a | b))
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def max_abs_error(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Largest absolute difference; NaN where either holds a NaN."""
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Cosine of the angle between two tensors taken as vectors; 1 is equal direction, 0 if one is all zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm else 0.0


def boundary(mask: NDArray[np.bool_], ratio: float = BOUNDARY_RATIO) -> NDArray[np.bool_]:
    """The pixels of a mask within some distance of its contour; the picture's border counts as contour.

    Source: Boundary IoU (arXiv 2103.16562), whose distance is that of d erosions by 3 x 3 pixels.

    Args:
        mask: bool ``H x W``.
        ratio: d in shares of the picture's diagonal; d is at least one pixel.
    """
    ndimage = needs("scipy.ndimage")
    width = max(1, round(ratio * math.hypot(*mask.shape)))
    edge = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return edge
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inner = mask[part].view(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis=axis, mode="constant", cval=0)
    edge[part] = mask[part] & (inner == 0)
    return edge


def boundary_iou(a: NDArray[np.bool_], b: NDArray[np.bool_], ratio: float = BOUNDARY_RATIO) -> float:
    """IoU of the boundaries of two masks of one shape (:func:`boundary`), in [0, 1]."""
    return mask_iou(boundary(a, ratio), boundary(b, ratio))
