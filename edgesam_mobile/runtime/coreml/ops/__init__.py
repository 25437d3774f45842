"""What each operation of an ML program computes, on torch.

One module a family; each function has the operation's name and its parameters' names, as Apple documents them
(coremltools' API reference, sets iOS 15 to iOS 18). A parameter that a function does not have is an error that names
it, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgesam_mobile.runtime.coreml.ops import (
    compressed,
    elementwise,
    linear,
    normalisation,
    quantisation,
    reduction,
    resizing,
    shaping,
)

OPS: dict[str, Callable[..., Any]] = {
    name: function
    for family in (elementwise, linear, reduction, normalisation, shaping, resizing, quantisation, compressed)
    for name, function in family.OPS.items()
}
