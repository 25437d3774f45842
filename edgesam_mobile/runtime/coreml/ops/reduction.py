"""Many numbers to one: sums, means and extremes along axes, and pooling."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, refuse
from edgesam_mobile.runtime.coreml.ops.linear import padding
from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError

OPS = Family()


def _along(compute: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def operation(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        every = list(range(x.dim())) if axes is None else axes
        return compute(x, every, keep_dims).to(x.dtype)

    return operation


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


OPS["reduce_mean"] = _along(lambda x, axes, keep: x.mean(axes, keepdim=keep))
OPS["reduce_sum"] = _along(lambda x, axes, keep: x.sum(axes, keepdim=keep))
OPS["reduce_max"] = _along(lambda x, axes, keep: x.amax(axes, keepdim=keep))
OPS["reduce_min"] = _along(lambda x, axes, keep: x.amin(axes, keepdim=keep))
OPS["reduce_prod"] = _along(_product)
OPS["reduce_sum_square"] = _along(lambda x, axes, keep: x.square().sum(axes, keepdim=keep))
OPS["reduce_l1_norm"] = _along(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep))
OPS["reduce_l2_norm"] = _along(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt())
OPS["reduce_log_sum"] = _along(lambda x, axes, keep: x.sum(axes, keepdim=keep).log())
OPS["reduce_log_sum_exp"] = _along(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep))


def _place(x: Tensor, axis: int, keep_dims: bool, output_dtype: str, largest: bool) -> Tensor:
    if output_dtype not in DTYPES:
        raise refuse("output_dtype", output_dtype)
    found = torch.argmax if largest else torch.argmin
    return found(x, axis, keepdim=keep_dims).to(DTYPES[output_dtype].torch)


@OPS
def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return _place(x, axis, keep_dims, output_dtype, largest=True)


@OPS
def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return _place(x, axis, keep_dims, output_dtype, largest=False)


@OPS
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    turned = x.flip(axis) if reverse else x
    total = turned.cumsum(axis, dtype=x.dtype)
    if exclusive:
        total = total - turned
    return total.flip(axis) if reverse else total


@OPS
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,  # noqa: ARG001  any order will do where it is false
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    if output_indices_dtype not in DTYPES:
        raise refuse("output_indices_dtype", output_indices_dtype)
    values, places = torch.topk(x, k, axis, largest=not ascending)
    return (values, places.to(DTYPES[output_indices_dtype].torch)) if return_indices else (values,)


_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _windows(
    x: Tensor, kernel: list[int], strides: list[int] | None, pad_type: str, pad: list[int] | None
) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and (the same before and after) padding of a pooling."""
    if x.dim() - 2 not in _LARGEST:
        raise ProgramError(f"pooling over {x.dim() - 2} sides")
    steps = strides or [1] * len(kernel)
    amounts = padding(pad_type, pad, kernel, steps)
    if any(before != after for before, after in amounts):
        raise refuse("uneven pad", amounts)
    return kernel, steps, [before for before, _ in amounts]


@OPS
def max_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str,
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    windows = _windows(x, kernel_sizes, strides, pad_type, pad)
    return _LARGEST[x.dim() - 2](x, *windows, ceil_mode=ceil_mode)


@OPS
def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str,
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    if ceil_mode:  # by what a window beyond the end is divided is not documented
        raise refuse("of averages, ceil_mode", ceil_mode)
    windows = _windows(x, kernel_sizes, strides, pad_type, pad)
    return _MEAN[x.dim() - 2](x, *windows, count_include_pad=not exclude_padding_from_average)
