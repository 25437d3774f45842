"""Convolutions and products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, refuse
from edgesam_mobile.runtime.coreml.program import check_size
from edgesam_mobile.runtime.coreml.types import ProgramError

OPS = Family()
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def padding(pad_type: str, pad: list[int] | None, kernel: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """Cells before and after, of each spatial side; ``kernel`` counts its dilation."""
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        both = pad if pad is not None else [0] * (2 * len(kernel))
        if len(both) != 2 * len(kernel):
            raise ProgramError(f"pad has {len(both)} values for {len(kernel)} sides")
        return list(zip(both[::2], both[1::2], strict=True))
    # For `same`, the documented amounts do not depend on the stride, the documented output does. They agree for odd
    # kernels at stride 1.
    if pad_type in ("same", "same_lower") and all(k % 2 for k in kernel) and set(strides) == {1}:
        return [(k // 2, k // 2) for k in kernel]
    raise refuse("with these sides, pad_type", pad_type)


@OPS
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    rank = x.dim() - 2
    if rank not in _CONVOLUTIONS:
        raise ProgramError(f"a convolution over {rank} sides")
    steps = strides or [1] * rank
    spread = dilations or [1] * rank
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], spread, strict=True)]
    amounts = padding(pad_type, pad, kernel, steps)
    if all(before == after for before, after in amounts):
        around = [before for before, _ in amounts]
    else:
        x, around = F.pad(x, [n for pair in reversed(amounts) for n in pair]), [0] * rank
        check_size("fp32", tuple(x.shape))  # strides may make little of it
    return _CONVOLUTIONS[rank](x, weight, bias, steps, around, spread, groups)


@OPS
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    rank = x.dim() - 2
    if rank not in _TRANSPOSED:
        raise ProgramError(f"a convolution over {rank} sides")
    if pad_type not in ("valid", "custom"):
        raise refuse("pad_type", pad_type)
    steps = strides or [1] * rank
    spread = dilations or [1] * rank
    full = _TRANSPOSED[rank](x, weight, bias, steps, 0, 0, groups, spread)
    check_size("fp32", tuple(full.shape))  # padding may leave little of it
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], spread, strict=True)]
    amounts = padding(pad_type, pad, kernel, steps)
    for side, (before, after) in enumerate(amounts, start=2):
        full = full.narrow(side, before, full.shape[side] - before - after)
    if output_shape is not None and output_shape != list(full.shape):
        raise refuse("with this padding, output_shape", output_shape)
    return full


@OPS
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


@OPS
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    left = x.transpose(-1, -2) if transpose_x else x
    right = y.transpose(-1, -2) if transpose_y else y
    if left.dim() > 2 or right.dim() > 2:
        repeats = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])  # type: ignore[no-untyped-call]
        for operand in (left, right):
            check_size("fp32", (*repeats, *operand.shape[-2:]))  # torch copies what it repeats
    return torch.matmul(left, right)


@OPS
def einsum(values: tuple[Tensor, ...], equation: str) -> Tensor:
    if len(values) != 2:  # more might make anything in between
        raise ProgramError(f"einsum of {len(values)} tensors, not of two")
    return torch.einsum(equation, *values)


@OPS
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    check_size("fp32", (*query.shape[:-1], key.shape[-2]))  # the scores
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
