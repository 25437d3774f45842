"""The frame's geometry: sizes, prompts there and back, and masks as segment-anything's chain gives them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.geometry import ResizeLongestSide

SIDES = st.integers(1, 5000)
SIZES = st.tuples(SIDES, SIDES)
TRANSFORM = ResizeLongestSide()


@given(size=SIZES)
def test_longest_side_fills_the_frame(size: tuple[int, int]) -> None:
    new = TRANSFORM.get_preprocess_shape(*size)
    assert max(new) == 1024 and min(new) >= 1
    exact = min(size) * 1024 / max(size)
    assert abs(min(new) - exact) <= 0.5 + 1e-9 or (min(new) == 1 and exact < 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 451), (681, 1024)), ((1, 5000), (1, 1024)), ((5000, 1), (1024, 1)), ((1, 1), (1024, 1024))],
)
def test_known_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert TRANSFORM.get_preprocess_shape(*size) == expected


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_pictures_without_pixels_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        TRANSFORM.get_preprocess_shape(*size)


@given(size=SIZES, share=st.tuples(st.floats(0, 1), st.floats(0, 1)), target=st.sampled_from([512, 1024]))
def test_points_there_and_back(size: tuple[int, int], share: tuple[float, float], target: int) -> None:
    transform = ResizeLongestSide(target)
    height, width = size
    point = np.array([[share[0] * width, share[1] * height]])
    before = point.copy()
    inside = transform.apply_coords(point, size)
    new_h, new_w = transform.get_preprocess_shape(*size)
    assert (inside >= 0).all() and (inside <= np.array([new_w, new_h]) * (1 + 1e-12)).all()
    np.testing.assert_allclose(transform.invert_coords(inside, size), point, rtol=1e-6, atol=1e-12)
    assert np.array_equal(point, before)


@given(size=SIZES)
def test_corners_meet_and_boxes_are_pairs_of_points(size: tuple[int, int]) -> None:
    height, width = size
    new_h, new_w = TRANSFORM.get_preprocess_shape(*size)
    box = TRANSFORM.apply_boxes([[0, 0, width, height]], size)
    np.testing.assert_allclose(box, [[0, 0, new_w, new_h]], rtol=1e-12)
    pair = TRANSFORM.apply_coords([[0, 0], [width, height]], size)
    assert np.array_equal(box.reshape(2, 2), pair)


def test_float32_stays_and_integers_become_float64() -> None:
    assert TRANSFORM.apply_coords(np.ones((2, 3, 2), np.float32), (30, 40)).dtype == np.float32
    assert TRANSFORM.apply_coords([[1, 2]], (30, 40)).dtype == np.float64


@pytest.mark.parametrize("size", [(30, 47), (1400, 1100), (1, 9), (2100, 1)])
def test_apply_image_is_pillows_antialiased_bilinear(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = TRANSFORM.apply_image(image)
    new_h, new_w = TRANSFORM.get_preprocess_shape(*size)
    expected = Image.fromarray(image).resize((new_w, new_h), resample=Image.Resampling.BILINEAR)
    assert resized.dtype == np.uint8 and np.array_equal(resized, np.array(expected))


def test_apply_image_agrees_with_torch_antialiased_bilinear() -> None:
    # Another implementation of the same filter; it rounds once, Pillow after each axis.
    import torch
    import torch.nn.functional as F

    image = np.random.default_rng(0).integers(0, 256, (1500, 1100, 3), dtype=np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    size = TRANSFORM.get_preprocess_shape(1500, 1100)
    expected = F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
    difference = TRANSFORM.apply_image(image) - expected[0].permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1.01


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_apply_image_refuses_other_kinds(image: np.ndarray) -> None:
    with pytest.raises(UsageError):
        TRANSFORM.apply_image(image)


def test_pad_image_keeps_dtype_and_rounds_integers() -> None:
    transform = ResizeLongestSide(8)
    mean = (123.675, 116.28, 103.53)
    small = np.full((3, 8, 3), 7, dtype=np.uint8)
    padded = transform.pad_image(small, mean)
    assert padded.shape == (8, 8, 3) and padded.dtype == np.uint8
    assert (padded[:3] == 7).all() and (padded[3:] == [124, 116, 104]).all()
    floats = transform.pad_image(small.astype(np.float32), mean)
    assert floats.dtype == np.float32 and (floats[3:] == np.array(mean, np.float32)).all()
    with pytest.raises(UsageError):
        transform.pad_image(np.zeros((9, 8, 3), np.uint8), mean)


def chain(low: np.ndarray, target: int, size: tuple[int, int], *, double: bool) -> np.ndarray:
    """segment-anything's post-processing, step by step."""
    import torch
    import torch.nn.functional as F

    logits = torch.from_numpy(low)
    logits = logits.double() if double else logits
    new_h, new_w = ResizeLongestSide(target).get_preprocess_shape(*size)
    frame = F.interpolate(logits, (target, target), mode="bilinear", align_corners=False)
    picture = F.interpolate(frame[..., :new_h, :new_w], size, mode="bilinear", align_corners=False)
    return picture.numpy()


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    low=st.sampled_from([(256, 256), (64, 64), (16, 40), (1, 1)]),
    target=st.sampled_from([256, 1000, 1024]),
    seed=st.integers(0, 99),
)
def test_upscale_masks_is_segment_anythings_chain(
    size: tuple[int, int], low: tuple[int, int], target: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal((2, 3, *low)).astype(np.float32)
    upscaled = ResizeLongestSide(target).upscale_masks(logits, size)
    assert upscaled.dtype == np.float32 and upscaled.shape == (2, 3, *size)
    np.testing.assert_allclose(upscaled, chain(logits, target, size, double=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (427, 640), (1200, 1600), (3, 2500)])
def test_upscale_masks_in_single_precision(size: tuple[int, int]) -> None:
    # torch computes sample places in float32, so its own chain is off by more than ours.
    logits = 10 * np.random.default_rng(5).standard_normal((1, 4, 256, 256)).astype(np.float32)
    upscaled = TRANSFORM.upscale_masks(logits, size)
    single, double = chain(logits, 1024, size, double=False), chain(logits, 1024, size, double=True)
    assert np.abs(upscaled - double).max() <= 1e-5 * np.abs(logits).max()
    assert np.abs(upscaled - single).max() <= 2e-3
    assert np.mean((upscaled > 0) != (single > 0)) <= 1e-5


def test_upscale_masks_of_one_mask_and_constant_logits() -> None:
    upscaled = TRANSFORM.upscale_masks(np.full((256, 256), -3.5, np.float32), (480, 640))
    assert upscaled.shape == (480, 640)
    np.testing.assert_allclose(upscaled, -3.5, rtol=1e-6)


def test_check_points_gives_one_form() -> None:
    coords, labels = TRANSFORM.check_points([(0, 0), (40, 30)], [1, 0], (30, 40))
    assert coords.dtype == np.float64 and coords.tolist() == [[0, 0], [40, 30]]
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("coords", "labels", "says"),
    [
        ([(5, 5)], [2], "2 is no point label"),
        ([(5, 5)], [-1], "label"),
        ([(5, 5)], [math.nan], "finite"),
        ([(5, math.inf)], [1], "finite"),
        ([(5, 5)], [1, 1], "1 points"),
        ([(5, 5)], 1, "shape"),
        ([5, 5], [1], "shape"),
        ([(5, 5, 5)], [1], "shape"),
        ([], [], "shape"),
        (np.zeros((0, 2)), [], "shape"),
        ([(5, 5), (5,)], [1, 1], "not an array"),
        ([("left", "top")], [1], "not an array"),
        ([(5, 5), (40.001, 5)], [1, 1], "40.001, 5"),
        ([(5, 31)], [1], "outside"),
        ([(-0.5, 5)], [1], "outside"),
    ],
)
def test_check_points_refuses(coords: object, labels: object, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        TRANSFORM.check_points(coords, labels, (30, 40))
    assert says in caught.value.message and "\n" not in caught.value.message
    if "outside" in caught.value.message:
        assert caught.value.hint is not None
        assert "40 wide" in caught.value.hint and "30 high" in caught.value.hint and "(x, y)" in caught.value.hint


def test_check_box_gives_one_form() -> None:
    box = TRANSFORM.check_box((0, 0, 40, 30), (30, 40))
    assert box.dtype == np.float64 and box.tolist() == [0, 0, 40, 30]


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((5, 5, 5, 9), "empty"),
        ((5, 9, 8, 9), "empty"),
        ((9, 5, 5, 9), "empty"),
        ((0, 0, 41, 30), "outside"),
        ((0, 0, 30, 40), "outside"),
        ((-1, 0, 30, 30), "outside"),
        ((0, 0, 30, math.nan), "finite"),
        ((0, 0, 30), "shape"),
        ([(0, 0, 30, 30)] * 2, "shape"),
        ("box", "not an array"),
    ],
)
def test_check_box_refuses(box: object, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        TRANSFORM.check_box(box, (30, 40))
    assert says in caught.value.message and "\n" not in caught.value.message
