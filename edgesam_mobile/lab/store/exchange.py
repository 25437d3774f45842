"""Runs and launches as JSON Lines: the form of exports, and of launches that could not be stored.

{"schema": "edgesam.run/1", "run": ID}
{"type": "run", …}                       at most one
{"type": "launch", …}                    as often as there are launches, each followed by its
{"type": "sample", …}, {"type": "state", …}
{"type": "end", "lines": N, "sha256": of all lines before this one}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from edgesam_mobile.errors import StorageError
from edgesam_mobile.files import atomic_file
from edgesam_mobile.lab.records import LaunchRecord, RunRecord

SCHEMA = "edgesam.run/1"
_LONGEST = 64 << 20  # bytes of a line; what a device says of itself is below 1 MiB
_COPY = "have it exported again"


def write(path: Path, run_id: str, run: RunRecord | None, launches: Iterable[LaunchRecord]) -> None:
    """Write a run's head, where known, and these launches; the file appears when it is whole and on the disk.

    Raises:
        StorageError: it cannot be written.
    """
    digest, count = hashlib.sha256(), 0
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        for record in _file_lines(run_id, run, launches):
            # A value of no JSON type must not be what loses a measurement.
            line = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
            digest.update(line)
            stream.write(line)
            count += 1
        end = {"type": "end", "lines": count, "sha256": digest.hexdigest()}
        stream.write(json.dumps(end, separators=(",", ":")).encode() + b"\n")


def same(one: LaunchRecord, other: LaunchRecord) -> bool:
    """Whether two launches are the same once written; a tuple in a dictionary comes back as a list."""
    return [json.dumps(line, sort_keys=True, default=str) for line in _launch_lines(one)] == [
        json.dumps(line, sort_keys=True, default=str) for line in _launch_lines(other)
    ]


def verify(path: Path) -> None:
    """Check that a file is whole and unaltered, before anything is made of it.

    Raises:
        StorageError: it is truncated, altered, of another kind or of a newer version, or cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    with _reading(path):
        for line in _raw_lines(path):
            record = _parse(path, line)
            if count == 0 and record.get("schema") != SCHEMA:
                _refuse_kind(path, record.get("schema"))
            if record.get("type") == "end":
                break
            digest.update(line)
            count += 1
        else:
            raise StorageError(f"{path} is cut off after {count} lines", hint=_COPY)
        if (record.get("lines"), record.get("sha256")) != (count, digest.hexdigest()):
            raise StorageError(f"{path} was altered or damaged", hint=_COPY)


def read(path: Path) -> Iterator[tuple[str, RunRecord | LaunchRecord]]:
    """The records of a verified file, each after the id of its run; a launch with its samples and states.

    Raises:
        StorageError: a line says what no record says.
    """
    run_id, pending = "", None
    with _reading(path):
        for line in _raw_lines(path):
            record = _parse(path, line)
            match record.pop("type", None):
                case None:
                    run_id = str(record.get("run"))
                case "run":
                    yield run_id, _made(path, RunRecord, record)
                case "launch" | "end" as kind:
                    if pending is not None:
                        yield run_id, _made(path, LaunchRecord, pending)
                    pending = record | {"samples": [], "states": []} if kind == "launch" else None
                case "sample" | "state" as kind if pending is not None:
                    pending[f"{kind}s"].append(record)
                case other:
                    raise StorageError(f"{path} has a line of unexpected type {other!r:.40}", hint=_COPY)


def _file_lines(run_id: str, run: RunRecord | None, launches: Iterable[LaunchRecord]) -> Iterator[dict[str, Any]]:
    yield {"schema": SCHEMA, "run": run_id}
    if run is not None:
        head = {"type": "run"} | asdict(replace(run, launches=()))
        del head["launches"]
        yield head
    for launch in launches:
        yield from _launch_lines(launch)


def _launch_lines(launch: LaunchRecord) -> Iterator[dict[str, Any]]:
    head = {"type": "launch"} | asdict(replace(launch, samples=(), states=()))
    del head["samples"], head["states"]
    yield head
    for sample in launch.samples:
        yield {"type": "sample"} | {name: getattr(sample, name) for name in sample.__slots__}
    for state in launch.states:
        yield {"type": "state", "seq": state.seq, "at_ns": state.at_ns, "body": state.body}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", hint="give another file") from error


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST):
            yield line


def _parse(path: Path, line: bytes) -> dict[str, Any]:
    try:
        # Python takes NaN and Infinity, which JSON has not.
        record = json.loads(line, parse_constant=_no_number) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise StorageError(f"{path} is no export of runs, or is damaged", hint=_COPY)
    return record


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _refuse_kind(path: Path, schema: object) -> NoReturn:
    name, _, version = str(schema).partition("/")
    if name == SCHEMA.partition("/")[0] and version.isdecimal():
        raise StorageError(f"{path} is of a newer version: {name}/{version}", hint="install a newer edgesam-mobile")
    raise StorageError(f"{path} is no export of runs", hint="make one with `edgesam-mobile history export`")


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _made(path: Path, kind: type, record: dict[str, Any]) -> Any:
    try:
        return _adapter(kind).validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(f"{path}: a {kind.__name__} whose {where} is wrong: {first['msg']}", hint=_COPY) from error
