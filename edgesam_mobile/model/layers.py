"""Small layers that several architectures share, each able to give its fused, inference-only form."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@runtime_checkable
class Fusable(Protocol):
    """A layer that folds into one convolution with the same output (to rounding) in evaluation mode."""

    def fused(self) -> nn.Module:
        """The folded layer; ``self`` stays as it is."""
        ...


class ConvNorm(nn.Module):
    """Bias-free convolution ``c`` followed by batch normalisation ``bn`` (the published key names)."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_chs, out_chs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.c(x))
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that this is in evaluation mode, in double precision.

        One rounding a weight instead of several keeps a folded network within 1e-5. Gradients pass.
        """
        bn = self.bn
        assert bn.running_mean is not None and bn.running_var is not None
        scale = bn.weight.double() * torch.rsqrt(bn.running_var.double() + bn.eps)
        bias = bn.bias.double() - bn.running_mean.double() * scale
        return self.c.weight.double() * scale[:, None, None, None], bias

    def fused(self) -> nn.Conv2d:
        return conv_with(self.c, *self.folded())


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a B x C x H x W map, as SAM's neck and mask decoder use it."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        normal = centred / torch.sqrt(variance + self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class ConvLayerNorm2d(nn.Module):
    """:class:`LayerNorm2d` of 32 times its input, with its means over channels as 1x1 convolutions.

    Mobile runtimes have fast convolutions and slow reductions over the channel axis: XNNPACK leaves those to
    ExecuTorch's portable kernels.

    It is given a 32nd of the map, which changes nothing but the range: half precision ends at 65,504, and trained
    necks have values beyond 900 whose squares do not fit. A power of two costs no precision.
    """

    SCALE = 1 / 32

    average: Tensor

    def __init__(self, source: LayerNorm2d) -> None:
        super().__init__()
        channels = source.weight.numel()
        self.weight, self.bias, self.eps = source.weight, source.bias, source.eps * self.SCALE**2
        self.register_buffer("average", torch.full((1, channels, 1, 1), 1 / channels, dtype=source.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - F.conv2d(x, self.average)
        variance = F.conv2d(centred * centred, self.average)
        normal = centred / torch.sqrt(variance + self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class MLP(nn.Module):
    """Linear layers with ReLU between them (hyper-networks and IoU head of the mask decoder)."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        y: Tensor = last(x)
        return y


class Neck(nn.Sequential):
    """SAM's neck: 1x1 convolution, LayerNorm2d, 3x3 convolution, LayerNorm2d; no activation."""

    def __init__(self, in_chs: int, out_chs: int = 256) -> None:
        super().__init__(
            nn.Conv2d(in_chs, out_chs, 1, bias=False),
            LayerNorm2d(out_chs),
            nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False),
            LayerNorm2d(out_chs),
        )

    def fused(self) -> nn.Sequential:
        """With the norms' scale in the convolutions before them."""
        layers: list[nn.Module] = []
        for layer in copy.deepcopy(list(self)):
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.mul_(ConvLayerNorm2d.SCALE)
            layers.append(ConvLayerNorm2d(layer) if isinstance(layer, LayerNorm2d) else layer)
        return nn.Sequential(*layers)


def conv_with(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry of ``like`` and the given weight and bias."""
    out_chs, per_group, kernel, _ = weight.shape
    padding, stride = like.padding[0], like.stride[0]
    assert isinstance(padding, int)
    in_chs, dtype = per_group * like.groups, like.weight.dtype
    fused = nn.Conv2d(in_chs, out_chs, kernel, stride, padding, groups=like.groups, dtype=dtype)
    fused.weight.data.copy_(weight)
    fused.bias.data.copy_(bias)  # type: ignore[union-attr]
    return fused


@torch.no_grad()
def fuse_convolutions(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in evaluation mode with every :class:`Fusable` layer folded."""
    fused = copy.deepcopy(module).eval()
    _fuse_children(fused)
    return fused


def _fuse_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Fusable):
            setattr(module, name, child.fused())
        else:
            _fuse_children(child)
