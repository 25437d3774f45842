"""Messages of the harness protocol as lines, and lines as messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from edgesam_mobile.errors import DeviceError, UsageError
from edgesam_mobile.lab.protocol.events import (
    Check,
    End,
    Error,
    Event,
    Hello,
    Phase,
    Ready,
    Result,
    Sample,
    State,
)
from edgesam_mobile.lab.protocol.fields import LONGEST_LINE, PROTOCOL, JobId, Part, Whole, Word
from edgesam_mobile.lab.protocol.requests import Bye, Cancel, Chunk, Fetch, Job, Put, Request

EVENTS: dict[str, type[Part]] = {
    "hello": Hello,
    "ready": Ready,
    "phase": Phase,
    "sample": Sample,
    "state": State,
    "check": Check,
    "result": Result,
    "error": Error,
    "end": End,
}
REQUESTS: dict[str, type[Part]] = {
    "put": Put,
    "chunk": Chunk,
    "job": Job,
    "cancel": Cancel,
    "fetch": Fetch,
    "bye": Bye,
}
_PATHS, _SIZES = ("path", "image", "mask"), ("bytes", "offset")
_SHOWN = 200  # characters of somebody else's words in one line


class BadMessage(DeviceError):
    """A line that is no message of this protocol.

    Attributes:
        code: the protocol's error code.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, hint="the harness and this program do not understand each other: update both")
        self.code = code


class Unknown(Part):
    """An event of a type that this program does not know: counted and skipped."""

    type: Word
    seq: Whole
    job: JobId | None = None


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """A request of a type that this program does not know."""

    type: str


def encode(message: BaseModel) -> bytes:
    """One line, with its newline.

    Raises:
        UsageError: the line would be longer than 1 MiB.
    """
    line = message.model_dump_json(by_alias=True).encode() + b"\n"
    if len(line) > LONGEST_LINE:
        raise UsageError(
            f"a message of {len(line)} bytes is longer than the protocol's 1 MiB",
            hint="use fewer golden prompts, or fewer points in each",
        )
    return line


def decode_event(line: bytes) -> Event | Unknown:
    """An event from one line, with or without its newline.

    Raises:
        BadMessage: no JSON object, another version, or a field that is missing or wrong; names the field.
    """
    return _decode(line, EVENTS) or _checked(Unknown, line, "event")  # type: ignore[return-value]


def decode_request(line: bytes) -> Request | UnknownRequest:
    """A request from one line, with or without its newline.

    Raises:
        BadMessage: no JSON object, another version, or a field that is missing or wrong; names the field.
    """
    return _decode(line, REQUESTS) or UnknownRequest(plain(str(_object(line)["type"])))  # type: ignore[return-value]


def _decode(line: bytes, kinds: dict[str, type[Part]]) -> Part | None:
    """A message of one of ``kinds``, or ``None`` for another type."""
    content = _object(line)
    name = content.get("type")
    if not isinstance(name, str):
        raise BadMessage("bad-line", "type: a message has one, and it is text")
    # Before all else: the fields of another version may differ.
    version = content.get("protocol", PROTOCOL)
    if version != PROTOCOL:
        raise BadMessage("unknown-version", f"protocol: {plain(str(version))} instead of {PROTOCOL}")
    kind = kinds.get(name)
    return None if kind is None else _checked(kind, line, name)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise BadMessage("too-large", f"a line of {len(line)} bytes; the limit is 1 MiB")
    try:
        content = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise BadMessage("bad-line", f"no JSON: {plain(str(error))}") from None
    if not isinstance(content, dict):
        raise BadMessage("bad-line", f"no JSON object but {type(content).__name__}")
    return content


def _checked(kind: type[Part], line: bytes, name: str) -> Part:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (name, *first["loc"]))
        raise BadMessage(_code(first), f"{plain(place)}: {plain(first['msg'])}") from None


def _code(wrong: ErrorDetails) -> str:
    field, kind = wrong["loc"][-1] if wrong["loc"] else "", wrong["type"]
    if field in _PATHS and kind in ("string_pattern_mismatch", "string_too_long", "value_error"):
        return "bad-path"
    if kind == "too_long" or (field in _SIZES and kind == "less_than_equal"):
        return "too-large"
    return "bad-line"


def plain(text: str) -> str:
    """Somebody else's words, fit for one line on a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN]).strip()
