"""Constants that are stored compressed: what becomes of them here and in coremltools."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import Array, decompress, interpret

from edgesam_mobile.runtime.coreml.ops import OPS
from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError, to_torch, unpack

few = settings(max_examples=10)
seeds = st.integers(0, 2**32 - 1)
flags = st.booleans()
floats = st.sampled_from([np.float16, np.float32])
# Of ten elements and more, coremltools writes a constant to the weight file; of fewer, into the program.
shapes = st.sampled_from([(3,), (2, 4), (4, 6), (4, 2, 6), (2, 4, 3, 2)])
PACKED = [name for name, kind in DTYPES.items() if kind.bits < 8]


def packed(values: Any, name: str) -> Array:
    """Whole numbers with the element type that coremltools knows by this name."""
    if name in ("int8", "uint8"):
        return np.asarray(values, name)
    from coremltools.converters.mil.mil import types

    return np.asarray(values).astype(getattr(types, f"np_{name}_dtype"))


def some(seed: int, name: str, shape: Sequence[int]) -> Array:
    """Numbers of an element type, its extremes included."""
    bits = DTYPES[name].bits
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if name.startswith("int") else (0, (1 << bits) - 1)
    values = np.random.default_rng(seed).integers(low, high, shape, endpoint=True)
    values.flat[:2] = [low, high][: values.size]
    return packed(values, name)


def real(seed: int, shape: Sequence[int], dtype: Any) -> Array:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(dtype)


def parts(data: st.DataObject, shape: Sequence[int]) -> list[int]:
    """How many blocks along each side; they divide it."""
    return [data.draw(st.sampled_from([n for n in range(1, side + 1) if side % n == 0])) for side in shape]


def pack(values: Sequence[int], bits: int) -> bytes:
    """One long little-endian number."""
    number = sum((int(value) % (1 << bits)) << (bits * place) for place, value in enumerate(values))
    return number.to_bytes(-(-bits * len(values) // 8), "little")


def assert_decompresses(body: Any, system: str) -> None:
    (answer,) = interpret(body, system=system)
    expected = decompress(body, system)
    assert answer.shape == expected.shape
    tolerance = 2e-3 if expected.dtype == np.float16 else 1e-6  # coremltools computes in the type of the result
    np.testing.assert_allclose(answer, expected.astype(np.float64), rtol=tolerance, atol=tolerance)


# -- element types


@pytest.mark.parametrize("name", PACKED)
@given(data=st.data())
def test_elements_smaller_than_a_byte_are_packed_from_its_low_end(name: str, data: st.DataObject) -> None:
    bits = DTYPES[name].bits
    low = -(1 << bits - 1) if name.startswith("int") else 0
    values = data.draw(st.lists(st.integers(low, low + (1 << bits) - 1), max_size=30))
    assert unpack(pack(values, bits), name, len(values)).tolist() == values


@pytest.mark.parametrize("name", DTYPES)
def test_elements_that_do_not_fill_their_bytes_are_refused(name: str) -> None:
    for length in (0, 5, 7, 100):
        with pytest.raises(ProgramError, match=f"3 elements of {name} do not take {length} bytes"):
            unpack(bytes(length), name, 3)


@pytest.mark.parametrize("name", DTYPES)
def test_every_element_type_keeps_its_values(name: str) -> None:
    stored = np.array([0, 1, 1], DTYPES[name].stored)
    tensor = to_torch(stored, name, (3, 1))
    assert tensor.dtype == DTYPES[name].torch
    assert tensor.tolist() == [[0], [1], [1]]


# -- iOS 16


@few
@given(seed=seeds, shape=shapes, name=st.sampled_from(["int8", "uint8"]), dtype=floats, vector=flags, data=st.data())
def test_affine_constants_have_a_scale_and_zero_for_the_whole_or_along_an_axis(
    seed: int, shape: tuple[int, ...], name: str, dtype: Any, vector: bool, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    count = (shape[axis],) if vector else ()
    values = {
        "quantized_data": some(seed, name, shape),
        "zero_point": some(seed + 1, name, (shape[axis],))[() if vector else 0],
        "scale": real(seed + 2, count, dtype)[()],
    }
    assert_decompresses(lambda mb: mb.constexpr_affine_dequantize(**values, axis=np.int32(axis)), "iOS16")


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
@few
@given(seed=seeds, shape=shapes, dtype=floats)
def test_palettes_of_ios_16_have_packed_indices(bits: int, seed: int, shape: tuple[int, ...], dtype: Any) -> None:
    places = np.random.default_rng(seed).integers(0, 1 << bits, prod(shape))
    indices = np.frombuffer(pack(places.tolist(), bits), np.uint8)
    lut = real(seed, (1 << bits,), dtype)

    def body(mb: Any) -> Any:
        return mb.constexpr_lut_to_dense(indices=indices, lut=lut, shape=np.array(shape, np.uint32))

    assert_decompresses(body, "iOS16")
    (answer,) = interpret(body)
    np.testing.assert_array_equal(answer, lut[places].reshape(shape))


@few
@given(seed=seeds, shape=shapes, dtype=floats, share=st.sampled_from([0.0, 0.5, 1.0]))
def test_sparse_constants_of_ios_16_have_a_packed_mask(
    seed: int, shape: tuple[int, ...], dtype: Any, share: float
) -> None:
    kept = np.random.default_rng(seed).uniform(size=prod(shape)) < share
    kept[0] = True
    values = real(seed, (int(kept.sum()),), dtype)
    mask = np.packbits(kept, bitorder="little")

    def body(mb: Any) -> Any:
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, shape=np.array(shape, np.uint32))

    dense = np.zeros(prod(shape), dtype)
    dense[kept] = values
    (answer,) = interpret(body)
    np.testing.assert_array_equal(answer, dense.reshape(shape))
    if len(kept) % 8 == 0:  # coremltools trips over the bits behind the last element
        assert_decompresses(body, "iOS16")


@pytest.mark.parametrize("system", ["iOS16", "iOS18"])
@pytest.mark.parametrize("count", [3, 12])
def test_half_precision_constants_become_single_precision(system: str, count: int) -> None:
    value = real(count, (count,), np.float16)
    assert_decompresses(lambda mb: mb.constexpr_cast(source_val=value, output_dtype="fp32"), system)


# -- iOS 18


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
@few
@given(seed=seeds, shape=shapes, dtype=floats, offset=st.sampled_from(["none", "same", "float"]), data=st.data())
def test_blocks_of_a_constant_have_a_scale_and_an_offset_each(
    name: str, seed: int, shape: tuple[int, ...], dtype: Any, offset: str, data: st.DataObject
) -> None:
    blocks = parts(data, shape)
    values = {"data": some(seed, name, shape), "scale": real(seed + 1, blocks, dtype)}
    if offset != "none":
        values["offset"] = some(seed + 2, name, blocks) if offset == "same" else real(seed + 2, blocks, dtype)
    assert_decompresses(lambda mb: mb.constexpr_blockwise_shift_scale(**values), "iOS18")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@few
@given(seed=seeds, shape=shapes, dtype=floats, size=st.integers(1, 3), data=st.data())
def test_palettes_of_ios_18_hold_numbers_or_vectors_for_each_block(
    bits: int, seed: int, shape: tuple[int, ...], dtype: Any, size: int, data: st.DataObject
) -> None:
    values = {
        "indices": some(seed, f"uint{bits}", shape),
        "lut": real(seed, (*parts(data, shape), 1 << bits, size), dtype),
    }
    if size > 1 or data.draw(flags):
        values["vector_axis"] = np.int32(data.draw(st.integers(-len(shape), len(shape) - 1)))
    assert_decompresses(lambda mb: mb.constexpr_lut_to_dense(**values), "iOS18")


def test_the_documented_palettes_give_the_documented_constants() -> None:
    """The examples of Apple's reference: two tables along the first axis, then vectors along the second and third."""
    indices = packed([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], "uint2")
    lut = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float16).reshape(2, 1, 4, 1)
    (answer,) = interpret(lambda mb: mb.constexpr_lut_to_dense(indices=indices, lut=lut), system="iOS18")
    assert answer.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]
    indices = packed([[[0, 0], [1, 0]], [[1, 1], [0, 0]]], "uint1")
    lut = np.array([[10, 11, 12], [20, 21, 22]], np.float32).reshape(1, 1, 1, 2, 3)
    for axis, expected in (
        (1, [[10, 10], [11, 11], [12, 12], [20, 10], [21, 11], [22, 12]]),
        (2, [[10, 11, 12, 10, 11, 12], [20, 21, 22, 10, 11, 12]]),
    ):
        (answer,) = interpret(
            lambda mb, a=axis: mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=np.int32(a)),
            system="iOS18",
        )
        assert answer[0].tolist() == expected


