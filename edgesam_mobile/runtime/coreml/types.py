"""Element types of ML programs, and how their values are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_LONGEST_MESSAGE = 500


class ProgramError(ValueError):
    """A program that is damaged, or asks for what this interpreter does not do; one line says what."""

    def __init__(self, message: str) -> None:
        # Names come from the program, and may hold anything.
        super().__init__("".join(c if c.isprintable() else "?" for c in message[:_LONGEST_MESSAGE]))


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        code: its number in the protobuf (``MIL.proto``, enumeration ``DataType``).
        bits: of one stored element.
        stored: NumPy's type of a stored element; of a packed one, the type it is unpacked to.
        torch: what the interpreter computes with. Half precision is computed in single precision and, in the mode
            ``device-like``, rounded afterwards.
    """

    code: int
    bits: int
    stored: str
    torch: torch.dtype


DTYPES = {
    "bool": DType(1, 8, "?", torch.bool),
    "fp16": DType(10, 16, "<f2", torch.float32),
    "fp32": DType(11, 32, "<f4", torch.float32),
    "int8": DType(21, 8, "<i1", torch.int8),
    "int16": DType(22, 16, "<i2", torch.int16),
    "int32": DType(23, 32, "<i4", torch.int32),
    "int64": DType(24, 64, "<i8", torch.int64),
    "int4": DType(25, 4, "<i1", torch.int8),
    "uint8": DType(31, 8, "<u1", torch.uint8),
    "uint16": DType(32, 16, "<u2", torch.int32),
    "uint32": DType(33, 32, "<u4", torch.int64),
    "uint4": DType(35, 4, "<u1", torch.uint8),
    "uint2": DType(36, 2, "<u1", torch.uint8),
    "uint1": DType(37, 1, "<u1", torch.uint8),
    "uint6": DType(38, 6, "<u1", torch.uint8),
    "uint3": DType(39, 3, "<u1", torch.uint8),
}
BY_CODE = {dtype.code: name for name, dtype in DTYPES.items()}
FLOATS = ("fp16", "fp32")


def unpack(data: bytes, dtype: str, count: int) -> NDArray[np.generic]:
    """``count`` elements of little-endian ``data``; elements smaller than a byte are packed from its low end.

    Raises:
        ProgramError: there are fewer or more.
    """
    kind = DTYPES[dtype]
    if len(data) != -(-count * kind.bits // 8):
        raise ProgramError(f"{count} elements of {dtype} do not take {len(data)} bytes")
    if kind.bits >= 8:
        return np.frombuffer(data, kind.stored)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * kind.bits]
    values = bits.reshape(count, kind.bits) @ (1 << np.arange(kind.bits, dtype=np.uint8)).astype(np.uint8)
    if dtype.startswith("int"):
        values = values.astype(np.int16)
        values[values >= 1 << (kind.bits - 1)] -= 1 << kind.bits
    return values.astype(kind.stored)


def to_torch(values: NDArray[np.generic], dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Stored elements as the tensor that the interpreter computes with."""
    kind = DTYPES[dtype]
    wide = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64}.get(kind.torch)
    array = np.array(values, dtype=wide or values.dtype, copy=True)
    return torch.from_numpy(array.reshape(shape))
