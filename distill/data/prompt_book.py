"""Boxes and points for pictures without annotations: one file that is appended to.

Every line is ``crc32 <tab> JSON string <tab> JSON value``, the checksum being that of the rest of the line. The first
line is the header; each other is a picture's name with its fingerprint and its prompts, (x1, y1, x2, y2, x, y) in
pixels of the published picture, two decimals. A picture whose teacher found nothing has no prompts but has a line.

Only names and places of lines are kept in memory, about 15 MB for 100,000 pictures.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.embeddings import hold
from edgesam_mobile.errors import EdgeSamError, UsageError
from edgesam_mobile.files import atomic_file, storage_errors

if TYPE_CHECKING:
    from types import TracebackType

Found = tuple[str, bytes, npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""A picture's name, its fingerprint, its boxes N x 4 and its points N x 2."""

_FORMAT, _VERSION = "edgesam-mobile.prompts", 1
_ANEW = "delete it, then run `edgesam-mobile teach`"


class PromptBook:
    """Prompts by the name of their picture; see :meth:`open`.

    Attributes:
        header: what made them: ``teacher_sha256``, ``image_size`` and ``settings``.
    """

    def __init__(self, path: Path, header: dict[str, Any], places: dict[str, int]) -> None:
        self.path, self.header, self._places = path, header, places

    @classmethod
    def open(cls, path: Path | str, *, teacher_sha256: str | None = None) -> PromptBook:
        """Check a file as a whole and remember where each picture's line is.

        Args:
            teacher_sha256: the teacher that the prompts are to come from; None for any.

        Raises:
            UsageError: there is no such file, it is something else, or another teacher's.
            EdgeSamError: it is damaged, unfinished or of an unknown version.
        """
        path = Path(path)
        header, places, end = _scan(path)
        if end != path.stat().st_size:
            raise EdgeSamError(
                f"{path} ends within a line: its writing was interrupted",
                hint="run `edgesam-mobile teach` again: it goes on where it stopped",
            )
        if teacher_sha256 is not None and header["teacher_sha256"] != teacher_sha256:
            made = f"teacher {header['teacher_sha256'][:12]}, not by {teacher_sha256[:12]}"
            raise UsageError(f"the prompts in {path} were made by {made}", hint=_ANEW)
        return cls(path, header, places)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """The pictures' names, in the order in which the teacher saw them."""
        return iter(self._places)

    def get(self, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], bytes] | None:
        """Boxes float32 N x 4 and points float32 N x 2 in pixels of the published picture, and its fingerprint.

        N may be 0. None where the teacher never saw a picture of that name.
        """
        if name not in self._places:
            return None
        with self.path.open("rb") as stream:
            stream.seek(self._places[name])
            line = stream.readline()
        noted = json.loads(line.split(b"\t")[2])
        rows = np.array(noted["prompts"], dtype=np.float32).reshape(-1, 6)
        return rows[:, :4].copy(), rows[:, 4:].copy(), bytes.fromhex(noted["fingerprint"])


class PromptWriter:
    """Starts a file of prompts or goes on with one of the same kind; a context.

    Args:
        path: of the file.
        teacher_sha256: of the weights that the prompts come from.
        image_size: of the teacher's input.
        settings: that the prompts were chosen by; JSON values.

    Raises:
        UsageError: the file is something else, or was made by another teacher or other settings.
        EdgeSamError: the file is damaged.
        StorageError: it cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, *, teacher_sha256: str, image_size: int, settings: dict[str, Any]) -> None:
        self.path = path
        self._header = {
            "version": _VERSION,
            "teacher_sha256": teacher_sha256,
            "image_size": image_size,
            "settings": settings,
        }
        self._known: dict[str, bytes] = {}
        self._end = 0

    def __enter__(self) -> PromptWriter:
        self._lock = hold(self.path.with_name(f".{self.path.name}.lock"))
        try:
            if not self.path.exists():
                with atomic_file(self.path) as temporary:
                    temporary.write_bytes(_line(_FORMAT, self._header))
            header, places, self._end = _scan(self.path)
            for key, value in self._header.items():
                if header.get(key) != value:
                    raise UsageError(f"{self.path} was made with {key} {header.get(key)}, not {value}", hint=_ANEW)
            with storage_errors(self.path), self.path.open("r+b") as stream:
                stream.truncate(self._end)  # half a line of a writer that was killed
                for name, place in places.items():
                    stream.seek(place)
                    self._known[name] = bytes.fromhex(json.loads(stream.readline().split(b"\t")[2])["fingerprint"])
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def known(self, name: str) -> bytes | None:
        """The fingerprint of a picture that is in the file; None of others."""
        return self._known.get(name)

    def add(self, found: Sequence[Found]) -> None:
        """Append some pictures at once; they are on the disk when this returns.

        Raises:
            StorageError: the disk is full or fails; the file is then as it was before.
        """
        block = b"".join(
            _line(name, {"fingerprint": seen.hex(), "prompts": _rounded(boxes, points)})
            for name, seen, boxes, points in found
        )
        with storage_errors(self.path), self.path.open("r+b", buffering=0) as stream:
            try:
                stream.seek(self._end)
                _write_all(stream.fileno(), block)
                os.fsync(stream.fileno())
            except BaseException:
                stream.truncate(self._end)
                raise
        self._end += len(block)
        self._known |= {name: seen for name, seen, _, _ in found}


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _rounded(boxes: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> list[list[float]]:
    rows = np.concatenate([boxes.reshape(-1, 4), points.reshape(-1, 2)], axis=1).astype(np.float64)
    rounded: list[list[float]] = rows.round(2).tolist()
    return rounded


def _line(key: str, value: dict[str, Any]) -> bytes:
    rest = f"{json.dumps(key)}\t{json.dumps(value, separators=(',', ':'))}".encode()
    return b"%08x\t%b\n" % (zlib.crc32(rest), rest)


def _scan(path: Path) -> tuple[dict[str, Any], dict[str, int], int]:
    """Header, places of the pictures' lines, and where the last whole line ends.

    Raises:
        As :meth:`PromptBook.open`.
    """
    if not path.is_file():
        raise UsageError(f"no file of prompts at {path}", hint="run `edgesam-mobile teach` to make one")
    lines = _lines(path)
    number, _, key, value, end = next(lines, (0, 0, "", b"", 0))
    if key != _FORMAT:
        raise UsageError(f"{path} is not a file of prompts", hint="choose another file")
    header: dict[str, Any] = json.loads(value)
    if header.get("version") != _VERSION:
        raise EdgeSamError(
            f"{path} holds prompts of version {header.get('version')}, this version reads {_VERSION}", hint=_ANEW
        )
    places: dict[str, int] = {}
    for number, start, key, _, stop in lines:
        if key is None:
            raise EdgeSamError(f"line {number} of {path} is damaged", hint=_ANEW)
        places[key], end = start, stop
    return header, places, end


def _lines(path: Path) -> Iterator[tuple[int, int, str | None, bytes, int]]:
    """Number, start, key (None where damaged), value and end of every line that has an end."""
    start = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            checksum, _, rest = line[:-1].partition(b"\t")
            whole = checksum == b"%08x" % zlib.crc32(rest)
            key, _, value = rest.partition(b"\t")
            yield number, start, json.loads(key) if whole else None, value, start + len(line)
            start += len(line)
