"""Which of Apple's processors may take which operation of a program: an estimate, made without one of them.

Apple publishes no list. The rules here are what is commonly known: Core ML tensors have at most five sides; the
Neural Engine computes in half precision or 8-bit integers, wants fixed shapes, has no side beyond 16,384 and no
operations that pick places by value. The rules are for what an operation takes as well as for what it makes, but for
constants, which can be converted in advance. What runs there is decided by Core ML on the device: see its compute
plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgesam_mobile.runtime.coreml.program import Operation, Program, Ref, TensorType

MOST_SIDES = 5
LONGEST_SIDE = 16_384
_ENGINE_TYPES = ("fp16", "int8", "uint8", "bool")
# Pick places by value, or have no fixed shape: known to leave the Neural Engine.
_ELSEWHERE = ("gather", "gather_along_axis", "scatter", "non_zero", "reduce_argmax", "reduce_argmin", "cumsum", "sin",
              "cos", "tan", "range_1d", "shape", "fill", "topk", "argsort", "one_hot", "reverse")  # fmt: skip
# Change what a number means, and cost next to nothing wherever they run. A cast to or from single precision is not
# the Neural Engine's by these rules, but no fallback: what makes or takes such numbers is one.
_EDGES = ("cast", "identity")


@dataclass(frozen=True)
class Placed:
    """One operation and what may take it.

    Attributes:
        operation: its name, which begins with its type.
        units: of ``"ANE"``, ``"GPU"`` and ``"CPU"``.
        reason: why not the Neural Engine; empty where it may.
    """

    operation: str
    type: str
    units: tuple[str, ...]
    reason: str = ""

    @property
    def fallback(self) -> bool:
        """Whether the Neural Engine may not take it, casts left out wherever they stand."""
        return "ANE" not in self.units and self.type not in _EDGES


@dataclass
class Placement:
    """An estimate for a whole program, constants left out."""

    operations: list[Placed] = field(default_factory=list)

    @property
    def fallbacks(self) -> list[Placed]:
        """Operations that force one, in the program's order."""
        return [p for p in self.operations if p.fallback]

    def counts(self) -> dict[str, int]:
        """How many operations each processor may take, and how many force a fallback."""
        taken = Counter(unit for placed in self.operations for unit in placed.units)
        return {**{unit: taken[unit] for unit in ("ANE", "GPU", "CPU")}, "fallbacks": len(self.fallbacks)}


def estimate(program: Program) -> Placement:
    """Place every operation of a program by the rules above."""
    types = dict(program.inputs)  # of all values but constants
    placement = Placement()
    for operation in program.operations:
        if operation.type != "const" and not operation.type.startswith("constexpr_"):
            placement.operations.append(_place(operation, types))
            types.update(operation.outputs)
    return placement


def _place(operation: Operation, types: Mapping[str, TensorType]) -> Placed:
    given = [a.name for arguments in operation.inputs.values() for a in arguments if isinstance(a, Ref)]
    kinds = [*(types[name] for name in given if name in types), *(kind for _, kind in operation.outputs)]
    if long := next((k for k in kinds if len(k.shape) > MOST_SIDES), None):
        return Placed(operation.name, operation.type, ("CPU",), f"{len(long.shape)} sides")
    reason = next((why for kind in kinds if (why := _refused(operation.type, kind))), "")
    return Placed(operation.name, operation.type, ("GPU", "CPU") if reason else ("ANE", "GPU", "CPU"), reason)


def _refused(operation: str, kind: TensorType) -> str:
    """Why the Neural Engine does not take or make such a value; empty where it may."""
    if operation in _ELSEWHERE:
        return "the operation"
    if kind.dtype not in _ENGINE_TYPES:
        return kind.dtype
    if any(side is None for side in kind.shape):
        return "a side that is known only when run"
    if any(side is not None and side > LONGEST_SIDE for side in kind.shape):
        return f"a side of more than {LONGEST_SIDE}"
    return ""
