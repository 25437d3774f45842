"""Numbers to eight bits and back while the program runs (iOS 17 and later)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, axis_vector, refuse
from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError

OPS = Family()
_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def _axis(scale: Tensor, axis: int | None) -> int:
    if axis is None and scale.dim() > 0:
        raise ProgramError("scales in a vector, and no axis that says along what")
    return axis or 0  # of a single scale, any will do


@OPS
def quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero_point)."""
    if output_dtype not in _RANGES:
        raise refuse("output_dtype", output_dtype)
    along = _axis(scale, axis)
    steps = torch.round(input / axis_vector(scale, input, along))
    if zero_point is not None:
        steps = steps + axis_vector(zero_point, input, along)
    return steps.clamp(*_RANGES[output_dtype]).to(DTYPES[output_dtype].torch)


@OPS
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    """scale * (input - zero_point)."""
    along = _axis(scale, axis)
    steps = input.to(torch.float32)
    if zero_point is not None:
        steps = steps - axis_vector(zero_point, input, along)
    return steps * axis_vector(scale, input, along)
