"""Distances between masks and between tensors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
