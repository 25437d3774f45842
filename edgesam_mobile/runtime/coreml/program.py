"""An ML program as plain data: operations in order, constants where they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from edgesam_mobile.runtime.coreml.blobs import BlobFile
from edgesam_mobile.runtime.coreml.package import read_specification
from edgesam_mobile.runtime.coreml.types import BY_CODE, DTYPES, ProgramError, to_torch, unpack

# A tensor of an encoder at 1024 pixels takes 50 MB; whoever claims more than this wants to hurt.
LARGEST_TENSOR = 1 << 30
LARGEST_PROGRAM = 4 << 30  # bytes of all constants and of all values that are alive at once; MobileSAM's are 0.2 GB
_MODEL_PATH = "@model_path/"
_OPSETS = {"CoreML5": "iOS 15", "CoreML6": "iOS 16", "CoreML7": "iOS 17", "CoreML8": "iOS 18", "CoreML9": "iOS 26"}

Constant = torch.Tensor | str


@dataclass(frozen=True)
class TensorType:
    """Element type (``"string"`` included) and shape; ``None`` stands for a side that is known only when run."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{[side if side is not None else '?' for side in self.shape]}"


@dataclass(frozen=True)
class Stored:
    """A constant in a weight file, read when it is needed."""

    type: TensorType
    file: BlobFile
    place: int

    def load(self) -> torch.Tensor:
        shape = static(self.type)
        return to_torch(self.file.read(self.place, self.type.dtype, prod(shape)), self.type.dtype, shape)


@dataclass(frozen=True)
class Ref:
    """The name of another operation's value, as an argument (a bare string is a constant)."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        inputs: by parameter: names of values or constants, one or (for lists such as ``concat``'s) several.
        outputs: name and type of each.
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[Ref | Constant | Stored, ...]]
    outputs: tuple[tuple[str, TensorType], ...]


@dataclass(frozen=True)
class Feature:
    """An input or output as an application sees it.

    Attributes:
        image: colour space, such as ``"RGB"``, where it is a picture.
    """

    name: str
    type: TensorType
    image: str | None = None


@dataclass(frozen=True)
class Program:
    """The main function of an ML program.

    Attributes:
        opset: the set of operations it is written in, such as ``"CoreML6"``.
        inputs: as the function takes them.
        features: inputs as applications give them, with pictures told from tensors.
    """

    opset: str
    inputs: Mapping[str, TensorType]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    features: Mapping[str, Feature] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """The first system that has its operations."""
        return _OPSETS[self.opset]

    def op_types(self) -> dict[str, int]:
        """How often each operation occurs, without constants."""
        return dict(sorted(Counter(o.type for o in self.operations if o.type != "const").items()))


def read_program(package: Path, function: str = "main") -> Program:
    """Read one function of an ``.mlpackage``.

    Raises:
        ProgramError: see :mod:`edgesam_mobile.runtime.coreml.package`; or the program is inconsistent: an unknown
            set of operations, a value used before it is made or made twice, a constant of another size than its
            type, a tensor of more than 1 GiB, or an operation with blocks of its own (control flow).
    """
    model, folder = read_specification(package)
    functions = model.mlProgram.functions
    if function not in functions:
        raise ProgramError(f"it has no function {function!r}, only {', '.join(sorted(functions)) or 'none'}")
    return _Reader(folder).function(functions[function], model.description)


def static(kind: TensorType) -> tuple[int, ...]:
    """The shape of a type that must have no open side, within bounds."""
    if any(side is None for side in kind.shape):
        raise ProgramError(f"{kind} must have a fixed shape")
    shape = tuple(side for side in kind.shape if side is not None)
    check_size(kind.dtype, shape)
    return shape


def check_size(dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse what would not fit: bytes are those that the interpreter takes."""
    taken = bytes_taken(dtype, shape)
    if taken > LARGEST_TENSOR:
        raise ProgramError(f"a tensor of {dtype}{list(shape)} takes {taken} bytes; more than 1 GiB is refused")


def bytes_taken(dtype: str, shape: tuple[int, ...]) -> int:
    """What the interpreter takes for a tensor, at most."""
    if dtype not in DTYPES:
        return prod(shape)
    # Elements smaller than a byte are only ever expanded, to single precision.
    each = DTYPES[dtype].torch.itemsize if DTYPES[dtype].bits >= 8 else 4
    # A side of zero makes the rest free; torch and NumPy fail on what does not fit a machine's number.
    return prod(max(side, 1) for side in shape) * each


