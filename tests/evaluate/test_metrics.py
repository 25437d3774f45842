"""Distances between masks and tensors: by hand, and what holds for all."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgesam_mobile.evaluate.metrics import cosine, mask_iou, max_abs_error

Mask = npt.NDArray[np.bool_]
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
mask_pairs = shapes.flatmap(lambda s: st.tuples(hnp.arrays(np.bool_, s), hnp.arrays(np.bool_, s)))
numbers = st.floats(-1e6, 1e6, width=32)
tensor_pairs = shapes.flatmap(
    lambda s: st.tuples(hnp.arrays(np.float32, s, elements=numbers), hnp.arrays(np.float32, s, elements=numbers))
)


def mask(text: str) -> Mask:
    """Rows of ``#`` and ``.``, separated by blanks."""
    return np.array([[pixel == "#" for pixel in row] for row in text.split()])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("## ..", "## ..", 1),
        ("## ..", ".. ##", 0),
        ("## ##", "#. #.", 1 / 2),
        ("##. ...", ".## ...", 1 / 3),
        ("... ...", "... ...", 1),
        ("... ...", "..# ...", 0),
    ],
)
def test_iou_by_hand(a: str, b: str, expected: float) -> None:
    assert mask_iou(mask(a), mask(b)) == pytest.approx(expected)


@given(mask_pairs)
def test_iou_is_symmetric_within_0_and_1_and_1_only_for_equal_masks(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    value = mask_iou(a, b)
    assert value == mask_iou(b, a)
    assert 0 <= value <= 1
    assert (value == 1) == np.array_equal(a, b)


def test_the_largest_error_by_hand() -> None:
    a = np.array([[1.0, -2.0], [0.5, 4.0]], dtype=np.float32)
    assert max_abs_error(a, a) == 0
    assert max_abs_error(a, a + np.array([[0, 0.25], [-3, 1]], dtype=np.float32)) == 3
    # Half precision is not subtracted in half precision, where 60000 - (-60000) overflows.
    wide = np.array([60000.0], dtype=np.float16)
    assert max_abs_error(wide, -wide) == 2 * float(wide[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_largest_error_never_hides_what_is_not_finite(bad: float) -> None:
    a, b = np.zeros((2, 2)), np.array([[0.0, bad], [1.0, 0.0]])
    assert not math.isfinite(max_abs_error(a, b))
    assert not math.isfinite(max_abs_error(b, a))


@given(tensor_pairs)
def test_the_largest_error_bounds_every_error(pair: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> None:
    a, b = pair
    worst = max_abs_error(a, b)
    assert worst == max_abs_error(b, a)
    assert all(abs(float(x) - float(y)) <= worst for x, y in zip(a.flat, b.flat, strict=True))


def test_cosine_by_hand() -> None:
    x, y = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert cosine(x, y) == 0
    assert cosine(x, 3 * x) == pytest.approx(1)
    assert cosine(x, -x) == pytest.approx(-1)
    assert cosine(x, x + y / 2) == pytest.approx(math.sqrt(0.5))
    assert cosine(x, np.zeros_like(x)) == 0


@given(tensor_pairs)
def test_cosine_does_not_depend_on_lengths(pair: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> None:
    a, b = (np.rint(x / 1000) for x in pair)
    value = cosine(a, b)
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert cosine(a * 4, b) == pytest.approx(value)
