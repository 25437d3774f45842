"""``weight.bin``: the constants of an ML program.

A 64-byte header, then for every constant a 64-byte header (mark, type, bytes, place of the data) and its data, each
beginning at a multiple of 64. Programs refer to a constant by the place of its header.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.runtime.coreml.types import DTYPES, ProgramError, unpack

_MARK = 0xDEADBEEF
_HEADER = struct.Struct("<IIQQQ")  # mark, type, bytes, place, bits of padding in the last byte
# The file's own numbering of types, which is not the program's.
_NAMES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    5: "bf16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}


class BlobFile:
    """Reads constants of one file; nothing is loaded before it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size

    def read(self, place: int, dtype: str, count: int) -> NDArray[np.generic]:
        """The ``count`` values whose header stands at ``place``.

        Raises:
            ProgramError: there is no such constant, or it has another type or length.
        """
        where = f"{self._path.name} at {place}"
        with self._path.open("rb") as stream:
            header = self._slice(stream, place, _HEADER.size, where)
            mark, kind, length, start, padding = _HEADER.unpack(header)
            if mark != _MARK:
                raise ProgramError(f"{where}: no constant begins there")
            if _NAMES.get(kind) != dtype:
                raise ProgramError(f"{where}: holds {_NAMES.get(kind, f'type {kind}')}, the program wants {dtype}")
            bits = count * DTYPES[dtype].bits
            if length != -(-bits // 8) or padding != length * 8 - bits:
                raise ProgramError(f"{where}: holds {length} bytes, the program wants {bits} bits")
            return unpack(self._slice(stream, start, length, where), dtype, count)

    def _slice(self, stream: BinaryIO, start: int, length: int, where: str) -> bytes:
        if start + length > self._size:
            raise ProgramError(f"{where}: reaches beyond the end of the file")
        stream.seek(start)
        return stream.read(length)