class _Reader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, BlobFile] = {}

    def function(self, message: Any, description: Any) -> Program:
        if message.opset not in _OPSETS:
            raise ProgramError(f"its set of operations is {message.opset!r}; known are {', '.join(_OPSETS)}")
        if message.opset not in message.block_specializations:
            raise ProgramError(f"it has no block for {message.opset}")
        block = message.block_specializations[message.opset]
        inputs = {port.name: self.type(port.type, port.name) for port in message.inputs}
        if text := [name for name, kind in inputs.items() if kind.dtype not in DTYPES]:
            raise ProgramError(f"its input {text[0]} is a string, which is not supported")
        known = set(inputs)
        operations = []
        for item in block.operations:
            operation = self.operation(item)
            _check_order(operation, known)
            operations.append(operation)
        for name in block.outputs:
            if name not in known:
                raise ProgramError(f"its output {name} is made by no operation")
        made = {name: kind for operation in operations for name, kind in operation.outputs} | inputs
        features = _features(description.input, inputs)
        _features(description.output, {name: made[name] for name in block.outputs})
        return Program(message.opset, inputs, tuple(block.outputs), tuple(operations), features)

    def operation(self, item: Any) -> Operation:
        names = [output.name for output in item.outputs]
        where = f"{item.type} {names[0] if names else ''}".strip()
        if item.blocks:
            raise ProgramError(f"{where}: operations with blocks inside (control flow) are not supported")
        inputs: dict[str, tuple[Any, ...]] = {}
        for key, argument in item.inputs.items():
            inputs[key] = tuple(self.binding(each, where) for each in argument.arguments)
        # Constants, and what the operations of iOS 16 for compressed constants take, are attributes.
        for key, value in item.attributes.items():
            if key != "name":
                inputs[key] = (self.value(value, where),)
        outputs = tuple((output.name, self.type(output.type, where)) for output in item.outputs)
        return Operation(item.type, where, inputs, outputs)

    def binding(self, message: Any, where: str) -> Ref | Constant | Stored:
        if message.WhichOneof("binding") == "name":
            return Ref(message.name)
        return self.value(message.value, where)

    def value(self, message: Any, where: str) -> Constant | Stored:
        kind = self.type(message.type, where)
        if message.WhichOneof("value") == "blobFileValue":
            static(kind)
            stored = message.blobFileValue
            return Stored(kind, self.file(stored.fileName, where), stored.offset)
        if message.immediateValue.WhichOneof("value") != "tensor":
            raise ProgramError(f"{where}: only tensors and strings are supported as constants")
        return _immediate(message.immediateValue.tensor, kind, where)

    def file(self, name: str, where: str) -> BlobFile:
        relative = PurePosixPath(name.removeprefix(_MODEL_PATH))
        path = self._folder / relative
        try:
            inside = name.startswith(_MODEL_PATH) and path.resolve().is_relative_to(self._folder.resolve())
            found = inside and path.is_file()
        except (OSError, ValueError) as error:  # a name that no file can have
            raise ProgramError(f"{where}: its weight file has an impossible name") from error
        if not inside:
            raise ProgramError(f"{where}: its constant lies outside of the package")
        if not found:
            raise ProgramError(f"{where}: the weight file {relative} is missing")
        return self._files.setdefault(path, BlobFile(path))

    @staticmethod
    def type(message: Any, where: str) -> TensorType:
        if message.WhichOneof("type") != "tensorType":
            raise ProgramError(f"{where}: only tensors are supported, not {message.WhichOneof('type')}")
        tensor = message.tensorType
        dtype = "string" if tensor.dataType == 2 else BY_CODE.get(tensor.dataType)
        if dtype is None:
            raise ProgramError(f"{where}: element type {tensor.dataType} is not supported")
        if tensor.rank not in (len(tensor.dimensions), 0):
            raise ProgramError(f"{where}: a type of rank {tensor.rank} with {len(tensor.dimensions)} sides")
        sides = tuple(d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
        return TensorType(dtype, sides)


def _check_order(operation: Operation, known: set[str]) -> None:
    """Every value is made once, and before it is used: so there is no circle."""
    for argument in (a for arguments in operation.inputs.values() for a in arguments):
        if isinstance(argument, Ref) and argument.name not in known:
            raise ProgramError(f"{operation.name}: uses {argument.name}, which no operation before it makes")
    for name, _ in operation.outputs:
        if name in known:
            raise ProgramError(f"{operation.name}: {name} is made twice")
        known.add(name)


def _immediate(tensor: Any, kind: TensorType, where: str) -> Constant:
    field_name = tensor.WhichOneof("value")
    if field_name is None:
        raise ProgramError(f"{where}: a constant without a value")
    shape = static(kind)
    values = getattr(tensor, field_name).values
    if kind.dtype == "string":
        if field_name != "strings" or len(values) != 1:
            raise ProgramError(f"{where}: a string constant must hold one string")
        return str(values[0])
    if field_name == "bytes":
        return to_torch(unpack(values, kind.dtype, prod(shape)), kind.dtype, shape)
    if len(values) != prod(shape):
        raise ProgramError(f"{where}: a constant of {kind} holds {len(values)} values")
    try:
        array = np.asarray(values).astype(DTYPES[kind.dtype].stored)
    except ValueError as error:
        raise ProgramError(f"{where}: a constant of {kind} holds {field_name}") from error
    return to_torch(array, kind.dtype, shape)


def _features(ports: Any, kinds: Mapping[str, TensorType]) -> dict[str, Feature]:
    """What applications see, which must be what the function has."""
    if {port.name for port in ports} != set(kinds):
        raise ProgramError(f"it describes {sorted(p.name for p in ports)}, its function has {sorted(kinds)}")
    return {port.name: _feature(port, kinds[port.name]) for port in ports}


def _feature(port: Any, kind: TensorType) -> Feature:
    if port.type.WhichOneof("Type") != "imageType":
        said = tuple(port.type.multiArrayType.shape)  # empty where any shape will do
        fits = len(said) == len(kind.shape) and all(n in (s, None) for s, n in zip(said, kind.shape, strict=True))
        if said and not fits:
            raise ProgramError(f"it describes {port.name} as {list(said)}, its function has {kind}")
        return Feature(port.name, kind)
    spaces = type(port.type.imageType).DESCRIPTOR.fields_by_name["colorSpace"].enum_type.values_by_number
    number = port.type.imageType.colorSpace
    return Feature(port.name, kind, spaces[number].name if number in spaces else str(number))
