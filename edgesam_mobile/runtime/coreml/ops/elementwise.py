"""Arithmetic, comparisons and activations: one number out for one, or two, in."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesam_mobile.runtime.coreml.ops.family import Family, axis_vector, refuse, same_kind
from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError

OPS = Family()


def _unary(compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def operation(x: Tensor) -> Tensor:  # with annotations, which torch's own functions lack
        return compute(x)

    return operation


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def operation(x: Tensor, y: Tensor) -> Tensor:
        same_kind(x, y)
        return compute(x, y)

    return operation


for _name in ("abs", "acos", "asin", "atan", "atanh", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "round"):
    OPS[_name] = _unary(getattr(torch, _name))
for _name in ("sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "logical_not", "sigmoid"):
    OPS[_name] = _unary(getattr(torch, _name))
for _name in ("relu", "relu6", "silu", "softplus", "softsign"):
    OPS[_name] = _unary(getattr(F, _name))
for _name in ("add", "sub", "mul", "pow", "maximum", "minimum", "logical_and", "logical_or", "logical_xor"):
    OPS[_name] = _binary(getattr(torch, _name))
_OTHERS: dict[str, Callable[..., Tensor]] = {
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
}
for _name, _compute in _OTHERS.items():
    OPS[_name] = _binary(_compute)


@OPS
def identity(x: Tensor) -> Tensor:
    return x


@OPS
def real_div(x: Tensor, y: Tensor) -> Tensor:
    if not same_kind(x, y).is_floating_point:
        raise refuse("real_div of", x.dtype)  # to what type is not documented
    return x / y


@OPS
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


@OPS
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


@OPS
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


@OPS
def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


@OPS
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


@OPS
def cast(x: Tensor, dtype: str) -> Tensor:
    if dtype not in DTYPES:
        raise refuse("dtype", dtype)
    return x.to(DTYPES[dtype].torch)


@OPS
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    same_kind(a, b)
    return torch.where(cond, a, b)


@OPS
def clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.where(x >= 0, x, alpha * x), beta)


@OPS
def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


@OPS
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, axis_vector(alpha, x, 1) * x)


@OPS
def elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * torch.expm1(x))


@OPS
def linear_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha * x + beta


@OPS
def scaled_tanh(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha * torch.tanh(beta * x)


@OPS
def sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@OPS
def thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@OPS
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ProgramError(f"gelu has no mode {mode!r}")


@OPS
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)
