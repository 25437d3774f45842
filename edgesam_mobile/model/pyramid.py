"""The feature pyramid of the granularity prior: EfficientDet's BiFPN (arXiv 1911.09070, section 3), 64 channels.

What differs from the paper, for the sake of phones: coarse maps are enlarged bilinearly, which is what the encoder
does too, where XNNPACK has no nearest neighbour; maps shrink by 2 x 2 maxima that do not overlap and so need no
padding. One lateral convolution a stage serves all its uses, and the two coarsest levels are maxima of the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.model.layers import ConvNorm

LEVELS = 5


def depthwise(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of each channel alone: the first half of a separable convolution."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


class Fusion(nn.Module):
    """Maps of one size added by learned shares ("fast normalised fusion"), then SiLU and a separable convolution."""

    def __init__(self, width: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))
        self.depthwise = depthwise(width)
        self.pointwise = ConvNorm(width, width)

    def forward(self, *maps: Tensor) -> Tensor:
        weight = F.relu(self.weight)
        shares = (weight / (weight.sum() + 1e-4)).unbind()
        y: Tensor = self.pointwise(self.depthwise(F.silu(_weighted(shares, maps))))
        return y

    def fused(self) -> FixedFusion:
        return FixedFusion(self)


class FixedFusion(nn.Module):
    """:class:`Fusion` for inference: shares are plain numbers, the batch norm is folded."""

    def __init__(self, source: Fusion) -> None:
        super().__init__()
        weight = F.relu(source.weight.detach())
        self.shares: list[float] = (weight / (weight.sum() + 1e-4)).tolist()
        self.depthwise = source.depthwise
        self.pointwise = source.pointwise.fused()

    def forward(self, *maps: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(F.silu(_weighted(self.shares, maps))))
        return y


class FusionRound(nn.Module):
    """Once down from coarse to fine and once back up, each map fused with its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(Fusion(width, 2) for _ in range(LEVELS - 1))
        self.up = nn.ModuleList([*(Fusion(width, 3) for _ in range(LEVELS - 2)), Fusion(width, 2)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all levels, the finest first, to as many of the same shapes."""
        passed = [maps[-1]]
        for fine, fuse in zip(reversed(maps[:-1]), self.down, strict=True):
            coarse = F.interpolate(passed[0], scale_factor=2.0, mode="bilinear", align_corners=False)
            passed.insert(0, fuse(fine, coarse))
        done = [passed[0]]
        for level, fuse in enumerate(self.up, 1):
            # The coarsest map was passed on unchanged and would otherwise count twice.
            own = (maps[level], passed[level]) if level < LEVELS - 1 else (maps[level],)
            done.append(fuse(*own, _halved(done[-1])))
        return done


class Pyramid(nn.Module):
    """Three maps of an encoder's stages to five of ``width`` channels, each half as fine as the one before."""

    def __init__(self, in_chs: Sequence[int], width: int, rounds: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(channels, width) for channels in in_chs)
        self.rounds = nn.Sequential(*(FusionRound(width) for _ in range(rounds)))

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        maps = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        while len(maps) < LEVELS:
            maps.append(_halved(maps[-1]))
        done: list[Tensor] = self.rounds(maps)
        return done


def _weighted(shares: Sequence[Any], maps: Sequence[Tensor]) -> Tensor:
    total: Tensor = maps[0] * shares[0]
    for share, other in zip(shares[1:], maps[1:], strict=True):
        total = total + other * share
    return total


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2)  # coremltools wants the stride in full
