"""Functions of one number or two: against their definitions in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_draws import along, few, numbers, seeds, shapes, whole
from mil_programs import Array, check, interpret

from edgesam_mobile.runtime.coreml.ops import OPS
from edgesam_mobile.runtime.coreml.types import ProgramError

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
