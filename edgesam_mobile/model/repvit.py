"""EdgeSAM's image encoder: RepViT-M1, a two-level fuse, and SAM's neck.

RepViT: "Revisiting Mobile CNN From ViT Perspective", arXiv 2307.09283. EdgeSAM: arXiv 2312.06660, section 3.
Written from the papers and from the shapes of the published checkpoint; no published code was used.
5,517,552 parameters, 20.05 GMAC at 1024 x 1024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.model.layers import ConvNorm, Neck, conv_with, fuse_convolutions


@dataclass(frozen=True)
class RepVitVariant:
    """Widths, depths and, per stage, which blocks carry squeeze-and-excitation (index within the stage)."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    squeeze_excite: tuple[tuple[int, ...], ...]


# Depths count the stride-2 block that opens each stage but the first.
M1 = RepVitVariant(
    dims=(48, 96, 192, 384),
    depths=(3, 4, 16, 3),
    squeeze_excite=((0,), (1,), (1, 3, 5, 7, 9, 11, 13), (1,)),
)
# Not published: every kind of block once, to try training and conversion in minutes on a processor.
TINY = RepVitVariant(dims=(16, 32, 64, 96), depths=(1, 2, 3, 2), squeeze_excite=((0,), (1,), (1,), (1,)))


class RepDepthwise(nn.Module):
    """Three parallel depthwise branches at stride 1: 3x3 + BN, 1x1 + BN, and the input itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, padding=1, groups=channels)
        self.conv1 = ConvNorm(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) + self.conv1(x) + x
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of one 3x3 depthwise convolution, in double precision; gradients pass.

        The 1x1 branch and the identity add to the kernel's centre.
        """
        (wide, bias), (point, more) = self.conv.folded(), self.conv1.folded()
        return wide + F.pad(point + 1.0, (1, 1, 1, 1)), bias + more

    def fused(self) -> nn.Conv2d:
        return conv_with(self.conv.c, *self.folded())


class SqueezeExcite(nn.Module):
    """Channel gate from the global mean: 1x1 convolution, ReLU, 1x1 convolution, sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = -(-channels // 4 // 8) * 8 if channels // 4 % 8 else channels // 4
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        gate = self.fc2(F.relu(self.fc1(gate)))
        y: Tensor = x * gate.sigmoid()
        return y


class Residual(nn.Module):
    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.m(x)
        return y


class RepVitBlock(nn.Module):
    """Token mixer (depthwise, with optional gate) and channel mixer (1x1 expansion by 2, residual)."""

    def __init__(self, in_chs: int, out_chs: int, *, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(in_chs) if squeeze_excite else nn.Identity()
        if stride == 1:
            self.token_mixer = nn.Sequential(RepDepthwise(in_chs), gate)
        else:
            down = ConvNorm(in_chs, in_chs, 3, stride=stride, padding=1, groups=in_chs)
            self.token_mixer = nn.Sequential(down, gate, ConvNorm(in_chs, out_chs))
        expand, project = ConvNorm(out_chs, 2 * out_chs), ConvNorm(2 * out_chs, out_chs)
        nn.init.zeros_(project.bn.weight)
        self.channel_mixer = Residual(nn.Sequential(expand, nn.GELU(), project))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.channel_mixer(self.token_mixer(x))
        return y


class UpsampleAdd(nn.Module):
    """The coarse level of the fuse: 1x1 convolution, then twice the size by interpolation.

    ``upsample`` is ``"bicubic"`` (as EdgeSAM was trained) or ``"bilinear"`` (what Core ML can express).
    """

    def __init__(self, in_chs: int, out_chs: int, upsample: str) -> None:
        super().__init__()
        self.op_list = nn.Sequential(nn.Conv2d(in_chs, out_chs, 1, bias=False))
        self.upsample = upsample

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        coarse = F.interpolate(self.op_list(x), scale_factor=2.0, mode=self.upsample, align_corners=False)
        return fine + coarse


class RepVitEncoder(nn.Module):
    """B x 3 x S x S normalised pictures to B x 256 x S/16 x S/16 embeddings; S is a multiple of 32."""

    def __init__(self, variant: RepVitVariant = M1, *, upsample: str = "bicubic") -> None:
        super().__init__()
        first = variant.dims[0]
        stem = nn.Sequential(
            ConvNorm(3, first // 2, 3, stride=2, padding=1),
            nn.GELU(),
            ConvNorm(first // 2, first, 3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = [stem]
        in_chs, ends = first, []
        for stage, (width, depth) in enumerate(zip(variant.dims, variant.depths, strict=True)):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                gated = index in variant.squeeze_excite[stage]
                blocks.append(RepVitBlock(in_chs, width, stride=stride, squeeze_excite=gated))
                in_chs = width
            ends.append(len(blocks))
        self.features = nn.ModuleList(blocks)
        self.fine_end = ends[2]
        self.fuse_stage2 = nn.Conv2d(variant.dims[2], 256, 1, bias=False)
        self.fuse_stage3 = UpsampleAdd(variant.dims[3], 256, upsample)
        self.neck = Neck(256)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.features[: self.fine_end]:
            x = block(x)
        fine = self.fuse_stage2(x)
        for block in self.features[self.fine_end :]:
            x = block(x)
        y: Tensor = self.neck(self.fuse_stage3(x, fine))
        return y

    @torch.no_grad()
    def fuse(self) -> RepVitEncoder:
        """A copy for inference with every batch norm and parallel branch folded away.

        The neck's first 1x1 convolution is linear and commutes with the interpolation, so it folds into the
        two 1x1 convolutions before it. Exact: in double precision within 1e-13
        of the unfused encoder, in single precision within 1e-5 of the embedding's largest value.
        """
        fused = fuse_convolutions(self)
        assert isinstance(fused, RepVitEncoder)
        mix = next(fused.neck[0].parameters()).flatten(1).double()
        for weight in (*fused.fuse_stage2.parameters(), *fused.fuse_stage3.parameters()):
            weight.copy_((mix @ weight.flatten(1).double())[:, :, None, None])
        fused.neck[0] = nn.Identity()
        return fused
