"""Sums, extremes, pooling, norms: against definitions in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_draws import along, each, few, flags, numbers, seeds, shapes, some_axes, whole
from mil_programs import Array, check, fold, interpret

from edgesam_mobile.runtime.coreml.types import ProgramError


def product_of(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    return np.prod(x, axis=axis, keepdims=keepdims)


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_mean": np.mean,
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": product_of,
    "reduce_sum_square": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
    "reduce_l1_norm": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "reduce_log_sum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "reduce_log_sum_exp": lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(max_examples=6)
@given(seed=seeds, shape=shapes, keep=flags, every=flags, data=st.data())
def test_a_reduction_takes_axes_and_may_keep_them(
    name: str, seed: int, shape: tuple[int, ...], keep: bool, every: bool, data: st.DataObject
) -> None:
    axes = None if every else some_axes(data, len(shape))
    x = numbers(seed, *shape, low=0.2, high=2)
    expected = REDUCTIONS[name](x.astype(np.float64), axis=None if axes is None else tuple(axes), keepdims=keep)
    check(
        lambda mb, x: getattr(mb, name)(x=x, axes=axes, keep_dims=keep),
        x,
        expected=expected,
        folds=True,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("name", ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
@settings(max_examples=5)
@given(seed=seeds, keep=flags)
def test_a_reduction_of_whole_numbers_stays_whole(name: str, seed: int, keep: bool) -> None:
    x = whole(seed, 3, 4)
    expected = REDUCTIONS[name](x, axis=(1,), keepdims=keep)
    (answer,) = interpret(lambda mb, x: getattr(mb, name)(x=x, axes=[1], keep_dims=keep), x)
    assert answer.dtype == np.int32
    np.testing.assert_array_equal(answer, expected)


@few
@given(seed=seeds, shape=shapes, keep=flags, data=st.data())
def test_the_place_of_an_extreme_is_the_first_of_equals(
    seed: int, shape: tuple[int, ...], keep: bool, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = whole(seed, *shape, low=0, high=2).astype(np.float32)
    for name, compute in (("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)):
        check(
            lambda mb, x, name=name: getattr(mb, name)(x=x, axis=axis, keep_dims=keep),
            x,
            expected=compute(x, axis=axis, keepdims=keep),
            folds=True,
        )


@few
@given(seed=seeds, shape=shapes, exclusive=flags, backwards=flags, data=st.data())
def test_running_sums_start_at_either_end_with_or_without_the_number_itself(
    seed: int, shape: tuple[int, ...], exclusive: bool, backwards: bool, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = whole(seed, *shape).astype(np.float32)
    lined = np.moveaxis(np.flip(x, axis) if backwards else x, axis, 0)
    sums = np.stack([lined[: place + (not exclusive)].sum(0) for place in range(len(lined))])
    expected = np.moveaxis(sums, 0, axis)
    check(
        lambda mb, x: mb.cumsum(x=x, axis=axis, exclusive=exclusive, reverse=backwards),
        x,
        expected=np.flip(expected, axis) if backwards else expected,
        folds=not exclusive and not backwards,
    )


@few
@given(seed=seeds, shape=shapes, data=st.data())
def test_a_softmax_sums_to_one_along_its_axis(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = numbers(seed, *shape, low=-50, high=50)
    weights = np.exp(x - x.max(axis, keepdims=True))
    expected = weights / weights.sum(axis, keepdims=True)
    check(lambda mb, x: mb.softmax(x=x, axis=axis), x, expected=expected, folds=True)


@few
@given(seed=seeds, shape=shapes, ascending=flags, data=st.data())
def test_the_largest_or_smallest_come_in_order_with_their_places(
    seed: int, shape: tuple[int, ...], ascending: bool, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    count = data.draw(st.integers(1, shape[axis]))
    x = np.random.default_rng(seed).permutation(prod(shape)).reshape(shape).astype(np.float32)  # no two are equal
    order = np.take(np.argsort(x if ascending else -x, axis), range(count), axis)
    options = {"k": count, "axis": axis, "ascending": ascending}
    values, places = interpret(lambda mb, x: mb.topk(x=x, **options), x)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis))
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(fold(lambda mb, x: mb.topk(x=x, **options), x), [values, places])
    (alone,) = interpret(lambda mb, x: mb.topk(x=x, return_indices=False, sort=False, **options), x)
    np.testing.assert_array_equal(np.sort(alone, axis), np.sort(values, axis))


def test_places_may_be_asked_for_in_short_numbers() -> None:
    x = np.array([[3, 1, 2]], np.float32)

    def body(mb: Any, x: Any) -> Any:
        return mb.topk(x=x, k=3, output_indices_dtype="uint16")

    values, places = interpret(body, x, system="iOS17")
    assert values.tolist() == [[3, 2, 1]] and places.tolist() == [[0, 2, 1]]


def windows(x: Array, kernel: list[int], strides: list[int]) -> Array:
    """Every window of the spatial sides, behind the places it is taken from."""
    sides = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=sides)
    return views[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]


@few
@given(seed=seeds, rank=st.integers(1, 3), data=st.data())
def test_pooling_takes_the_largest_or_the_mean_of_a_window(seed: int, rank: int, data: st.DataObject) -> None:
    kernel, strides = each(data, rank, 2, 3), each(data, rank, 1, 3)
    around = each(data, rank, 0, 1)
    x = numbers(seed, 2, 3, *each(data, rank, 4, 7))
    ends = [(0, 0), (0, 0), *((cells, cells) for cells in around)]
    options: dict[str, Any] = {"kernel_sizes": kernel, "strides": strides, "pad_type": "custom"}
    options["pad"] = [cells for cells in around for _ in range(2)]
    inside = tuple(range(-rank, 0))
    largest = windows(np.pad(x, ends, constant_values=-np.inf), kernel, strides).max(inside)
    check(lambda mb, x: mb.max_pool(x=x, **options), x, expected=largest)
    sums = windows(np.pad(x, ends), kernel, strides).sum(inside)
    counts = windows(np.pad(np.ones_like(x), ends), kernel, strides).sum(inside)
    check(lambda mb, x: mb.avg_pool(x=x, **options), x, expected=sums / prod(kernel), tolerance=1e-4)
    check(
        lambda mb, x: mb.avg_pool(x=x, exclude_padding_from_average=True, **options),
        x,
        expected=sums / counts,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, rank=st.integers(1, 2), data=st.data())
def test_with_ceil_mode_a_last_window_may_reach_beyond_the_end(seed: int, rank: int, data: st.DataObject) -> None:
    """Strides no longer than windows: of longer ones coremltools declares a size that is not PyTorch's."""
    kernel, strides, around = each(data, rank, 2, 3), each(data, rank, 1, 2), each(data, rank, 0, 1)
    x = numbers(seed, 2, 3, *each(data, rank, 4, 7))
    # As PyTorch does: one more window where places are left, if it does not begin behind all that is there.
    more = []
    for side, size, step, cells in zip(x.shape[2:], kernel, strides, around, strict=True):
        count = -(-(side + 2 * cells - size) // step) + 1
        count -= (count - 1) * step >= side + cells
        more.append((cells, max((count - 1) * step + size - side - cells, 0)))
    filled = np.pad(x, [(0, 0), (0, 0), *more], constant_values=-np.inf)
    pad = [cells for cells in around for _ in range(2)]
    check(
        lambda mb, x: mb.max_pool(
            x=x, kernel_sizes=kernel, strides=strides, pad_type="custom", pad=pad, ceil_mode=True
        ),
        x,
        expected=windows(filled, kernel, strides).max(tuple(range(-rank, 0))),
    )


def test_means_with_ceil_mode_are_refused() -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.avg_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True)

    with pytest.raises(ProgramError, match="of averages, ceil_mode True is not supported"):
        interpret(body, np.ones((1, 1, 5, 5), np.float32))