def sparse(seed: int, shape: Sequence[int]) -> tuple[Array, int]:
    """A mask, and how many of its bits are set."""
    kept = np.random.default_rng(seed).integers(0, 2, shape)
    kept.flat[0] = 1
    return packed(kept, "uint1"), int(kept.sum())


@few
@given(seed=seeds, shape=shapes, dtype=floats)
def test_sparse_constants_of_ios_18_have_a_mask_with_a_shape(seed: int, shape: tuple[int, ...], dtype: Any) -> None:
    mask, count = sparse(seed, shape)
    values = real(seed, (count,), dtype)
    assert_decompresses(lambda mb: mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask), "iOS18")


@pytest.mark.parametrize("bits", [1, 4, 8])
@few
@given(seed=seeds, shape=shapes, dtype=floats, size=st.integers(1, 2), data=st.data())
def test_sparse_palettes_become_sparse_constants(
    bits: int, seed: int, shape: tuple[int, ...], dtype: Any, size: int, data: st.DataObject
) -> None:
    mask, count = sparse(seed, shape)
    values = {"indices_mask": mask, "indices_nonzero_data": some(seed, f"uint{bits}", (count,))}
    values["lut"] = real(seed, (*parts(data, shape), 1 << bits, size), dtype)
    if size > 1:
        values["vector_axis"] = np.int32(data.draw(st.integers(-len(shape), len(shape) - 1)))

    def body(mb: Any) -> Any:
        grown, numbers = mb.constexpr_lut_to_sparse(**values)
        return mb.constexpr_sparse_to_dense(nonzero_data=numbers, mask=grown)

    assert_decompresses(body, "iOS18")


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
@few
@given(seed=seeds, shape=shapes, dtype=floats, shifted=flags, data=st.data())
def test_blocks_of_a_sparse_constant_have_a_scale_and_an_offset_each(
    name: str, seed: int, shape: tuple[int, ...], dtype: Any, shifted: bool, data: st.DataObject
) -> None:
    mask, count = sparse(seed, shape)
    blocks = parts(data, shape)
    values = {"data_mask": mask, "nonzero_data": some(seed, name, (count,)), "scale": real(seed, blocks, dtype)}
    if shifted:
        values["offset"] = some(seed + 1, name, blocks)

    def body(mb: Any) -> Any:
        kept, numbers = mb.constexpr_sparse_blockwise_shift_scale(**values)
        return mb.constexpr_sparse_to_dense(nonzero_data=numbers, mask=kept)

    assert_decompresses(body, "iOS18")


