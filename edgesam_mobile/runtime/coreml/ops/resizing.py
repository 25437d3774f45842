"""Pictures and maps at other sizes: the last two sides."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, refuse

OPS = Family()


def _resize(x: Tensor, size: tuple[int, int], mode: str, align_corners: bool | None = None) -> Tensor:
    channels = x.reshape(1, -1, *x.shape[-2:])
    return F.interpolate(channels, size, mode=mode, align_corners=align_corners).reshape(*x.shape[:-2], *size)


def _scaled(x: Tensor, height: float, width: float) -> tuple[int, int]:
    # In single precision, as coremltools declares the size: 0.7 * 10 is 7 there, in double precision just below it.
    return int(np.floor(x.shape[-2] * np.float32(height))), int(np.floor(x.shape[-1] * np.float32(width)))


@OPS
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    # With corners aligned, centres of pixels play no part; otherwise they are what `half_pixel_centers` stands for.
    if half_pixel_centers is not None and half_pixel_centers == align_corners:
        raise refuse(f"with align_corners {align_corners}, half_pixel_centers", half_pixel_centers)
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return _resize(x, size, "bilinear", align_corners)


@OPS
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    return _resize(x, _scaled(x, scale_factor_height, scale_factor_width), "nearest")


@OPS
def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    aligned = {"STRICT_ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}
    if sampling_mode not in aligned:
        raise refuse("sampling_mode", sampling_mode)
    return _resize(x, (target_size_height, target_size_width), "bilinear", aligned[sampling_mode])
