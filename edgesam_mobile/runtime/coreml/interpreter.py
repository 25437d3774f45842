"""Runs an ML program, operation by operation, on torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor

from edgesam_mobile.runtime.coreml.blobs import BlobFile
from edgesam_mobile.runtime.coreml.ops import OPS
from edgesam_mobile.runtime.coreml.program import (
    LARGEST_PROGRAM,
    Constant,
    Operation,
    Program,
    Ref,
    Stored,
    TensorType,
    bytes_taken,
    check_size,
    static,
)
from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError

Mode = Literal["exact", "device-like"]
Value = Tensor | str
# Whole numbers computed from shapes are this few; they are known before anything runs.
_FEW = 4096


class Interpreter:
    """A program ready to run.

    Args:
        program: from :func:`~edgesam_mobile.runtime.coreml.program.read_program`.
        mode: ``"exact"`` computes in single precision whatever the program asks for, to tell whether it is the right
            program; ``"device-like"`` rounds every half-precision result to half precision, as a device does at
            least. Integers and rounding to integers are the program's own in both.

    Raises:
        ProgramError: an operation, parameter or type that is not known; shapes that do not fit each other or are not
            what the program declares; a tensor of more than 1 GiB, or more than 4 GiB of constants and of values
            that are alive at once. All of this is found here, before a picture is at hand, except for programs whose
            inputs have sides that are known only when run.
    """

    def __init__(self, program: Program, *, mode: Mode = "exact") -> None:
        self.program = program
        self.mode = mode
        self._constants: dict[str, Value] = {}
        self._stored: dict[tuple[BlobFile, int, TensorType], Value] = {}
        self._constant_bytes = 0
        self._steps: list[_Step] = []
        for operation in program.operations:
            step = _prepare(operation)
            if operation.type == "const" or operation.type.startswith("constexpr_"):
                self._keep(step)
            else:
                self._steps.append(step)
        self._last_use = self._find_last_uses()
        self._checked: set[tuple[tuple[int, ...], ...]] = set()
        shapes = {name: kind.shape for name, kind in program.inputs.items()}
        if all(side is not None for shape in shapes.values() for side in shape):
            self._check_shapes(shapes)  # type: ignore[arg-type]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named inputs to named outputs; half precision comes and goes as single precision.

        Raises:
            ProgramError: an input is missing or of another shape, or (see the class) the program is faulty.
        """
        values: dict[str, Value] = {}
        for name, kind in self.program.inputs.items():
            if name not in inputs:
                raise ProgramError(f"the input {name} is missing")
            values[name] = self._rounded(_check_value(inputs[name], kind, f"the input {name}"), kind)
        self._check_shapes({name: tuple(inputs[name].shape) for name in self.program.inputs})
        for index, step in enumerate(self._steps):
            for (name, kind), value in zip(step.operation.outputs, self._call(step, values), strict=True):
                values[name] = self._rounded(value, kind)
            for name in self._last_use.get(index, ()):
                del values[name]
        return {name: _tensor(values.get(name, self._constants.get(name)), name) for name in self.program.outputs}

    def _keep(self, step: _Step) -> None:
        """Evaluate a constant; one that several names stand for is kept once."""
        operation = step.operation
        if operation.type == "const":
            (value,) = operation.inputs.get("val", (None,))
            if value is None or isinstance(value, Ref) or len(operation.outputs) != 1:
                raise ProgramError(f"{operation.name}: a constant without a value")
            self._constants[operation.outputs[0][0]] = self._load(value, operation)
            return
        self._count_constants(operation, *(kind for _, kind in operation.outputs))
        results = self._call(step, {})
        for (name, kind), value in zip(operation.outputs, results, strict=True):
            self._constants[name] = self._rounded(value, kind)

    def _load(self, value: Constant | Stored, operation: Operation) -> Value:
        if not isinstance(value, Stored):
            return value
        key = value.file, value.place, value.type
        if key not in self._stored:
            self._count_constants(operation, value.type)
            self._stored[key] = _loaded(value, operation)
        return self._stored[key]

    def _count_constants(self, operation: Operation, *kinds: TensorType) -> None:
        """Before they are made."""
        self._constant_bytes += sum(bytes_taken(kind.dtype, static(kind)) for kind in kinds)
        _refuse_more(self._constant_bytes, operation)

    def _rounded(self, value: Tensor, kind: TensorType) -> Tensor:
        return value.half().float() if self.mode == "device-like" and kind.dtype == "fp16" else value

    def _find_last_uses(self) -> dict[int, list[str]]:
        """By step: values that no later step needs."""
        last: dict[str, int] = {}
        for index, step in enumerate(self._steps):
            last.update(dict.fromkeys((name for name, _ in step.operation.outputs), index))
            last.update(dict.fromkeys(step.names, index))
        found: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in self.program.outputs and name not in self._constants:
                found.setdefault(index, []).append(name)
        return found

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Run on shapes alone, so that nothing is allocated before all is known to fit."""
        key = tuple(shapes.values())
        if key in self._checked:
            return
        values: dict[str, Value] = {}
        alive = self._constant_bytes
        for name, kind in self.program.inputs.items():
            check_size(kind.dtype, shapes[name])
            values[name] = torch.empty(shapes[name], dtype=DTYPES[kind.dtype].torch, device="meta")
            alive += _bytes(values[name])
        for index, step in enumerate(self._steps):
            inline = step.inline_bytes  # constants among its arguments, loaded at each call
            _refuse_more(alive + inline, step.operation)
            results = self._call(step, values, on_shapes=True)
            for (name, _), value in zip(step.operation.outputs, results, strict=True):
                values[name] = value
                alive += _bytes(value)
            _refuse_more(alive + inline, step.operation)
            alive -= sum(_bytes(values.pop(name)) for name in self._last_use.get(index, ()))
        self._checked.add(key)

    def _call(self, step: _Step, values: Mapping[str, Value], *, on_shapes: bool = False) -> tuple[Tensor, ...]:
        operation = step.operation
        try:
            arguments = {
                key: kind.convert(tuple(self._resolve(a, values, operation) for a in operation.inputs[key]))
                for key, kind in step.kinds.items()
            }
            if not on_shapes:
                return _results(step.function(**arguments), operation)
            found = _results(step.function(**{k: _on_meta(v) for k, v in arguments.items()}), operation)
            for value in found:
                check_size(next(n for n, d in DTYPES.items() if d.torch == value.dtype), tuple(value.shape))
            known = not any(t.is_meta for v in arguments.values() for t in _tensors(v))
            if known and all(value.numel() <= _FEW for value in found):
                return _results(step.function(**arguments), operation)
            return found
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ProgramError(f"{operation.name}: {reason.removeprefix(f'{operation.name}: ')}") from error

    def _resolve(self, argument: Ref | Constant | Stored, values: Mapping[str, Value], operation: Operation) -> Value:
        if not isinstance(argument, Ref):
            return _loaded(argument, operation)
        value = values.get(argument.name, self._constants.get(argument.name))
        if value is None:
            raise ProgramError(f"{argument.name} is not known before the program runs")
        return value


@dataclass(frozen=True)
class _Kind:
    """What a parameter of an operation takes."""

    name: str
    wanted: Any

    def convert(self, values: tuple[Value, ...]) -> Any:
        if self.wanted == tuple[Tensor, ...]:
            return tuple(_tensor(value, self.name) for value in values)
        if len(values) != 1:
            raise ProgramError(f"{self.name} takes one value, not {len(values)}")
        (value,) = values
        if self.wanted is str:
            if not isinstance(value, str):
                raise ProgramError(f"{self.name} must be a string")
            return value
        tensor = _tensor(value, self.name)
        if self.wanted is Tensor:
            return tensor
        if tensor.is_meta:
            raise ProgramError(f"{self.name} is not known before the program runs")
        if self.wanted in (list[int], list[bool]):
            if tensor.is_floating_point():
                raise ProgramError(f"{self.name} must be whole numbers")
            return [get_args(self.wanted)[0](each) for each in tensor.reshape(-1).tolist()]
        if tensor.numel() != 1 or (self.wanted is not float and tensor.is_floating_point()):
            raise ProgramError(f"{self.name} must be one {self.wanted.__name__}")
        return self.wanted(tensor.item())


@dataclass(frozen=True)
class _Step:
    operation: Operation
    function: Callable[..., Any]
    kinds: Mapping[str, _Kind]

    @property
    def names(self) -> list[str]:
        return [a.name for arguments in self.operation.inputs.values() for a in arguments if isinstance(a, Ref)]

    @property
    def inline_bytes(self) -> int:
        stored = (a for arguments in self.operation.inputs.values() for a in arguments if isinstance(a, Stored))
        return sum(bytes_taken(a.type.dtype, static(a.type)) for a in stored)


@cache
def _parameters(operation: str) -> tuple[dict[str, _Kind], frozenset[str]]:
    """All parameters of an operation, and those that it cannot do without."""
    hints = get_type_hints(OPS[operation])
    kinds, required = {}, set()
    for name, parameter in inspect.signature(OPS[operation]).parameters.items():
        choices = [c for c in get_args(hints[name]) if c is not NoneType] if NoneType in get_args(hints[name]) else []
        kinds[name] = _Kind(name, choices[0] if choices else hints[name])
        if parameter.default is parameter.empty:
            required.add(name)
    return kinds, frozenset(required)


def _prepare(operation: Operation) -> _Step:
    if operation.type == "const":
        return _Step(operation, lambda: None, {})
    if operation.type not in OPS:
        raise ProgramError(f"{operation.name}: the operation {operation.type} is not supported")
    kinds, required = _parameters(operation.type)
    if unknown := sorted(set(operation.inputs) - set(kinds)):
        raise ProgramError(f"{operation.name}: its parameter {unknown[0]} is not supported")
    if missing := sorted(required - set(operation.inputs)):
        raise ProgramError(f"{operation.name}: its parameter {missing[0]} is missing")
    return _Step(operation, OPS[operation.type], {key: kinds[key] for key in operation.inputs})


def _loaded(value: Constant | Stored, operation: Operation) -> Value:
    if not isinstance(value, Stored):
        return value
    try:
        return value.load()
    except ProgramError as error:
        raise ProgramError(f"{operation.name}: {error}") from error


def _bytes(value: Value) -> int:
    return value.numel() * value.itemsize if isinstance(value, Tensor) else 0


def _refuse_more(taken: int, operation: Operation) -> None:
    if taken > LARGEST_PROGRAM:
        raise ProgramError(f"{operation.name}: the program takes {taken} bytes here; more than 4 GiB are refused")


def _tensor(value: Value | None, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ProgramError(f"{name} must be a tensor")
    return value


def _tensors(argument: Any) -> tuple[Tensor, ...]:
    if isinstance(argument, Tensor):
        return (argument,)
    return tuple(t for t in argument if isinstance(t, Tensor)) if isinstance(argument, tuple) else ()


def _on_meta(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.to("meta")
    return tuple(map(_on_meta, argument)) if isinstance(argument, tuple) else argument


def _results(answer: Any, operation: Operation) -> tuple[Tensor, ...]:
    """What an operation made, as its declaration has it."""
    found = answer if isinstance(answer, tuple) else (answer,)
    if len(found) != len(operation.outputs):
        raise ProgramError(f"makes {len(found)} values, the program declares {len(operation.outputs)}")
    return tuple(_check_value(value, kind, "it") for value, (_, kind) in zip(found, operation.outputs, strict=True))


def _check_value(value: Tensor, kind: TensorType, what: str) -> Tensor:
    wanted = DTYPES[kind.dtype].torch if kind.dtype in DTYPES else None
    fits = len(value.shape) == len(kind.shape) and all(
        side in (None, found) for side, found in zip(kind.shape, value.shape, strict=True)
    )
    if wanted is None or not fits or _family(value.dtype) != _family(wanted):
        raise ProgramError(f"{what} is {value.dtype}{list(value.shape)}, the program declares {kind}")
    return value.to(wanted)


def _family(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "int"
