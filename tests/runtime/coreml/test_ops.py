"""What each operation computes: against its definition in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import Array, check, fold, interpret

from edgesam_mobile.runtime.coreml.ops import OPS
from edgesam_mobile.runtime.coreml.types import ProgramError

few = settings(max_examples=7)
seeds = st.integers(0, 2**32 - 1)
flags = st.booleans()
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def numbers(seed: int, *shape: int, low: float = -3, high: float = 3) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(seed: int, *shape: int, low: int = -5, high: int = 5) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.int32, endpoint=True)


def each(data: st.DataObject, count: int, low: int, high: int) -> list[int]:
    return data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


def some_axes(data: st.DataObject, rank: int) -> list[int]:
    """A few sides, some of them counted from the end."""
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
    return [axis - rank if data.draw(flags) else axis for axis in axes]


def along(values: Array, rank: int, axis: int) -> Array:
    return values.reshape([-1 if side == axis % rank else 1 for side in range(rank)])


# -- convolutions and products


def convolved(x: Array, weight: Array, strides: Sequence[int], dilations: Sequence[int], groups: int) -> Array:
    """The definition, window by window; ``x`` is padded already."""
    kernel = weight.shape[2:]
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sides = [(n - w) // s + 1 for n, w, s in zip(x.shape[2:], wide, strides, strict=True)]
    out = np.zeros((len(x), len(weight), *sides))
    made, taken = len(weight) // groups, x.shape[1] // groups
    for place in np.ndindex(*sides):
        cut = [slice(p * s, p * s + w, d) for p, s, w, d in zip(place, strides, wide, dilations, strict=True)]
        for group in range(groups):
            window = x[(slice(None), slice(group * taken, (group + 1) * taken), *cut)].reshape(len(x), -1)
            filters = weight[group * made : (group + 1) * made].reshape(made, -1)
            out[(slice(None), slice(group * made, (group + 1) * made), *place)] = window @ filters.T
    return out


def spread(x: Array, weight: Array, strides: Sequence[int], dilations: Sequence[int], groups: int) -> Array:
    """The transposed convolution: every value stamps the kernel."""
    wide = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    sides = [(n - 1) * s + w for n, s, w in zip(x.shape[2:], strides, wide, strict=True)]
    made, taken = weight.shape[1], x.shape[1] // groups
    out = np.zeros((len(x), made * groups, *sides))
    for place in np.ndindex(*x.shape[2:]):
        cut = [slice(p * s, p * s + w, d) for p, s, w, d in zip(place, strides, wide, dilations, strict=True)]
        for channel in range(x.shape[1]):
            group = channel // taken
            stamp = x[(slice(None), channel, *place)].reshape(-1, *[1] * (weight.ndim - 1)) * weight[channel]
            out[(slice(None), slice(group * made, (group + 1) * made), *cut)] += stamp
    return out


@few
@given(seed=seeds, rank=st.integers(1, 2), groups=st.integers(1, 2), with_bias=flags, even=flags, data=st.data())
def test_a_convolution_pads_strides_dilates_and_groups(
    seed: int, rank: int, groups: int, with_bias: bool, even: bool, data: st.DataObject
) -> None:
    kernel, strides, dilations = (each(data, rank, 1, 3) for _ in range(3))
    before = each(data, rank, 0, 2)
    after = before if even else each(data, rank, 0, 2)
    x = numbers(seed, 2, 2 * groups, *each(data, rank, 7, 9))
    weight = numbers(seed + 1, 3 * groups, 2, *kernel)
    bias = numbers(seed + 2, 3 * groups) if with_bias else None
    padded = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    expected = convolved(padded, weight, strides, dilations, groups)
    if bias is not None:
        expected += along(bias, rank + 2, 1)
    options: dict[str, Any] = {"strides": strides, "dilations": dilations, "groups": groups}
    pad = [n for pair in zip(before, after, strict=True) for n in pair]
    check(
        lambda mb, x: mb.conv(x=x, weight=weight, bias=bias, pad_type="custom", pad=pad, **options),
        x,
        expected=expected,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, kernel=st.sampled_from([1, 3, 5]), dilation=st.integers(1, 2))
def test_a_convolution_that_keeps_the_size_pads_both_ends_alike(seed: int, kernel: int, dilation: int) -> None:
    x, weight = numbers(seed, 1, 2, 6, 7), numbers(seed + 1, 2, 2, kernel, kernel)
    around = (kernel - 1) * dilation // 2
    padded = np.pad(x, [(0, 0), (0, 0), (around, around), (around, around)])
    for pad_type in ("same", "same_lower"):
        check(
            lambda mb, x, kind=pad_type: mb.conv(x=x, weight=weight, pad_type=kind, dilations=[dilation] * 2),
            x,
            expected=convolved(padded, weight, [1, 1], [dilation] * 2, 1),
            tolerance=1e-4,
        )


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2)])
def test_padding_whose_documentation_contradicts_itself_is_refused(kernel: int, stride: int) -> None:
    weight = numbers(0, 2, 2, kernel, kernel)
    with pytest.raises(ProgramError, match="with these sides, pad_type 'same' is not supported"):
        interpret(
            lambda mb, x: mb.conv(x=x, weight=weight, pad_type="same", strides=[stride] * 2), numbers(1, 1, 2, 6, 6)
        )


@few
@given(seed=seeds, rank=st.integers(1, 2), groups=st.integers(1, 2), with_bias=flags, cut=flags, data=st.data())
def test_a_transposed_convolution_stamps_its_kernel_and_cuts_the_padding(
    seed: int, rank: int, groups: int, with_bias: bool, cut: bool, data: st.DataObject
) -> None:
    kernel, strides, dilations = each(data, rank, 2, 3), each(data, rank, 1, 3), each(data, rank, 1, 2)
    x = numbers(seed, 2, 2 * groups, *each(data, rank, 3, 4))
    weight = numbers(seed + 1, 2 * groups, 3, *kernel)
    bias = numbers(seed + 2, 3 * groups) if with_bias else None
    expected = spread(x, weight, strides, dilations, groups)
    options: dict[str, Any] = {"strides": strides, "dilations": dilations, "groups": groups, "pad_type": "valid"}
    if cut:
        ends = each(data, 2 * rank, 0, 1)
        for side, (before, after) in enumerate(zip(ends[::2], ends[1::2], strict=True), start=2):
            expected = np.take(expected, range(before, expected.shape[side] - after), side)
        options |= {"pad_type": "custom", "pad": ends}
    if bias is not None:
        expected = expected + along(bias, rank + 2, 1)
    check(
        lambda mb, x: mb.conv_transpose(x=x, weight=weight, bias=bias, **options),
        x,
        expected=expected,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, lead=shapes.filter(lambda s: len(s) < 4), with_bias=flags)
def test_a_linear_layer_multiplies_by_the_transposed_weight(
    seed: int, lead: tuple[int, ...], with_bias: bool
) -> None:
    x, weight = numbers(seed, *lead, 5), numbers(seed + 1, 4, 5)
    bias = numbers(seed + 2, 4) if with_bias else np.zeros(4, np.float32)
    expected = np.einsum("...i,oi->...o", x, weight) + bias
    check(lambda mb, x: mb.linear(x=x, weight=weight, bias=bias), x, expected=expected, folds=True, tolerance=1e-4)


@few
@given(seed=seeds, turn_x=flags, turn_y=flags, batch=st.sampled_from([((), ()), ((2,), (1,)), ((1, 3), (2, 1))]))
def test_a_product_of_matrices_turns_either_and_repeats_batches(
    seed: int, turn_x: bool, turn_y: bool, batch: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    x = numbers(seed, *batch[0], *((4, 3) if turn_x else (3, 4)))
    y = numbers(seed + 1, *batch[1], *((5, 4) if turn_y else (4, 5)))
    letters = ("ki" if turn_x else "ik", "jk" if turn_y else "kj")
    check(
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=turn_x, transpose_y=turn_y),
        x,
        y,
        expected=np.einsum(f"...{letters[0]},...{letters[1]}->...ij", x, y),
        folds=True,
        tolerance=1e-4,
    )


@few
@given(seed=seeds)
def test_einsum_sums_over_the_letters_that_disappear(seed: int) -> None:
    x, y = numbers(seed, 2, 3, 4, 5), numbers(seed + 1, 2, 5, 4, 6)
    check(
        lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        x,
        y,
        expected=np.einsum("nchw,nwhu->nchu", x, y),
        folds=True,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, mask=st.sampled_from(["none", "added", "kept"]))
def test_attention_is_a_softmax_of_scaled_products(seed: int, mask: str) -> None:
    q, k, v = numbers(seed, 1, 2, 3, 4), numbers(seed + 1, 1, 2, 5, 4), numbers(seed + 2, 1, 2, 5, 6)
    scores = q @ k.swapaxes(-1, -2) / 2
    added = numbers(seed + 3, 1, 2, 3, 5)
    if mask == "added":
        scores = scores + added
    if mask == "kept":
        scores = np.where(np.maximum(added, 0) + np.eye(3, 5) > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))

    def attend(mb: Any, q: Any, k: Any, v: Any) -> Any:
        kept = np.maximum(added, 0) + np.eye(3, 5) > 0
        attn_mask = {"none": None, "added": added, "kept": kept}[mask]
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=attn_mask)

    expected = weights / weights.sum(-1, keepdims=True) @ v
    check(attend, q, k, v, expected=expected, system="iOS18", tolerance=1e-4)


# -- one number out for one or two in

# By name: its definition, and the range of its argument.
UNARY: dict[str, tuple[Callable[[Array], Array], float, float]] = {
    "abs": (np.abs, -3, 3),
    "acos": (np.arccos, -0.99, 0.99),
    "asin": (np.arcsin, -0.99, 0.99),
    "atan": (np.arctan, -3, 3),
    "atanh": (np.arctanh, -0.9, 0.9),
    "ceil": (np.ceil, -3, 3),
    "cos": (np.cos, -3, 3),
    "cosh": (np.cosh, -3, 3),
    "erf": (np.vectorize(erf), -3, 3),
    "exp": (np.exp, -3, 3),
    "exp2": (lambda x: 2.0**x, -3, 3),
    "floor": (np.floor, -3, 3),
    "sign": (np.sign, -3, 3),
    "sin": (np.sin, -3, 3),
    "sinh": (np.sinh, -3, 3),
    "sqrt": (np.sqrt, 0, 3),
    "square": (lambda x: x * x, -3, 3),
    "tan": (np.tan, -1, 1),
    "tanh": (np.tanh, -3, 3),
    "identity": (lambda x: x, -3, 3),
    "relu": (lambda x: np.maximum(x, 0), -3, 3),
    "relu6": (lambda x: np.clip(x, 0, 6), -3, 9),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -3, 3),
    "silu": (lambda x: x / (1 + np.exp(-x)), -3, 3),
    "softplus": (lambda x: np.log1p(np.exp(x)), -3, 30),
    "softsign": (lambda x: x / (1 + np.abs(x)), -3, 3),
}


@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=4)
@given(seed=seeds, shape=shapes)
def test_a_function_of_one_number_is_applied_to_each(name: str, seed: int, shape: tuple[int, ...]) -> None:
    compute, low, high = UNARY[name]
    x = numbers(seed, *shape, low=low, high=high)
    check(lambda mb, x: getattr(mb, name)(x=x), x, expected=compute(x), folds=name != "silu")


def test_halves_are_rounded_to_the_even_neighbour() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6], np.float32)
    check(lambda mb, x: mb.round(x=x), x, expected=[-2, -2, 0, 0, 2, 2, 3], folds=True)


@pytest.mark.parametrize("name", ["abs", "sign", "square"])
def test_functions_of_whole_numbers_keep_them_whole(name: str) -> None:
    x = whole(0, 3, 4)
    expected = {"abs": np.abs, "sign": np.sign, "square": np.square}[name](x)
    (answer,) = interpret(lambda mb, x: getattr(mb, name)(x=x), x)
    assert answer.dtype == np.int32
    np.testing.assert_array_equal(answer, expected)


# By name: its definition, with one or two parameters.
PARAMETRIC: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "clip": (lambda x, a, b: np.minimum(np.maximum(x, a), b), ("alpha", "beta")),
    "threshold": (np.maximum, ("alpha",)),
    "inverse": (lambda x, e: 1 / (x + e), ("epsilon",)),
    "log": (lambda x, e: np.log(x + e), ("epsilon",)),
    "rsqrt": (lambda x, e: 1 / np.sqrt(x + e), ("epsilon",)),
    "clamped_relu": (lambda x, a, b: np.minimum(np.where(x >= 0, x, a * x), b), ("alpha", "beta")),
    "leaky_relu": (lambda x, a: np.where(x >= 0, x, a * x), ("alpha",)),
    "elu": (lambda x, a: np.where(x >= 0, x, a * (np.exp(x) - 1)), ("alpha",)),
    "linear_activation": (lambda x, a, b: a * x + b, ("alpha", "beta")),
    "scaled_tanh": (lambda x, a, b: a * np.tanh(b * x), ("alpha", "beta")),
    "sigmoid_hard": (lambda x, a, b: np.clip(a * x + b, 0, 1), ("alpha", "beta")),
    "thresholded_relu": (lambda x, a: np.where(x >= a, x, 0), ("alpha",)),
}


@pytest.mark.parametrize("name", PARAMETRIC)
@settings(max_examples=4)
@given(seed=seeds, alpha=st.floats(0.125, 1, width=32), beta=st.floats(1.125, 2, width=32))
def test_a_function_with_parameters_uses_them(name: str, seed: int, alpha: float, beta: float) -> None:
    compute, parameters = PARAMETRIC[name]
    x = numbers(seed, 3, 4, low=0.1 if "epsilon" in parameters else -3)
    values = dict(zip(parameters, (np.float32(alpha), np.float32(beta)), strict=False))
    check(
        lambda mb, x: getattr(mb, name)(x=x, **values),
        x,
        expected=compute(x, *values.values()),
        folds=True,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
@few
@given(seed=seeds, shape=shapes)
def test_gelu_has_three_modes(mode: str, seed: int, shape: tuple[int, ...]) -> None:
    x = numbers(seed, *shape).astype(np.float64)
    expected = {
        "EXACT": x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2,
        "TANH_APPROXIMATION": x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "SIGMOID_APPROXIMATION": x / (1 + np.exp(-1.702 * x)),
    }[mode]
    check(lambda mb, x: mb.gelu(x=x, mode=mode), x.astype(np.float32), expected=expected, folds=True)


@few
@given(seed=seeds, rank=st.integers(3, 5))
def test_prelu_has_a_slope_for_each_channel(seed: int, rank: int) -> None:
    x, slopes = numbers(seed, 2, 3, *[2] * (rank - 2)), numbers(seed + 1, 3)
    if rank != 4:
        slopes[:] = slopes[0]  # Apple has different ones for pictures only
    expected = np.where(x >= 0, x, x * along(slopes, rank, 1))
    check(lambda mb, x: mb.prelu(x=x, alpha=slopes), x, expected=expected, folds=True)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
}
BROADCAST = st.sampled_from([((2, 3), (2, 3)), ((2, 3), (3,)), ((4, 1), (1, 3)), ((2, 1, 3), (4, 1)), ((3,), (1,))])


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=5)
@given(seed=seeds, sides=BROADCAST)
def test_a_function_of_two_numbers_repeats_the_smaller_operand(
    name: str, seed: int, sides: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    x, y = whole(seed, *sides[0]), whole(seed + 1, *sides[1])
    y[y == 0] = 2
    for dtype in (np.int32, np.float32):
        given_x, given_y = x.astype(dtype), y.astype(dtype)
        expected = BINARY[name](given_x, given_y)
        check(lambda mb, x, y: getattr(mb, name)(x=x, y=y), given_x, given_y, expected=expected, folds=True)


@few
@given(seed=seeds, sides=BROADCAST)
def test_real_numbers_are_divided_and_raised(seed: int, sides: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = numbers(seed, *sides[0], low=0.1), numbers(seed + 1, *sides[1], low=0.1)
    check(lambda mb, x, y: mb.real_div(x=x, y=y), x, y, expected=x / y, folds=True)
    check(lambda mb, x, y: mb.pow(x=x, y=y), x, y, expected=x**y, folds=True, tolerance=1e-4)


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_truths_are_combined(name: str) -> None:
    x, y = np.array([[-1.0], [1.0]], np.float32), np.array([[-1.0, 1.0]], np.float32)

    def combine(mb: Any, x: Any, y: Any) -> Any:
        left, right = mb.greater(x=x, y=np.float32(0)), mb.greater(x=y, y=np.float32(0))
        return getattr(mb, name)(x=mb.logical_not(x=left), y=right)

    check(combine, x, y, expected=getattr(np, name)(x <= 0, y > 0), folds=True)


@few
@given(seed=seeds)
def test_select_takes_from_one_or_the_other(seed: int) -> None:
    x, y = numbers(seed, 3, 4), numbers(seed + 1, 3, 4)
    check(
        lambda mb, x, y: mb.select(cond=mb.greater(x=x, y=y), a=x, b=y), x, y, expected=np.maximum(x, y), folds=True
    )


def test_numbers_that_become_whole_lose_their_fraction() -> None:
    x = np.array([-2.7, -0.5, 0.0, 0.5, 2.7], np.float32)
    check(lambda mb, x: mb.cast(x=x, dtype="int32"), x, expected=[-2, 0, 0, 0, 2], folds=True)
    check(lambda mb, x: mb.cast(x=x, dtype="bool"), x, expected=[1, 1, 0, 1, 1], folds=True)
    check(lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"), x, expected=[-2, 0, 0, 0, 2])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_small_whole_numbers_keep_their_values(dtype: str) -> None:
    x = np.arange(5, dtype=np.float32) + 100.5
    (answer,) = interpret(lambda mb, x: mb.cast(x=x, dtype=dtype), x, system="iOS17")
    np.testing.assert_array_equal(answer, [100, 101, 102, 103, 104])


def test_operands_of_different_kinds_are_refused() -> None:
    """coremltools' builder would not write such a program."""
    with pytest.raises(ProgramError, match=r"operands of torch\.float32 and torch\.int32"):
        OPS["add"](torch.ones(2), torch.ones(2, dtype=torch.int32))


