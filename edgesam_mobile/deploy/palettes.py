"""Weights that take few values, chosen so that a layer's outputs change little rather than the weights themselves.

Each group of output channels gets a palette: centroids of its weights, weighted by how strongly each input varies on
calibration pictures. Then weights are rounded one input at a time, and what a rounding does to the outputs is made up
for by the weights that are not rounded yet (GPTQ, arXiv 2210.17323, with a palette in the place of a grid).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from coremltools._deps import kmeans1d  # as published it takes no weights
from torch import Tensor, nn

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.layers import within

_SMALLEST = 4096  # layers of fewer weights, and depth-wise ones, are worth no palette
_ROWS = 4096  # inputs of a layer that count, for each sample
# Of a channel's output. MobileSAM's encoder in 16 values: five layers of 2 % to 10 % (113,000 weights) cost most of
# its embedding's error; the others have 0.3 % on average.
_BEARABLE = 0.02
_CHEAP = 65_536  # weights; of larger layers, edge-sam-open's cost 0.65 MB more and its masks were no better
_DAMPING = 0.01  # of the mean variance, so that inputs that hardly vary do not run away
_BLOCK = 64  # columns between two updates of all that follow


class Palette(NamedTuple):
    """What a layer's weights became: ``2**bits`` values for each ``channels`` output channels.

    ``grouped`` says whether that is less than all of them.
    """

    channels: int
    bits: int
    grouped: bool


def fit_palettes(
    module: nn.Module,
    samples: Sequence[Sample],
    *,
    bits: int,
    group: int,
    finer: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> dict[str, Palette]:
    """Give a module's larger dense convolutions and linear layers weights of ``2**bits`` values a group of channels.

    Args:
        module: changed in place; takes each sample's tensors in order.
        group: output channels that share a palette, fewer where they do not divide a layer's; 0 is all of a layer's.
        finer: layers or groups of layers that get four times as many values.
        left_out: those that stay as they are.

    Returns:
        The layers whose weights were changed, which are not small ones that would suffer too much: channels that
        differ widely in size, as batch norms leave them, do not share values well. All are exact in half precision.
    """
    layers = {name: layer for name, layer in module.named_modules() if _fits(layer) and not within(name, left_out)}
    palettes = {}
    with torch.no_grad():
        for name, moment in _second_moments(module, layers, samples).items():
            weight = layers[name].weight
            rows = weight.flatten(1).float()
            most = group or len(rows)
            channels = max(size for size in range(1, most + 1) if len(rows) % size == 0)
            palette = Palette(channels, bits + 2 if within(name, finer) else bits, channels < len(rows))
            rounded = _rounded(rows, moment, palette)
            if weight.numel() > _CHEAP or _harm(rows, rounded, moment) < _BEARABLE:
                palettes[name] = palette
                weight.copy_(rounded.reshape(weight.shape))
    return palettes


def _fits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or isinstance(layer.padding, str)):
        return False
    return isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.numel() >= _SMALLEST


def _second_moments(module: nn.Module, layers: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Tensor]:
    """For each layer the mean of x xᵀ over its inputs x (the patch that meets one output pixel): K x K."""
    sums = {name: torch.zeros(layer.weight[0].numel(), layer.weight[0].numel()) for name, layer in layers.items()}
    counts = dict.fromkeys(layers, 0)

    def watch(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = _rows(layer, inputs[0])
        rows = rows[:: -(-len(rows) // _ROWS)]
        sums[name] += rows.T @ rows
        counts[name] += len(rows)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(watch, name)).remove)
        for sample in samples:
            module(*sample.values())
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def _rows(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    assert isinstance(layer, nn.Conv2d)
    patches = nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2).flatten(0, 1)


def _rounded(weight: Tensor, moment: Tensor, palette: Palette) -> Tensor:
    """Weights (O x K) rounded to a palette for each group of rows."""
    group = palette.channels
    outputs, inputs = weight.shape
    importance = moment.diagonal().clamp_min(moment.diagonal().mean() * 1e-6 + 1e-30)
    palettes = centroids(
        weight.reshape(-1, group * inputs), importance.repeat(outputs).reshape(-1, group * inputs), 2**palette.bits
    )
    # The inputs that matter most come first, while there is most left to make up for them.
    order = importance.argsort(descending=True)
    left, factor = weight[:, order].clone(), _factor(moment[order][:, order])
    done = torch.empty_like(left)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.zeros(outputs, end - start)
        for column in range(start, end):
            done[:, column] = _nearest(left[:, column].reshape(-1, group), palettes).flatten()
            error = (left[:, column] - done[:, column]) / factor[column, column]
            left[:, column + 1 : end] -= error[:, None] * factor[column, column + 1 : end]
            errors[:, column - start] = error
        left[:, end:] -= errors @ factor[start:end, end:]
    return done[:, order.argsort()]


def _harm(weight: Tensor, rounded: Tensor, moment: Tensor) -> float:
    """Squared error of a layer's outputs in parts of their squares, the mean of its channels."""
    error, size = (((w @ moment) * w).sum(1) for w in (rounded - weight, weight))
    return float((error / size.clamp_min(1e-30)).mean())


def _factor(moment: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse: row k says how an error in weight k is best made up for by later ones."""
    damping = _DAMPING * moment.diagonal().mean() + 1e-30
    damped = moment.double() + damping * torch.eye(len(moment), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def centroids(values: Tensor, importance: Tensor, count: int) -> Tensor:
    """For each row the ``count`` values, in order, that leave the least squared error; exact in half precision."""
    return torch.stack([_row_centroids(*row, count) for row in zip(values, importance, strict=True)])


def _row_centroids(values: Tensor, importance: Tensor, count: int) -> Tensor:
    different, place = np.unique(values.half().float().numpy(), return_inverse=True)
    weights = np.bincount(place, importance.double().numpy())
    found = sorted(kmeans1d.cluster(different.tolist(), count, weights=weights.tolist()).centroids)
    return torch.tensor([*found, *found[-1:] * (count - len(found))]).half().float()


def _nearest(values: Tensor, palettes: Tensor) -> Tensor:
    return palettes.gather(1, cells(values, palettes))


def cells(values: Tensor, palettes: Tensor) -> Tensor:
    """Index of the nearest value of each row's sorted palette."""
    return torch.searchsorted(((palettes[:, 1:] + palettes[:, :-1]) / 2).contiguous(), values.contiguous())
