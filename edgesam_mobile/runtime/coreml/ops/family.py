"""How a family of operations is written down.

Annotations tell the interpreter what a parameter takes: ``Tensor`` a value of the program, ``list[int]``, ``int``,
``bool``, ``float`` or ``str`` a number that must be known before the operation runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from edgesam_mobile.runtime.coreml.types import ProgramError

Function = TypeVar("Function", bound=Callable[..., Any])


class Family(dict[str, Callable[..., Any]]):
    """Operations by name; as a decorator it takes a function under its own name."""

    def __call__(self, function: Function) -> Function:
        self[function.__name__.rstrip("_")] = function
        return function


def refuse(option: str, value: object) -> ProgramError:
    """What is documented in a way that leaves its meaning open, or not implemented, is not guessed at."""
    return ProgramError(f"{option} {value!r} is not supported")


def axis_vector(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector along ``axis`` of ``like``, shaped to be broadcast; a scalar stays one."""
    if values.dim() == 0:
        return values
    shape = [1] * like.dim()
    shape[axis] = -1
    if values.dim() != 1 or len(values) != like.shape[axis]:
        raise ProgramError(f"{list(values.shape)} values do not fit axis {axis} of {list(like.shape)}")
    return values.reshape(shape)


def same_kind(x: Tensor, y: Tensor) -> torch.dtype:
    """The type of both operands, which the sets of operations want to be equal."""
    if x.is_floating_point() != y.is_floating_point() or (x.dtype == torch.bool) != (y.dtype == torch.bool):
        raise ProgramError(f"operands of {x.dtype} and {y.dtype}")
    return torch.promote_types(x.dtype, y.dtype)
