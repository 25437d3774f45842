"""Normalisation by mean and variance."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, axis_vector

OPS = Family()


@OPS
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    normal = (x - axis_vector(mean, x, 1)) / torch.sqrt(axis_vector(variance, x, 1) + epsilon)
    return _scaled(normal, gamma, beta)


@OPS
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    return _scaled(_standard(x, list(range(2, x.dim())), epsilon), gamma, beta)


@OPS
def layer_norm(
    x: Tensor,
    axes: list[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    along = list(range(x.dim())) if axes is None else sorted(a % x.dim() for a in axes)
    normal = _standard(x, along, epsilon)
    # Both have the shape of x along the axes; with ones elsewhere they broadcast wherever the axes are.
    shape = [x.shape[side] if side in along else 1 for side in range(x.dim())]
    if gamma is not None:
        normal = normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)


@OPS
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    return x / torch.sqrt(x.square().sum(list(range(x.dim() - 3, x.dim())), keepdim=True) + epsilon)


def _standard(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


def _scaled(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    if gamma is not None:
        x = x * axis_vector(gamma, x, 1)
    return x if beta is None else x + axis_vector(beta, x, 1)
