"""The folder of a simulated device's harness: files that come in pieces, and streams that are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesam_mobile.files import sha256_of, size_of
from edgesam_mobile.lab.protocol.requests import Chunk, Put

_PIECE = 1 << 16
_SLICE = 0.05  # seconds between two looks at whether it is over


class Refused(Exception):
    """What is asked cannot be done; ``code`` and ``message`` as the protocol's ``error``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@contextmanager
def _refusals(path: str) -> Iterator[None]:
    """What the file system refuses, such as a file where a folder is wanted."""
    try:
        yield
    except OSError as error:
        raise Refused("bad-path", f"{path}: {error.strerror}") from error


class Store:
    """Files below ``folder``, at most ``capacity`` bytes of them."""

    def __init__(self, folder: Path, capacity: int | None) -> None:
        self.folder, self.capacity = folder, capacity
        (folder / "jobs").mkdir(parents=True, exist_ok=True)

    def path(self, relative: str) -> Path:
        """Where a path of the protocol leads.

        Raises:
            Refused: out of the folder, through a link.
        """
        path = self.folder / relative
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise Refused("bad-path", f"{relative} leads out of the harness's folder")
        return path

    def kept(self, job: str) -> Path:
        """Where a job's events are kept."""
        return self.folder / "jobs" / f"{job}.jsonl"

    def begin(self, put: Put) -> Upload:
        """Take up a file, from where it is."""
        target = self.path(put.path)
        with _refusals(put.path):
            if target.is_file() and sha256_of(target) != put.sha256:
                target.unlink()
            upload = Upload(put, target)
        if self.capacity is not None:
            free = max(0, self.capacity - size_of(self.folder))
            missing = put.bytes - upload.offset
            if missing > free:
                raise Refused("no-space", f"{put.path} needs {missing} bytes, {free} are free")
        return upload

    def checked(self, relative: str, digest: str | None) -> Path:
        """A file (with a hash to check, also a folder) that a job is about to use; removed if the hash differs.

        Raises:
            Refused: missing or damaged.
        """
        path = self.path(relative)
        if not (path.is_file() if digest is None else path.exists()):
            raise Refused("not-found", f"{relative} is not there")
        if digest is not None and sha256_of(path) != digest:
            for member in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
                member.unlink()
            raise Refused("hash-mismatch", f"{relative} is damaged; it was removed")
        return path


class Upload:
    """A file on its way in: ``NAME.part`` until it is whole and its hash was checked."""

    def __init__(self, put: Put, target: Path) -> None:
        self.put, self._target = put, target
        self._part = target.with_name(target.name + ".part")
        self.complete = target.is_file()
        self.offset = put.bytes if self.complete else self._found()

    def append(self, chunk: Chunk) -> None:
        """The next bytes.

        Raises:
            Refused: they do not follow the ones before, or are too many.
        """
        if chunk.offset != self.offset:
            raise Refused("bad-line", f"chunk.offset: {chunk.offset} where {self.offset} was to come")
        if self.offset + len(chunk.data) > self.put.bytes:
            raise Refused("too-large", f"{self.put.path} is larger than was said")
        self.append_raw(chunk.data)

    def append_raw(self, data: bytes) -> None:
        """Bytes without a check: a harness that dies may have written some of a chunk."""
        with _refusals(self.put.path):
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("ab") as stream:
                stream.write(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Give a file its name, once all bytes are there.

        Raises:
            Refused: its hash is another one; it is removed.
        """
        if self.complete or self.offset < self.put.bytes:
            return
        self.append_raw(b"")  # an empty file comes without a chunk
        if sha256_of(self._part) != self.put.sha256:
            self._part.unlink()
            raise Refused("hash-mismatch", f"{self.put.path} arrived damaged")
        with _refusals(self.put.path):
            self._part.replace(self._target)
        self.complete = True

    def _found(self) -> int:
        size = self._part.stat().st_size if self._part.is_file() else 0
        if size > self.put.bytes:  # of another attempt with another content
            self._part.unlink()
            return 0
        return size


class Kept:
    """A job's kept stream: written by the job, read by whoever sends it. Lines are numbered as the events are."""

    def __init__(self, path: Path, *, finished: bool) -> None:
        self._path = path
        self._finished = finished
        self._more = threading.Condition()
        self._writing = None if finished else path.open("ab", buffering=0)

    def append(self, line: bytes) -> None:
        """Keep a line, or what a death leaves of one."""
        assert self._writing is not None
        self._writing.write(line)
        with self._more:
            self._more.notify_all()

    def finish(self) -> None:
        """Nothing more comes."""
        assert self._writing is not None
        self._writing.close()
        with self._more:
            self._finished = True
            self._more.notify_all()

    def lines(self, alive: Callable[[], bool]) -> Iterator[list[tuple[int, bytes]]]:
        """Whole lines with their numbers, as many as are there, until the job is over or ``alive`` says no."""
        number, rest = 0, b""
        with self._path.open("rb") as stream:
            while alive():
                finished = self._finished  # before reading: what was written before it is then read
                while data := stream.read(_PIECE):
                    *whole, rest = (rest + data).split(b"\n")
                    yield [(number + n, line + b"\n") for n, line in enumerate(whole)]
                    number += len(whole)
                if finished:
                    return
                with self._more:
                    if not self._finished:
                        self._more.wait(_SLICE)
