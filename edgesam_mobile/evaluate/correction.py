"""Where a person would click next: one point in the error of a mask, drawn as EdgeSAM's evaluation draws it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.model.geometry import ResizeLongestSide

GRID = 256  # cells along the model's frame, whatever the input size
FEWEST = 10  # cells in error; with fewer there is no point


def correction_point(
    logits: NDArray[np.float32],
    truth: NDArray[np.bool_],
    transform: ResizeLongestSide,
    random: np.random.Generator,
) -> tuple[tuple[float, float], int] | None:
    """Choose one cell uniformly among the false positives and false negatives (arXiv 2312.06660, section 3).

    Args:
        logits: s x s, of the mask so far; they cover the model's whole frame.
        truth: bool ``H x W``, at the picture's size.
        transform: between the picture and the frame.
        random: gives one number, whatever the masks are.

    Returns:
        (x, y) in pixels of the picture, the cell's top left (the published code adds no half cell), and label 1 on
        the object, 0 beside it; None where fewer than ten cells of 256 x 256 are wrong.
    """
    height, width = truth.shape
    share = random.random()
    cell = transform.target_length / GRID
    new_h, new_w = transform.get_preprocess_shape(height, width)
    # Cells whose centre lies on the picture, and the pixel and logit nearest to each centre.
    rows, columns = (np.arange(round(side / cell)) + 0.5 for side in (new_h, new_w))
    rows, columns = rows[rows * cell < new_h], columns[columns * cell < new_w]
    step = logits.shape[-1] / GRID
    predicted = logits[np.ix_((rows * step).astype(int), (columns * step).astype(int))] > 0
    y, x = (rows * cell * height / new_h).astype(int), (columns * cell * width / new_w).astype(int)
    target = truth[np.ix_(y, x)]
    wrong = np.argwhere(predicted != target)
    if len(wrong) < FEWEST:
        return None
    row, column = wrong[int(share * len(wrong))]
    place = transform.invert_coords(np.array([column * cell, row * cell]), (height, width))
    return (float(place[0]), float(place[1])), int(target[row, column])
