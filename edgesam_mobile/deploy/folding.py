"""Which constants coremltools computes ahead: none that grow much by it.

Attention's biases are spread over a window's cells by copying (see :mod:`edgesam_mobile.model.tiny_vit`); computed
ahead they would be 1.2 million numbers of the artefact again.
"""

from __future__ import annotations

from typing import Any

from coremltools.converters.mil.mil.passes.defs.cleanup.const_elimination import const_elimination
from coremltools.converters.mil.mil.passes.pass_registry import register_pass

_SMALL = 10_000  # numbers up to which a constant may grow


def keep_constants_small() -> None:
    """Replace coremltools' own pass in every conversion of this process, ExecuTorch's too, which takes no option."""
    register_pass(namespace="common", override=True, name="const_elimination")(_SparingElimination)


class _SparingElimination(const_elimination):  # type: ignore[misc]
    def apply(self, prog: Any) -> None:
        kept = [var for function in prog.functions.values() for var in _keep_apart(function)]
        super().apply(prog)
        for var in kept:
            var.nonreplaceable_vars_upstream = set()


def _keep_apart(block: Any) -> list[Any]:
    """Mark what grows, and what is computed from it, in coremltools' way of saying that it is no constant."""
    kept = []
    for operation in block.operations:
        if operation.op_type == "const":
            continue
        inputs = operation.get_flattened_inputs()
        above = set[Any]().union(*(var.nonreplaceable_vars_upstream for var in inputs))
        for var in operation.outputs:
            if var.can_be_folded_to_const() and (above or _grows(var, inputs)):
                var.nonreplaceable_vars_upstream = above or {var}
                kept.append(var)
    return kept


def _grows(var: Any, inputs: list[Any]) -> bool:
    return getattr(var.val, "size", 1) > max(_SMALL, 2 * sum(getattr(one.val, "size", 1) for one in inputs))