# -- many numbers to one


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


def windows(x: Array, kernel: list[int], strides: list[int]) -> Array:
    """Every window of the last two sides, behind the places it is taken from."""
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1]]


@few
@given(seed=seeds, data=st.data())
def test_pooling_takes_the_largest_or_the_mean_of_a_window(seed: int, data: st.DataObject) -> None:
    kernel, strides = each(data, 2, 2, 3), each(data, 2, 1, 3)
    around = each(data, 2, 0, 1)
    x = numbers(seed, 2, 3, *each(data, 2, 4, 7))
    ends = [(0, 0), (0, 0), (around[0],) * 2, (around[1],) * 2]
    options: dict[str, Any] = {"kernel_sizes": kernel, "strides": strides, "pad_type": "custom"}
    options["pad"] = [around[0], around[0], around[1], around[1]]
    largest = windows(np.pad(x, ends, constant_values=-np.inf), kernel, strides).max((-1, -2))
    check(lambda mb, x: mb.max_pool(x=x, **options), x, expected=largest)
    sums = windows(np.pad(x, ends), kernel, strides).sum((-1, -2))
    counts = windows(np.pad(np.ones_like(x), ends), kernel, strides).sum((-1, -2))
    check(lambda mb, x: mb.avg_pool(x=x, **options), x, expected=sums / prod(kernel), tolerance=1e-4)
    check(
        lambda mb, x: mb.avg_pool(x=x, exclude_padding_from_average=True, **options),
        x,
        expected=sums / counts,
        tolerance=1e-4,
    )


