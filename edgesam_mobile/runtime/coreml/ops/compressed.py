"""Constants that are stored compressed, and become plain ones before a program runs."""

from __future__ import annotations

from math import log2, prod

import numpy as np
import torch
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, axis_vector
from edgesam_mobile.runtime.coreml.program import check_size
from edgesam_mobile.runtime.coreml.types import ProgramError, unpack

OPS = Family()


@OPS
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """scale * (data - zero point), both of them for the whole or along one axis (iOS 16)."""
    check_size("fp32", tuple(quantized_data.shape))
    steps = quantized_data.to(torch.float32) - axis_vector(zero_point.to(torch.float32), quantized_data, axis)
    return steps * axis_vector(scale, quantized_data, axis)


@OPS
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), with one of each for every block (iOS 18)."""
    check_size("fp32", tuple(data.shape))
    steps = data.to(torch.float32)
    if offset is not None:
        steps = steps - _blocks(offset.to(torch.float32), data.shape)
    return steps * _blocks(scale, data.shape)


@OPS
def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    """Values from a table: one (iOS 16, with packed indices and a shape), or one for every block (iOS 18)."""
    if shape is not None:
        sides = tuple(shape)
        check_size("fp32", sides)
        bits = int(log2(max(lut.numel(), 1)))
        if lut.numel() != 1 << bits or not bits:
            raise ProgramError(f"a table of {lut.numel()} values")
        if bits == 8:
            places = indices.reshape(-1).long()
        else:
            places = torch.from_numpy(unpack(indices.numpy().tobytes(), f"uint{bits}", prod(sides))).long()
        return lut.reshape(-1)[places].reshape(sides)
    return _from_tables(indices, lut, vector_axis)


@OPS
def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None) -> Tensor:
    """Zeros, and the given values in order where the mask is set (iOS 16: a packed mask and a shape)."""
    if shape is not None:
        sides = tuple(shape)
        check_size("fp32", sides)
        mask = torch.from_numpy(unpack(mask.numpy().tobytes(), "uint1", prod(sides))).reshape(sides)
    return _spread(nonzero_data, mask)


@OPS
def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """The mask, and the values that the indices stand for (iOS 18)."""
    dense = _from_tables(_spread(indices_nonzero_data, indices_mask), lut, vector_axis)
    size = lut.shape[-1]
    if size > 1 and vector_axis is not None:
        indices_mask = indices_mask.repeat_interleave(size, vector_axis)
    return indices_mask, dense[indices_mask != 0]


@OPS
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask, and scale * (data - offset) where it is set (iOS 18)."""
    dense = constexpr_blockwise_shift_scale(_spread(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


@OPS
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """Half precision to single (iOS 16)."""
    if output_dtype != "fp32":
        raise ProgramError(f"a constant cast to {output_dtype!r}")
    return source_val


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    check_size("fp32", tuple(mask.shape))
    where = mask != 0
    if values.dim() != 1 or int(where.sum()) != len(values):
        raise ProgramError(f"{values.numel()} values for a mask with {int(where.sum())} bits set")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[where] = values
    return dense


def _blocks(values: Tensor, shape: torch.Size) -> Tensor:
    """Each value repeated over its block, to ``shape``."""
    if values.dim() != len(shape) or any(not s or n % s for n, s in zip(shape, values.shape, strict=True)):
        raise ProgramError(f"{list(values.shape)} values do not divide {list(shape)} into blocks")
    for side, (whole, parts) in enumerate(zip(shape, values.shape, strict=True)):
        if whole != parts and parts > 1:
            values = values.repeat_interleave(whole // parts, side)
    return values


def _from_tables(indices: Tensor, lut: Tensor, vector_axis: int | None) -> Tensor:
    """``lut``: blocks along every side of ``indices``, then the entries of a table, then the vector of an entry."""
    rank = indices.dim()
    if lut.dim() != rank + 2 or any(not s or n % s for n, s in zip(indices.shape, lut.shape, strict=False)):
        raise ProgramError(f"tables {list(lut.shape)} do not divide indices {list(indices.shape)} into blocks")
    tables, entries, size = lut.shape[:rank], lut.shape[-2], lut.shape[-1]
    check_size("fp32", (*indices.shape, size))
    if size > 1 and vector_axis is None:
        raise ProgramError("vectors in the table, but no vector_axis")
    number = torch.from_numpy(np.arange(prod(tables))).reshape(tables)
    places = _blocks(number, indices.shape).expand(indices.shape) * entries + indices.long()
    if int(indices.max()) >= entries or int(indices.min()) < 0:
        raise ProgramError(f"indices {int(indices.min())} to {int(indices.max())} into a table of {entries}")
    values = lut.reshape(-1, size)[places]
    if size == 1:
        return values.squeeze(-1)
    axis = (vector_axis or 0) % rank
    merged = values.movedim(-1, axis + 1)
    return merged.flatten(axis, axis + 1)
