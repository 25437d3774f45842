"""Segmentations and pictures are decoded as pycocotools and Pillow do, and what is damaged is refused."""

from __future__ import annotations

import io
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
from data_sets import jpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.evaluate.data.masks import decode_picture, decode_segmentation, encode_mask, mask_point, needs
from edgesam_mobile.evaluate.data.samples import CorruptSample

Mask = npt.NDArray[np.bool_]
masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def runs(mask: Mask) -> list[int]:
    """Uncompressed counts, down the columns, of zeros first."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel is not value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@given(masks)
def test_rle_of_any_mask_comes_back(mask: Mask) -> None:
    size = mask.shape
    reference = coco.encode(np.asfortranarray(mask, np.uint8))
    assert encode_mask(mask) == {"size": list(size), "counts": reference["counts"].decode()}
    for counts in (reference["counts"], reference["counts"].decode(), runs(mask)):
        assert np.array_equal(decode_segmentation({"size": list(size), "counts": counts}, size), mask)


def test_long_runs_come_back() -> None:
    mask = np.zeros((1500, 2250), np.bool_)
    mask[200:900, 31:2000] = True
    mask[1400, 7] = True
    assert np.array_equal(decode_segmentation(encode_mask(mask), mask.shape), mask)


@given(st.lists(st.lists(st.floats(0, 40), min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0), min_size=1))
def test_polygons_are_drawn_as_pycocotools_draws_them(polygons: list[list[float]]) -> None:
    drawn = coco.decode(coco.merge(coco.frPyObjects(polygons, 40, 40)))
    assert np.array_equal(decode_segmentation(polygons, (40, 40)), drawn.astype(bool))


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ({"size": [4, 5], "counts": [20]}, "RLE of 5 x 4 pixels on a picture of 4 x 4"),
        ({"size": [4, 4], "counts": [3, 4]}, "do not fill"),
        ({"size": [4, 4], "counts": [20, -4]}, "do not fill"),
        ({"size": [4, 4], "counts": [2**62, 2**62, 2**62, 2**62, 16]}, "do not fill"),
        ({"size": [4, 4], "counts": ["a"]}, "malformed RLE"),
        ({"size": [4, 4], "counts": "~~~"}, "malformed RLE"),
        ({"size": [4, 4], "counts": "P"}, "malformed RLE"),
        ({"size": [4, 4], "counts": "é"}, "malformed RLE"),
        ({"size": [4, 4], "counts": ""}, "do not fill"),
        ({"size": [4], "counts": "0"}, "malformed RLE"),
        ({"size": [4, 4]}, "malformed RLE"),
        ({}, "malformed RLE"),
        ([], "no polygon"),
        ([[0, 0, 4, 4]], "three corners"),
        ([[0, 0, 4, 4, 0]], "three corners"),
        ([[0, 0, 4, 4, 0, float("nan")]], "beyond the picture"),
        ([[0, 0, 4, 4, 0, 9]], "beyond the picture of 4 x 4"),
        (["abcdef"], "no list of numbers"),
        ("polygon", "not str"),
        (None, "not NoneType"),
    ],
)
def test_segmentations_that_do_not_fit_are_refused(segmentation: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        decode_segmentation(segmentation, (4, 4))


@given(st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=30))
def test_any_counts_are_a_mask_of_the_picture_or_refused(counts: str) -> None:
    try:
        assert decode_segmentation({"size": [6, 7], "counts": counts}, (6, 7)).shape == (6, 7)
    except ValueError as error:
        assert "RLE" in str(error)


@given(masks.filter(lambda mask: bool(mask.any() and not mask.all())))
def test_the_point_of_a_mask_is_the_one_deepest_inside(mask: Mask) -> None:
    background = np.argwhere(~mask)
    depth = np.array([[np.hypot(*(background - place).T).min() for place in row] for row in np.indices(mask.shape).T])
    x, y = mask_point(mask)
    assert mask[int(y), int(x)]
    assert depth.T[int(y), int(x)] == pytest.approx(depth.max())


def test_points_of_masks_without_a_contour() -> None:
    assert mask_point(np.ones((5, 9), np.bool_)) == (4, 2)
    with pytest.raises(ValueError, match="no point"):
        mask_point(np.zeros((5, 9), np.bool_))


def png(mode: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (6, 4)).save(stream, format="PNG", **options)
    return stream.getvalue()


def test_pictures_are_rgb_as_stored() -> None:
    for mode in ("L", "P", "1", "RGBA", "RGB"):
        assert decode_picture("x", png(mode)).shape == (4, 6, 3)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.new("RGB", (6, 4)).save(turned, format="JPEG", exif=exif)
    assert decode_picture("x", turned.getvalue()).shape == (4, 6, 3)


@pytest.mark.parametrize(
    "damaged", [b"", b"no picture", jpeg()[:500], png("I;16")], ids=("empty", "text", "cut", "16")
)
def test_damaged_pictures_are_named(damaged: bytes) -> None:
    with pytest.raises(CorruptSample, match="some name: ") as caught:
        decode_picture("some name", damaged)
    assert caught.value.name == "some name"


def test_what_is_not_installed_is_told_with_the_line_that_installs_it() -> None:
    with pytest.raises(EnvironmentMissing, match="no_such_thing is not installed") as caught:
        needs("no_such_thing.part")
    assert caught.value.hint == 'pip install "edgesam-mobile[eval]"'
