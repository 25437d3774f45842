"""Tiny ML programs: built with coremltools' own builder, saved as packages, interpreted.

Loading coremltools takes seconds, so it waits until a program is asked for: whoever describes one gets the builder as
the first argument, and a value of the program for each input.
"""

from __future__ import annotations

import gc
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from edgesam_mobile.runtime.coreml.interpreter import Interpreter, Mode
from edgesam_mobile.runtime.coreml.program import read_program

Array = NDArray[Any]
Body = Callable[..., Any]
# What an application may be given; anything else is cast first.
_OUTPUTS = ("fp16", "fp32", "int32")


def save(path: Path, body: Body, *inputs: Array, system: str = "iOS16") -> Path:
    """An ``.mlpackage`` of what ``body`` builds, with the inputs' shapes and types."""
    import coremltools as ct

    program, _ = _program(body, inputs, system, constant=False)
    target = getattr(ct.target, system)
    with converting():
        model = ct.convert(
            program,
            convert_to="mlprogram",
            pass_pipeline=ct.PassPipeline.EMPTY,  # or most operations would be folded or replaced
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=target,
            skip_model_load=True,
        )
        model.save(str(path))
        del model
    return path


def interpret(body: Body, *inputs: Array, system: str = "iOS16", mode: Mode = "exact") -> list[Array]:
    """What the interpreter answers, output by output."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "model.mlpackage", body, *inputs, system=system)
        program = read_program(path)
        values = inputs or (np.zeros(1, np.float32),)
        tensors = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(values)}
        answers = Interpreter(program, mode=mode).run(tensors)
    return [answers[name].numpy() for name in program.outputs]


def fold(body: Body, *inputs: Array, system: str = "iOS16") -> list[Array]:
    """What coremltools itself computes, value by value, where the inputs are constants."""
    _, values = _program(body, inputs, system, constant=True)
    assert all(value.val is not None for value in values), "coremltools does not fold this operation"
    return [np.asarray(value.val) for value in values]


def decompress(body: Body, system: str) -> Array:
    """What coremltools makes of a compressed constant."""
    _, (value,) = _program(body, [], system, constant=True)
    return np.asarray(value.op.materialized_val_inference())


def check(
    body: Body,
    *inputs: Array,
    expected: ArrayLike,
    system: str = "iOS16",
    folds: bool = False,
    tolerance: float = 1e-5,
) -> None:
    """Demand ``expected`` of the interpreter and, with ``folds``, of coremltools' constant folding."""
    (answer,) = interpret(body, *inputs, system=system)
    _assert_same(answer, np.asarray(expected), tolerance)
    if folds:
        (folded,) = fold(body, *inputs, system=system)
        _assert_same(answer, folded, tolerance)


def _assert_same(answer: Array, expected: Array, tolerance: float) -> None:
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, rtol=tolerance, atol=tolerance)


def _program(body: Body, inputs: Sequence[Array], system: str, *, constant: bool) -> tuple[Any, list[Any]]:
    """A program, and what ``body`` made; as constants, the inputs' values are known while it is built."""
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program, types

    target = getattr(ct.target, system)
    given = inputs if inputs and not constant else [np.zeros(1, np.float32)]  # a program must have an input
    ports = {
        f"x{place}": Builder.placeholder(value.shape, types.numpy_type_to_builtin_type(value.dtype))
        for place, value in enumerate(given)
    }
    with Function(ports, opset_version=target) as function:
        values = [Builder.const(val=v) if constant else function.inputs[f"x{n}"] for n, v in enumerate(inputs)]
        made = body(Builder, *values)
        made = list(made) if isinstance(made, list | tuple) else [made]
        function.set_outputs([_visible(Builder, value, types) for value in made])
    program = Program()
    program.add_function("main", function)
    return program, made


def _visible(mb: Any, value: Any, types: Any) -> Any:
    if types.builtin_to_string(value.dtype) in _OUTPUTS:
        return value
    return mb.cast(x=value, dtype="int32")


@contextmanager
def converting() -> Iterator[None]:
    """Silently, and without collecting garbage, which takes 20 times as long as the rest where torch is loaded."""
    gc.freeze()
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # coremltools leaves temporary folders to the collector
            yield
    finally:
        gc.unfreeze()
