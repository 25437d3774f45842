"""Numbers stay what they are: other shapes, orders, parts and repetitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, refuse
from edgesam_mobile.runtime.coreml.types import ProgramError

OPS = Family()


@OPS
def reshape(x: Tensor, shape: list[int]) -> Tensor:
    if 0 in shape and len(shape) != x.dim():
        raise ProgramError(f"reshape of {list(x.shape)} to {shape}: a 0 needs the same rank")
    return x.reshape([side or x.shape[place] for place, side in enumerate(shape)])


@OPS
def transpose(x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


@OPS
def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@OPS
def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    if axes is None:
        return x.squeeze()
    places = [a % x.dim() for a in axes]
    if any(x.shape[place] != 1 for place in places):
        raise ProgramError(f"squeeze of {list(x.shape)} along {places}")
    return x.squeeze(places)


@OPS
def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    rank = x.dim()
    steps = stride or [1] * rank
    open_first, open_last, single = (mask or [False] * rank for mask in (begin_mask, end_mask, squeeze_mask))
    if any(len(each) != rank for each in (begin, end, steps, open_first, open_last, single)):
        raise ProgramError(f"slice of rank {rank} by {len(begin)} indices")
    places: list[slice | int] = []
    for side in range(rank):
        if single[side]:
            places.append(0 if open_first[side] else begin[side])
            continue
        if steps[side] < 0:
            raise refuse("negative stride", steps[side])
        first, last = (None if open_first[side] else begin[side]), (None if open_last[side] else end[side])
        places.append(slice(first, last, steps[side]))
    return x[tuple(places)]


@OPS
def slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    for side, (first, length) in enumerate(zip(begin, size, strict=True)):
        start = first % x.shape[side] if first < 0 else first
        x = x.narrow(side, start, x.shape[side] - start if length == -1 else length)
    return x


@OPS
def crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    for side, (before, after) in ((-2, crop_height), (-1, crop_width)):
        x = x.narrow(side, before, x.shape[side] - before - after)
    return x


@OPS
def concat(values: tuple[Tensor, ...], axis: int, interleave: bool = False) -> Tensor:
    if interleave:
        raise refuse("interleave", True)
    return torch.cat(values, axis)


@OPS
def stack(values: tuple[Tensor, ...], axis: int) -> Tensor:
    return torch.stack(values, axis)


@OPS
def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes, axis)
    if not num_splits or num_splits < 1 or x.shape[axis] % num_splits:
        raise ProgramError(f"split of {x.shape[axis]} into {num_splits} parts")
    return torch.split(x, x.shape[axis] // num_splits, axis)


@OPS
def pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    if len(pad) % 2 or len(pad) > 2 * x.dim() or min(pad, default=0) < 0:
        raise ProgramError(f"pad by {pad}")
    # Pairs are of the last sides, outermost first; torch wants the innermost first.
    pairs = [n for pair in reversed(list(zip(pad[::2], pad[1::2], strict=True))) for n in pair]
    if mode == "constant":
        return F.pad(x, pairs, value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise refuse("mode", mode)
    # Place by place: torch pads a few combinations of ranks and sides only.
    for side, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=x.dim() - len(pad) // 2):
        last = x.shape[side] - 1
        if max(before, after) > last + (mode == "replicate"):
            raise ProgramError(f"pad by {before} and {after} of {last + 1}")
        places = torch.arange(-before, last + 1 + after, device=x.device)
        places = last - (last - places.abs()).abs() if mode == "reflect" else places.clamp(0, last)
        x = x.index_select(side, places)
    return x


@OPS
def tile(x: Tensor, reps: list[int]) -> Tensor:
    return x.repeat(reps)


@OPS
def reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.flip(list(range(x.dim())) if axes is None else axes)


@OPS
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    rows = 1
    for side in x.shape[: axis if axis >= 0 else x.dim() + axis]:
        rows *= side
    return x.reshape(rows, -1)


@OPS
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@OPS
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@OPS
def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


@OPS
def fill(shape: list[int], value: Tensor | None = None) -> Tensor:
    return (torch.zeros([]) if value is None else value.reshape([])).expand(shape)


@OPS
def gather(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = True,  # noqa: ARG001  here they always are
) -> Tensor:
    if batch_dims:
        raise refuse("batch_dims", batch_dims)
    along = axis % x.dim()
    flat = x.index_select(along, _from_end(indices, x.shape[along]).reshape(-1))
    return flat.reshape(*x.shape[:along], *indices.shape, *x.shape[along + 1 :])


@OPS
def gather_along_axis(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    validate_indices: bool = True,  # noqa: ARG001
) -> Tensor:
    along = axis % x.dim()
    return x.gather(along, _from_end(indices, x.shape[along]))


def _from_end(indices: Tensor, length: int) -> Tensor:
    """Negative indices count from the end."""
    wide = indices.long()
    return torch.where(wide < 0, wide + length, wide)