# -- normalisation


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


# -- shapes


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


# -- pictures at other sizes


def sampled(x: Array, rows: Array, columns: Array) -> Array:
    """Between pixels, where ``rows`` and ``columns`` say."""
    for axis, places in ((-2, rows), (-1, columns)):
        last = x.shape[axis] - 1
        places = np.clip(places, 0, last)
        low = np.floor(places).astype(int)
        share = places - low
        if axis == -2:
            share = share[:, None]
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, last), axis) * share
    return x


def grid(side: int, wanted: int, align: bool) -> Array:
    """As Apple documents it."""
    if align:
        return np.arange(wanted) * ((side - 1) / (wanted - 1) if wanted > 1 else 0)
    return (np.arange(wanted) + 0.5) * side / wanted - 0.5


@settings(max_examples=12)
@given(
    seed=seeds, align=flags, sides=st.tuples(st.integers(2, 7), st.integers(2, 7)), factor=st.sampled_from([1, 2, 3])
)
def test_pictures_grow_between_their_pixels(seed: int, align: bool, sides: tuple[int, int], factor: int) -> None:
    x = numbers(seed, 1, 2, *sides)
    places = [grid(side, side * by, align) for side, by in zip(sides, (factor, 2), strict=True)]
    options: dict[str, Any] = {"scale_factor_height": factor, "scale_factor_width": 2, "align_corners": align}
    check(lambda mb, x: mb.upsample_bilinear(x=x, **options), x, expected=sampled(x, *places), tolerance=1e-4)
    options["half_pixel_centers"] = not align
    check(lambda mb, x: mb.upsample_bilinear(x=x, **options), x, expected=sampled(x, *places), tolerance=1e-4)


