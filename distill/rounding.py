"""Quantisation-aware training: an encoder that computes with the numbers of an 8-bit artefact.

Weights are rounded as exporters round them, symmetric with a scale for each output channel; activations to 256 steps
between the extremes of the batch, where an artefact has fixed ranges from calibration. Batch norms are folded first,
with their running statistics, since an artefact has none: those statistics stay as they are. The roundings let
gradients through unchanged. Names of the weights stay the same, so that a checkpoint is one like any other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.layers import ConvNorm
from edgesam_mobile.model.repvit import RepDepthwise


def round_as_integers(encoder: nn.Module, float_layers: Iterable[str] = ()) -> None:
    """Change an encoder in place, but for some of its layers.

    Args:
        float_layers: groups to leave alone, by the names that plans use, such as ``encoder.neck.2``.

    Raises:
        UsageError: the encoder has no such group.
    """
    left_out = set()
    for name in float_layers:
        path = name.removeprefix("encoder.")
        try:
            left_out |= set(encoder.get_submodule(path).modules())
        except AttributeError as error:
            raise UsageError(f"the encoder has no layer {name}", hint="names are those of a plan") from error
    for module in encoder.modules():
        kind = _ROUNDED.get(type(module))
        if kind is not None and module not in left_out:
            module.__class__ = kind  # its weights and their names stay


class _ConvNorm(ConvNorm):
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self.c, x, *self.folded())


class _RepDepthwise(RepDepthwise):
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self.conv.c, x, *self.folded())


class _Conv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return _convolve(self, input, self.weight, self.bias)


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(round_activations(input), round_weights(self.weight), self.bias)


_ROUNDED: dict[type[nn.Module], type[nn.Module]] = {
    ConvNorm: _ConvNorm,
    RepDepthwise: _RepDepthwise,
    nn.Conv2d: _Conv2d,
    nn.Linear: _Linear,
}


def _convolve(like: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rounded = round_weights(weight.float())
    bias = None if bias is None else bias.float()
    return F.conv2d(round_activations(x), rounded, bias, like.stride, like.padding, groups=like.groups)


def round_weights(weight: Tensor) -> Tensor:
    """To -127..127 times a scale for each of the first axis; exact zeros stay zero."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def round_activations(x: Tensor) -> Tensor:
    """To 256 steps between the least and the greatest value, of which one is exactly 0."""
    x = x.float()
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
