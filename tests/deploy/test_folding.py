"""Constants that would grow by being computed ahead are left to the artefact to compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgesam_mobile.deploy.folding import keep_constants_small

PASS = "common::const_elimination"


@pytest.fixture
def remaining(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Types of the operations that are left of ``x + body(constant)``, without constants."""
    from coremltools.converters.mil.mil import Builder, types
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    monkeypatch.setitem(PASS_REGISTRY.passes, PASS, PASS_REGISTRY.passes[PASS])  # and so put back
    keep_constants_small()

    def run(shape: tuple[int, ...], body: Any) -> list[str]:
        @Builder.program(input_specs=[Builder.TensorSpec((1,), types.fp32)])
        def program(x: Any) -> Any:
            return Builder.add(x=x, y=body(Builder, np.ones(shape, np.float32)))

        PASS_REGISTRY[PASS](program)
        (function,) = program.functions.values()
        for var in (var for operation in function.operations for var in operation.outputs):
            assert not var.nonreplaceable_vars_upstream, "a mark would keep later passes from their work"
        return [operation.op_type for operation in function.operations if operation.op_type != "const"]

    return run


def test_what_grows_and_what_is_computed_from_it_stays(remaining: Any) -> None:
    def body(mb: Any, constant: Any) -> Any:
        copies = mb.tile(x=mb.transpose(x=constant, perm=[1, 0]), reps=[50, 1])
        return mb.transpose(x=mb.slice_by_size(x=copies, begin=[0, 0], size=[8, 8]), perm=[1, 0])

    assert remaining((40, 10), body) == ["tile", "slice_by_size", "transpose", "add"]


def test_what_does_not_grow_is_folded(remaining: Any) -> None:
    def body(mb: Any, constant: Any) -> Any:
        return mb.cast(x=mb.transpose(x=constant, perm=[1, 0]), dtype="fp32")

    assert remaining((400, 400), body) == ["add"]


def test_what_grows_and_stays_small_is_folded(remaining: Any) -> None:
    assert remaining((1, 10), lambda mb, constant: mb.tile(x=constant, reps=[50, 1])) == ["add"]