@settings(max_examples=12)
@given(side=st.integers(2, 40), by=st.sampled_from([0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.3, 2.5]))
def test_factors_with_a_fraction_give_the_size_that_coremltools_declares(side: int, by: float) -> None:
    """coremltools multiplies in single precision: 0.7 * 10 is 7, which in double precision it just is not."""
    x = numbers(0, 1, side, side)
    wanted = int(np.floor(np.float32(by) * side))
    places = grid(side, wanted, False)
    check(
        lambda mb, x: mb.upsample_bilinear(
            x=x, scale_factor_height=np.float32(by), scale_factor_width=np.float32(by), align_corners=False
        ),
        x,
        expected=sampled(x, places, places),
        tolerance=1e-4,
    )


@settings(max_examples=12)
@given(
    seed=seeds,
    align=flags,
    sides=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    wanted=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_pictures_are_resized_to_a_size(
    seed: int, align: bool, sides: tuple[int, int], wanted: tuple[int, int]
) -> None:
    x = numbers(seed, 1, 2, *sides)
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS"
    places = [grid(side, to, align) for side, to in zip(sides, wanted, strict=True)]
    check(
        lambda mb, x: mb.resize_bilinear(
            x=x, target_size_height=wanted[0], target_size_width=wanted[1], sampling_mode=mode
        ),
        x,
        expected=sampled(x, *places),
        tolerance=1e-4,
    )


@few
@given(seed=seeds, tall=st.integers(1, 3), wide=st.integers(1, 3))
def test_pictures_grow_by_repeating_their_pixels(seed: int, tall: int, wide: int) -> None:
    x = numbers(seed, 1, 2, 3, 4)
    check(
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=tall, scale_factor_width=wide),
        x,
        expected=x.repeat(tall, -2).repeat(wide, -1),
    )