def standard(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    wide = x.astype(np.float64)
    mean = wide.mean(axes, keepdims=True)
    return (wide - mean) / np.sqrt(((wide - mean) ** 2).mean(axes, keepdims=True) + epsilon)


@few
@given(seed=seeds, shape=shapes, scaled=flags, epsilon=st.sampled_from([1e-5, 0.5]), data=st.data())
def test_layer_norm_normalises_along_its_axes(
    seed: int, shape: tuple[int, ...], scaled: bool, epsilon: float, data: st.DataObject
) -> None:
    axes = sorted(axis % len(shape) for axis in some_axes(data, len(shape)))
    x = numbers(seed, *shape)
    expected = standard(x, tuple(axes), epsilon)
    gamma = beta = None
    if scaled:
        gamma, beta = (numbers(seed + n, *(shape[axis] for axis in axes)) for n in (1, 2))
        sides = [side if place in axes else 1 for place, side in enumerate(shape)]
        expected = expected * gamma.reshape(sides) + beta.reshape(sides)
    check(
        lambda mb, x: mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=np.float32(epsilon)),
        x,
        expected=expected,
        folds=True,
        tolerance=1e-3,
    )


@few
@given(seed=seeds, rank=st.integers(3, 5), scaled=flags)
def test_batch_norm_uses_the_statistics_given(seed: int, rank: int, scaled: bool) -> None:
    x, mean, gamma, beta = (
        numbers(seed + n, *s) for n, s in enumerate([(2, 3, *[2] * (rank - 2)), (3,), (3,), (3,)])
    )
    variance = numbers(seed + 4, 3, low=0.5, high=2)
    options = {"gamma": gamma, "beta": beta} if scaled else {}
    expected = (x - along(mean, rank, 1)) / np.sqrt(along(variance, rank, 1) + 1e-3)
    if scaled:
        expected = expected * along(gamma, rank, 1) + along(beta, rank, 1)
    check(
        lambda mb, x: mb.batch_norm(x=x, mean=mean, variance=variance, epsilon=np.float32(1e-3), **options),
        x,
        expected=expected,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, rank=st.integers(3, 4), scaled=flags)
def test_instance_norm_normalises_each_channel_of_each_picture(seed: int, rank: int, scaled: bool) -> None:
    x, gamma, beta = numbers(seed, 2, 3, *[4] * (rank - 2)), numbers(seed + 1, 3), numbers(seed + 2, 3)
    expected = standard(x, tuple(range(2, rank)), 1e-2)
    if scaled:
        expected = expected * along(gamma, rank, 1) + along(beta, rank, 1)
    options = {"gamma": gamma, "beta": beta} if scaled else {}
    check(
        lambda mb, x: mb.instance_norm(x=x, epsilon=np.float32(1e-2), **options), x, expected=expected, tolerance=1e-3
    )


@few
@given(seed=seeds, rank=st.integers(3, 5))
def test_l2_norm_divides_by_the_length_of_the_last_three_sides(seed: int, rank: int) -> None:
    x = numbers(seed, *[2] * rank)
    expected = x / np.sqrt((x**2).sum((-1, -2, -3), keepdims=True) + 1e-3)
    check(lambda mb, x: mb.l2_norm(x=x, epsilon=np.float32(1e-3)), x, expected=expected, folds=True)
