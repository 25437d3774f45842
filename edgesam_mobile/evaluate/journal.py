"""What an evaluation has finished, picture by picture, so that an interrupted one goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from edgesam_mobile.errors import StorageError
from edgesam_mobile.files import storage_errors


class Journal:
    """A JSON-lines file: what the run is, then a line a finished picture. Use it as a context.

    Args:
        path: beside the result; it is continued where it is of the same run.
        run: all that results depend on (model, data, settings), as JSON.

    Raises:
        StorageError: the file is of another run (says in what), is no journal, or cannot be written.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self.finished: dict[int, dict[str, Any]] = {}
        self._stream: TextIO | None = None
        run = json.loads(json.dumps(run))
        with storage_errors(path):
            whole = _whole_lines(path)
            lines = [_parse(path, line) for line in whole.splitlines()]
            if lines:
                _refuse_another(path, lines[0], run)
                self.finished = {int(line["index"]): line for line in lines[1:]}
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8")
            # What a kill left of a line is cut off in place: a kill now, or a full disk, loses no whole line.
            self._stream.truncate(len(whole))
            if not lines:
                self._write(run)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            with storage_errors(self.path):  # closing tries once more to write what a full disk refused
                self._stream.close()

    def add(self, record: dict[str, Any]) -> None:
        """Note a finished picture: JSON with its ``index``.

        Raises:
            StorageError: the disk is full or gone; what was noted before stays.
        """
        with storage_errors(self.path):
            self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        assert self._stream is not None
        self._stream.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._stream.flush()


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _parse(path: Path, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise StorageError(f"{path} is no record of an evaluation", hint="choose another output, or remove it")
    return record


def _refuse_another(path: Path, found: dict[str, Any], run: dict[str, Any]) -> None:
    differing = sorted(key for key in found.keys() | run.keys() if found.get(key) != run.get(key))
    if differing:
        raise StorageError(
            f"{path} was left by another evaluation: {', '.join(differing)} differ",
            hint="choose another output, or remove it to start anew",
        )