@few
@given(seed=seeds, shape=shapes, dtype=floats, data=st.data())
def test_a_palette_of_eight_bit_numbers_is_scaled(
    seed: int, shape: tuple[int, ...], dtype: Any, data: st.DataObject
) -> None:
    indices, scale = some(seed, "uint2", shape), real(seed, parts(data, shape), dtype)
    lut = some(seed, "int8", (*[1] * len(shape), 4, 1))

    def body(mb: Any) -> Any:
        numbers = mb.constexpr_lut_to_dense(indices=indices, lut=lut)
        return mb.constexpr_blockwise_shift_scale(data=numbers, scale=scale)

    assert_decompresses(body, "iOS18")


@pytest.mark.parametrize("system", ["iOS16", "iOS18"])
def test_constants_of_half_precision_are_rounded_where_a_device_would(system: str) -> None:
    data, scale = some(0, "int8", (4, 5)), np.float16(1 / 3)

    def body(mb: Any) -> Any:
        if system == "iOS16":
            zero = np.int8(0)
            return mb.constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=np.int32(0))
        return mb.constexpr_blockwise_shift_scale(data=data, scale=scale.reshape(1, 1))

    rounded = decompress(body, system)
    assert rounded.dtype == np.float16
    (answer,) = interpret(body, system=system, mode="device-like")
    np.testing.assert_array_equal(answer, rounded)
    (answer,) = interpret(body, system=system)
    np.testing.assert_array_equal(answer, data * np.float32(scale))


