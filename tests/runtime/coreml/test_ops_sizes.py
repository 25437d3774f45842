"""Pictures at other sizes, and eight bits: against definitions in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_draws import along, few, flags, numbers, seeds, whole
from mil_programs import Array, check, fold, interpret

from edgesam_mobile.runtime.coreml.types import ProgramError


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
