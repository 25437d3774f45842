"""Other shapes, orders, parts: against definitions in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_draws import each, few, flags, numbers, seeds, shapes, some_axes, whole
from mil_programs import check, fold, interpret

from edgesam_mobile.runtime.coreml.types import ProgramError


@few
@given(seed=seeds, keep=st.integers(0, 2), infer=st.integers(0, 2))
def test_a_zero_in_a_shape_keeps_a_side_and_a_minus_one_is_inferred(seed: int, keep: int, infer: int) -> None:
    x = numbers(seed, 4, 4, 4)
    shape = [4, 4, 4]
    shape[infer] = -1
    if keep != infer:
        shape[keep] = 0
    check(lambda mb, x: mb.reshape(x=x, shape=shape), x, expected=x, folds=True)
    check(lambda mb, x: mb.reshape(x=x, shape=[8, -1]), x, expected=x.reshape(8, -1), folds=True)


@few
@given(seed=seeds, shape=shapes, data=st.data())
def test_sides_are_permuted_turned_round_added_and_removed(
    seed: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    x = numbers(seed, *shape)
    perm = data.draw(st.permutations(range(len(shape))))
    check(lambda mb, x: mb.transpose(x=x, perm=perm), x, expected=x.transpose(perm), folds=True)
    axes = some_axes(data, len(shape))
    check(lambda mb, x: mb.reverse(x=x, axes=axes), x, expected=np.flip(x, axes), folds=True)
    check(lambda mb, x: mb.reverse(x=x), x, expected=np.flip(x), folds=True)
    new = data.draw(st.integers(-len(shape) - 1, len(shape)))
    longer = np.expand_dims(x, new)
    check(lambda mb, x: mb.expand_dims(x=x, axes=[new]), x, expected=longer, folds=True)
    check(lambda mb, x: mb.squeeze(x=x, axes=[new]), longer, expected=x, folds=True)


@few
@given(seed=seeds, shape=shapes, data=st.data())
def test_a_tensor_is_flattened_to_two_sides(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = numbers(seed, *shape)
    rows = prod(shape[: axis % len(shape)])
    folds = axis % len(shape) > 0  # where no side is before the axis, coremltools fails on a product of none
    check(lambda mb, x: mb.flatten2d(x=x, axis=axis), x, expected=x.reshape(rows, -1), folds=folds)


@settings(max_examples=12)
@given(seed=seeds, data=st.data())
def test_slices_have_steps_masks_and_indices_from_the_end(seed: int, data: st.DataObject) -> None:
    x = numbers(seed, 5, 6, 4)
    places: list[slice | int] = []
    begin, end, stride, open_first, open_last, single = ([] for _ in range(6))
    for side in x.shape:
        first = data.draw(st.integers(-side, side - 1))
        last = data.draw(st.integers(first % side + 1, side))
        masks = [data.draw(flags) for _ in range(2)]
        alone = data.draw(flags) and sum(single) < 2
        step = data.draw(st.integers(1, 3))
        begin.append(first)
        end.append(last if last == side or data.draw(flags) else last - side)
        stride.append(1 if alone else step)
        open_first.append(masks[0] and not alone)
        open_last.append(masks[1] and not alone)
        single.append(alone)
        cut = slice(None if masks[0] else first % side, None if masks[1] else last, step)
        places.append(first if alone else cut)
    check(
        lambda mb, x: mb.slice_by_index(
            x=x,
            begin=begin,
            end=end,
            stride=stride,
            begin_mask=open_first,
            end_mask=open_last,
            squeeze_mask=single,
        ),
        x,
        expected=x[tuple(places)],
        folds=True,
    )


@few
@given(seed=seeds, rank=st.integers(3, 5), data=st.data())
def test_edges_of_the_last_two_sides_are_cropped(seed: int, rank: int, data: st.DataObject) -> None:
    x = numbers(seed, *[2] * (rank - 2), 5, 6)
    (top, bottom), (left, right) = each(data, 2, 0, 2), each(data, 2, 0, 2)
    check(
        lambda mb, x: mb.crop(x=x, crop_height=[top, bottom], crop_width=[left, right]),
        x,
        expected=x[..., top : 5 - bottom, left : 6 - right],
    )


def test_a_slice_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ProgramError, match="negative stride -1 is not supported"):
        interpret(
            lambda mb, x: mb.slice_by_index(x=x, begin=[3], end=[0], stride=[-1]), np.arange(4, dtype=np.float32)
        )


@few
@given(seed=seeds, data=st.data())
def test_slices_by_size_may_take_all_that_is_left(seed: int, data: st.DataObject) -> None:
    x = numbers(seed, 5, 6)
    begin = [data.draw(st.integers(0, side - 1)) for side in x.shape]
    size = [data.draw(st.sampled_from([-1, *range(1, n - b + 1)])) for n, b in zip(x.shape, begin, strict=True)]
    cut = tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size, strict=True))
    check(lambda mb, x: mb.slice_by_size(x=x, begin=begin, size=size), x, expected=x[cut], folds=True)


@few
@given(seed=seeds, shape=shapes, data=st.data())
def test_tensors_are_joined_stacked_and_repeated(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, y = numbers(seed, *shape), numbers(seed + 1, *shape)
    joined = np.concatenate([x, y, x], axis)
    check(lambda mb, x, y: mb.concat(values=(x, y, x), axis=axis), x, y, expected=joined, folds=True)
    check(lambda mb, x, y: mb.stack(values=(x, y), axis=axis), x, y, expected=np.stack([x, y], axis), folds=True)
    reps = each(data, len(shape), 1, 3)
    check(lambda mb, x: mb.tile(x=x, reps=reps), x, expected=np.tile(x, reps), folds=True)


@few
@given(seed=seeds, axis=st.integers(-2, 1), sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4))
def test_a_tensor_is_split_evenly_or_by_sizes(seed: int, axis: int, sizes: list[int]) -> None:
    x = np.moveaxis(numbers(seed, sum(sizes), 3), 0, axis).copy()

    def by_sizes(mb: Any, x: Any) -> Any:
        return mb.split(x=x, split_sizes=sizes, axis=axis)

    expected = np.split(x, np.cumsum(sizes)[:-1], axis)
    for answer, folded, part in zip(interpret(by_sizes, x), fold(by_sizes, x), expected, strict=True):
        np.testing.assert_array_equal(answer, part)
        np.testing.assert_array_equal(folded, part)
    whole_parts = np.concatenate([x, x, x], axis)
    answers = interpret(lambda mb, x: mb.split(x=x, num_splits=3, axis=axis), whole_parts)
    assert [answer.shape for answer in answers] == [x.shape] * 3
    np.testing.assert_array_equal(np.concatenate(answers, axis), whole_parts)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@few
@given(seed=seeds, rank=st.integers(1, 4), data=st.data())
def test_the_last_sides_are_padded_in_three_modes(mode: str, seed: int, rank: int, data: st.DataObject) -> None:
    x = numbers(seed, *each(data, rank, 3, 4))
    count = data.draw(st.integers(1, rank))
    pad = each(data, 2 * count, 0, 2)
    ends = [(0, 0)] * (rank - count) + list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        expected = np.pad(x, ends, constant_values=0.5)
    else:
        expected = np.pad(x, ends, mode={"reflect": "reflect", "replicate": "edge"}[mode])
    check(
        lambda mb, x: mb.pad(x=x, pad=pad, mode=mode, constant_val=np.float32(0.5)), x, expected=expected, folds=True
    )


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("ends", [(0, 0, 1, 2), (1, 2, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 1, 1)])
def test_pictures_are_padded_along_one_side_alone(mode: str, ends: tuple[int, ...]) -> None:
    x = numbers(0, 1, 2, 4, 5)
    pairs = [(0, 0)] * (4 - len(ends) // 2) + list(zip(ends[::2], ends[1::2], strict=True))
    expected = np.pad(x, pairs, mode={"reflect": "reflect", "replicate": "edge"}[mode])
    check(lambda mb, x: mb.pad(x=x, pad=list(ends), mode=mode), x, expected=expected, folds=True)


@few
@given(seed=seeds, factor=st.integers(1, 3))
def test_channels_become_pixels_and_pixels_channels(seed: int, factor: int) -> None:
    x = numbers(seed, 2, 3 * factor**2, 4, 5)
    blocks = x.reshape(2, 3, factor, factor, 4, 5)
    shuffled = blocks.transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 4 * factor, 5 * factor)
    check(lambda mb, x: mb.pixel_shuffle(x=x, upscale_factor=factor), x, expected=shuffled)
    check(lambda mb, x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(factor)), shuffled, expected=x)


def test_a_shape_is_known_before_the_program_runs() -> None:
    x = numbers(0, 2, 3, 4)
    check(lambda mb, x: mb.shape(x=x), x, expected=[2, 3, 4], folds=True)

    def reshaped(mb: Any, x: Any) -> Any:
        rows = mb.slice_by_index(x=mb.shape(x=x), begin=[0], end=[1])
        return mb.reshape(x=x, shape=mb.concat(values=(rows, np.array([-1], np.int32)), axis=0))

    check(reshaped, x, expected=x.reshape(2, 12))


@few
@given(shape=shapes, value=st.floats(-2, 2, width=32))
def test_a_tensor_is_filled(shape: tuple[int, ...], value: float) -> None:
    x = np.zeros(1, np.float32)
    check(
        lambda mb, x: mb.add(x=mb.fill(shape=list(shape), value=np.float32(value)), y=x),
        x,
        expected=np.full(shape, value, np.float32),
    )


@few
@given(seed=seeds, shape=shapes, taken=st.sampled_from([(1,), (4,), (2, 3)]), data=st.data())
def test_slices_are_gathered_along_an_axis(
    seed: int, shape: tuple[int, ...], taken: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    side = shape[axis]
    x, places = numbers(seed, *shape), whole(seed, *taken, low=-side, high=side - 1)
    expected = np.take(x, places % side, axis)
    check(lambda mb, x, i: mb.gather(x=x, indices=i, axis=axis), x, places, expected=expected, folds=True)
    check(lambda mb, x, i: mb.gather(x=x, indices=i, axis=axis), x, places % side, expected=expected, system="iOS17")
    each_place = whole(seed, *shape, low=-side, high=side - 1)
    expected = np.take_along_axis(x, each_place % side, axis)
    check(
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=axis), x, each_place, expected=expected, folds=True
    )


def test_a_place_that_a_tensor_does_not_have_is_refused_in_one_line() -> None:
    with pytest.raises(ProgramError, match=r"^gather \S+: index out of range") as caught:
        interpret(
            lambda mb, x, i: mb.gather(x=x, indices=i, axis=0),
            np.zeros(3, np.float32),
            np.array([3], np.int32),
        )
    assert "\n" not in str(caught.value)
