"""Views of a picture: what happens to the picture happens to its objects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distill.data.augment import View, jitter, random_view
from distill.recipe import AugmentRecipe
from edgesam_mobile.model.geometry import ResizeLongestSide

sides = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def views(draw: st.DrawFn) -> View:
    lowest = draw(st.floats(0.5, 2))
    augment = AugmentRecipe(flip=draw(st.sampled_from([0.0, 0.5, 1.0])), scale=(lowest, draw(st.floats(lowest, 3))))
    rng = np.random.default_rng(draw(seeds))
    return random_view((draw(sides), draw(sides)), draw(st.integers(32, 48)), augment, rng)


@st.composite
def boxes(draw: st.DrawFn, original: tuple[int, int]) -> tuple[int, int, int, int]:
    (y1, y2), (x1, x2) = (
        sorted(draw(st.tuples(st.integers(0, side - 1), st.integers(0, side - 1)))) for side in original
    )
    return x1, y1, x2 + 1, y2 + 1


def shown(view: View, mask: np.ndarray) -> np.ndarray:
    """A mask, put through the view as if it were a picture: the share of each pixel, 0 to 255."""
    return view.picture(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))[..., 0]


@given(views(), st.data())
def test_a_point_of_a_mask_stays_on_it_and_the_box_around_it(view: View, data: st.DataObject) -> None:
    x1, y1, x2, y2 = data.draw(boxes(view.original))
    mask = np.zeros(view.original, dtype=np.uint8)
    mask[y1:y2, x1:x2] = 1
    point = data.draw(st.integers(x1, x2 - 1)) + 0.5, data.draw(st.integers(y1, y2 - 1)) + 0.5
    prompt = view.prompt((x1, y1, x2, y2), point)
    after = shown(view, mask)
    assert after.shape == view.size
    if prompt is None:  # then the view does not show the pixel
        only = np.zeros(view.original, dtype=np.uint8)
        only[int(point[1]), int(point[0])] = 1
        assert shown(view, only).max() < 250
        return
    box, (x, y) = prompt
    assert after[min(int(y), view.size[0] - 1), min(int(x), view.size[1] - 1)] > 0
    assert box[0] <= x <= box[2] and box[1] <= y <= box[3]
    assert (box >= 0).all() and (box <= np.tile(view.size[::-1], 2)).all()
    assume(min(box[2] - box[0], box[3] - box[1]) >= 4)
    rows, columns = (np.flatnonzero((after > 127).any(axis=axis)) for axis in (1, 0))
    extent = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    np.testing.assert_allclose(box, extent, atol=1)


@given(sides, sides, seeds)
def test_without_augmentation_a_view_is_the_predictors(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = random_view((height, width), 32, AugmentRecipe(), rng)
    resize = ResizeLongestSide(32)
    np.testing.assert_array_equal(view.picture(picture), resize.apply_image(picture))
    box, point = (0, 0, width, height), (width / 2, height / 2)
    prompt = view.prompt(box, point)
    assert prompt is not None
    np.testing.assert_allclose(prompt[0], resize.apply_boxes(box, (height, width)))
    np.testing.assert_allclose(prompt[1], resize.apply_coords(point, (height, width)))
    assert view == view.whole(32)


def test_a_flip_mirrors() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain, flipped = (
        random_view((20, 30), 30, AugmentRecipe(flip=flip), np.random.default_rng(1)) for flip in (0.0, 1.0)
    )
    np.testing.assert_array_equal(flipped.picture(picture), plain.picture(picture)[:, ::-1])
    prompt = flipped.prompt((2, 3, 8, 9), (4.5, 5.5))
    assert prompt is not None
    assert (prompt[0].tolist(), prompt[1].tolist()) == ([22, 3, 28, 9], [25.5, 5.5])


def test_a_larger_picture_is_cropped_anywhere_and_a_smaller_one_not() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    large = ResizeLongestSide(60).apply_image(picture)
    corners = set()
    for _ in range(400):
        view = random_view((20, 30), 30, AugmentRecipe(scale=(2.0, 2.0)), rng)
        (top, left), corners = view.corner, corners | {view.corner}
        assert view.size == (30, 30)
        np.testing.assert_array_equal(view.picture(picture), large[top : top + 30, left : left + 30])
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 10, 0, 30)
    assert random_view((20, 30), 30, AugmentRecipe(scale=(0.5, 0.5)), rng).size == (10, 15)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (float("nan"), 5, 9, 9), (-9, 2, -3, 9)])
def test_boxes_without_inside_are_no_prompts(box: tuple[float, ...]) -> None:
    view = random_view((20, 30), 30, AugmentRecipe(), np.random.default_rng(0))
    assert view.prompt(box, (5.5, 5.5)) is None


def test_jitter_changes_colours_within_its_strength() -> None:
    picture = np.random.default_rng(0).integers(100, 150, (8, 9, 3), dtype=np.uint8)
    assert jitter(picture, 0.0, np.random.default_rng(0)) is picture
    means = [jitter(picture, 0.2, np.random.default_rng(seed)).mean() for seed in range(30)]
    assert all(0.79 < mean / picture.mean() < 1.21 for mean in means)
    assert np.std(means) > 5
    grey = np.repeat(picture[..., :1], 3, axis=2)
    changed = jitter(grey[:, ::-1], 1.0, np.random.default_rng(3))
    assert changed.dtype == np.uint8 and (changed == changed[..., :1]).all(), "grey stays grey"