# -- what does not fit


def test_parts_that_do_not_fit_each_other_are_refused() -> None:
    data, table = torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(1, 1, 4, 1)
    vast = data[0, :1].expand(1 << 29)  # half a GiB as bytes, 2 GiB as the numbers that they stand for
    cases: list[tuple[str, dict[str, Any], str]] = [
        (
            "constexpr_affine_dequantize",
            {"quantized_data": data, "zero_point": torch.zeros(2), "scale": torch.ones(3), "axis": 1},
            r"\[2\] values do not fit axis 1 of \[2, 3\]",
        ),
        ("constexpr_blockwise_shift_scale", {"data": data, "scale": torch.ones(2, 2)}, "do not divide"),
        ("constexpr_blockwise_shift_scale", {"data": data, "scale": torch.ones(3)}, "do not divide"),
        ("constexpr_blockwise_shift_scale", {"data": data, "scale": torch.ones(0, 1)}, "do not divide"),
        ("constexpr_lut_to_dense", {"indices": data + 4, "lut": table}, "indices 4 to 4 into a table of 4"),
        ("constexpr_lut_to_dense", {"indices": data, "lut": table[0]}, "do not divide"),
        ("constexpr_lut_to_dense", {"indices": data, "lut": table.expand(1, 2, 4, 1)}, "do not divide"),
        ("constexpr_lut_to_dense", {"indices": data, "lut": table.expand(1, 1, 4, 2)}, "no vector_axis"),
        ("constexpr_lut_to_dense", {"indices": data[0], "lut": torch.ones(3), "shape": [3]}, "a table of 3 values"),
        ("constexpr_lut_to_dense", {"indices": data[0], "lut": torch.ones(4), "shape": [40]}, "do not take 3 bytes"),
        ("constexpr_lut_to_dense", {"indices": data[0], "lut": torch.ones(4), "shape": [1 << 32]}, "more than 1 GiB"),
        ("constexpr_sparse_to_dense", {"nonzero_data": torch.ones(1), "mask": data}, "1 values for a mask with 0"),
        ("constexpr_sparse_to_dense", {"nonzero_data": torch.ones(1, 1), "mask": data + 1}, "1 values for a mask"),
        ("constexpr_sparse_to_dense", {"nonzero_data": data[0], "mask": data[0], "shape": [1 << 32]}, "1 GiB"),
        ("constexpr_sparse_to_dense", {"nonzero_data": torch.ones(0), "mask": vast}, "more than 1 GiB"),
        ("constexpr_blockwise_shift_scale", {"data": vast, "scale": torch.ones(1)}, "more than 1 GiB"),
        (
            "constexpr_affine_dequantize",
            {"quantized_data": vast, "zero_point": torch.tensor(0), "scale": torch.tensor(1), "axis": 0},
            "more than 1 GiB",
        ),
        ("constexpr_cast", {"source_val": torch.ones(1), "output_dtype": "fp16"}, "cast to 'fp16'"),
    ]
    for name, arguments, reason in cases:
        with pytest.raises(ProgramError, match=reason):
            OPS[name](**arguments)