def test_sampling_that_is_not_known_is_refused() -> None:
    with pytest.raises(ProgramError, match="sampling_mode 'DEFAULT' is not supported"):
        interpret(lambda mb, x: mb.resize_bilinear(x=x, target_size_height=2), numbers(0, 1, 1, 4, 4))


# -- eight bits


@few
@given(seed=seeds, dtype=st.sampled_from(["int8", "uint8"]), axis=st.sampled_from([None, 0, 1, -1]), shifted=flags)
def test_numbers_become_eight_bits_and_numbers_again(seed: int, dtype: str, axis: int | None, shifted: bool) -> None:
    x = numbers(seed, 3, 4, low=-40, high=40)
    count = () if axis is None else (x.shape[axis],)
    scale = numbers(seed + 1, *count, low=0.1, high=0.4)
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[dtype]
    zero = whole(seed + 2, *count, low=low // 8, high=high // 8).astype(dtype) if shifted else None
    options: dict[str, Any] = {"scale": scale}
    if axis is not None:
        options["axis"] = np.int32(axis)
    if zero is not None:
        options["zero_point"] = zero
    by, offset = (v if axis is None else along(v, 2, axis) for v in (scale, np.zeros(()) if zero is None else zero))
    steps = np.clip(np.round(x / by) + offset, low, high)

    def there(mb: Any, x: Any) -> Any:
        return mb.quantize(input=x, output_dtype=dtype, **options)

    (answer,) = interpret(there, x, system="iOS17")
    (folded,) = fold(there, x, system="iOS17")
    np.testing.assert_array_equal(answer, steps)
    np.testing.assert_array_equal(folded, steps)
    check(
        lambda mb, x: mb.dequantize(input=there(mb, x), **options),
        x,
        expected=(steps - offset) * by,
        system="iOS17",
        tolerance=1e-4,
    )
