"""Ways to alter a package, and to see that it is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.coreml.types import ProgramError

FLOAT16, FLOAT32, STRING, INT32 = 10, 11, 2, 23  # numbers of element types in MIL.proto
FOLDER = "Data/com.apple.CoreML"
INPUTS = {"x0": torch.arange(192.0).reshape(1, 3, 8, 8) / 192}
Change = Callable[[Any], None]


@contextmanager
def little_memory() -> Iterator[None]:
    """At most 768 MiB more than now, where the system can hold a process to that."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (768 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def execute(path: Path) -> dict[str, torch.Tensor]:
    with little_memory():
        return Interpreter(read_program(path)).run(INPUTS)


def refusal(path: Path, reason: str | None = None) -> str:
    """What is said when the program is opened, which must be one line (with this in it)."""
    with little_memory(), pytest.raises(ProgramError, match=reason) as caught:
        Interpreter(read_program(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def specification(path: Path) -> Path:
    return path / FOLDER / "model.mlmodel"


def change(path: Path, alter: Change) -> Path:
    """Alter the model of a package."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString(specification(path).read_bytes())
    alter(model)
    specification(path).write_bytes(model.SerializeToString(deterministic=True))
    return path


def function(model: Any) -> Any:
    return model.mlProgram.functions["main"]


def block(model: Any) -> Any:
    (found,) = function(model).block_specializations.values()
    return found


def operation(model: Any, kind: str) -> Any:
    return next(item for item in block(model).operations if item.type == kind)


def constant(model: Any, kind: str, parameter: str) -> Any:
    """The operation that makes a parameter of the first operation of a kind."""
    name = operation(model, kind).inputs[parameter].arguments[0].name
    return next(item for item in block(model).operations if item.outputs[0].name == name)


def resize(kind: Any, *sides: int) -> None:
    """Give a type other sides."""
    del kind.tensorType.dimensions[:]
    for side in sides:
        kind.tensorType.dimensions.add().constant.size = side
    kind.tensorType.rank = len(sides)


def retype(item: Any, dtype: int) -> None:
    """Give a constant another element type."""
    for kind in (item.outputs[0].type, item.attributes["val"].type):
        kind.tensorType.dataType = dtype
