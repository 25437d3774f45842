"""Targets: what an artefact must reach, where, and by what evidence; and figures that others published.

Both are TOML files. Those in this folder are known by their names; a file of one's own is given by its path.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.records import DeviceClass
from edgesam_mobile.lab.summary import Thermal

T = TypeVar("T")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1, max_length=200)]

_PUBLISHED = "published"
_UNKNOWN = "unexpected_keyword_argument"


class _Closed:
    """Its dataclasses take no keys but their own."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class TargetDevice(_Closed):
    """Whose time counts: no other class, no other model.

    Attributes:
        kind: the protocol's ``class``.
        name: for people.
        models: what such devices call themselves, such as ``iPhone14,7``.
    """

    kind: DeviceClass
    name: Text
    models: Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Evidence(_Closed):
    """What it takes to call the target met or missed.

    Attributes:
        frames, launches: measured, at least.
        thermal: the hottest state that still counts.
        mask_iou: agreement with PyTorch of every golden prompt's mask, at least; of artefacts in fp32 and fp16.
        miou_drop: points of mIoU on annotated pictures that any other artefact may lose against PyTorch.
        delegate: ``told`` wants the runtime to say that it ran on the delegate asked for; ``asked`` takes that on
            trust where it says nothing. One that tells another delegate is never evidence.
    """

    frames: Count = 100
    launches: Annotated[int, Field(ge=2)] = 5  # one launch gives no interval
    thermal: Thermal = "fair"
    mask_iou: Annotated[float, Field(ge=0, le=1)] = 0.95
    miou_drop: Annotated[float, Field(ge=0, le=100)] = 1.0
    delegate: Literal["told", "asked"] = "told"


@dataclass(frozen=True)
class Target(_Closed):
    """One target, as its file says it.

    Attributes:
        p90_ms: nine whole frames of ten, from picture to mask, must be within that many milliseconds.
    """

    title: Text
    p90_ms: Positive
    device: TargetDevice
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Published(_Closed):
    """A figure of others, never measured here.

    Attributes:
        what: model, size, format.
        stage: what of it was timed.
        ms: the value, or the ends of a range; empty where only frames a second were published.
        source: where it stands.
    """

    what: Text
    device: Text
    stage: Text
    source: Text
    ms: Annotated[tuple[Positive, ...], Field(max_length=2)] = ()
    fps: Positive | None = None

    @property
    def ms_text(self) -> str:
        """The milliseconds for people: a value, a range or a dash."""
        return " to ".join(f"{value:g}" for value in self.ms) or "–"


@dataclass(frozen=True)
class _Figures(_Closed):
    figure: tuple[Published, ...]


def target_names() -> list[str]:
    """Targets that come along."""
    names = (Path(file.name).stem for file in files(__package__).iterdir() if file.name.endswith(".toml"))
    return sorted(name for name in names if name != _PUBLISHED)


def load_target(name: str) -> Target:
    """Read one of the targets that come along, or a TOML file.

    Raises:
        UsageError: there is none of that name, or the file is not a target (says where).
    """
    if name in target_names():
        return _parse(Target, files(__package__).joinpath(f"{name}.toml").read_bytes(), name)
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        try:
            return _parse(Target, path.read_bytes(), str(path))
        except OSError as error:
            raise UsageError(f"cannot read the target {name}: {error.strerror}", hint="give a TOML file") from error
    near = difflib.get_close_matches(name, target_names(), n=1)
    known = f"there are {', '.join(target_names())}, and FILE.toml"
    raise UsageError(f"there is no target {name!r}", hint=f"did you mean {near[0]}?" if near else known)


@cache
def published() -> tuple[Published, ...]:
    """Figures of others with their sources."""
    content = files(__package__).joinpath(f"{_PUBLISHED}.toml").read_bytes()
    return _parse(_Figures, content, _PUBLISHED).figure


def _parse(kind: type[T], content: bytes, where: str) -> T:
    try:
        table = tomllib.loads(content.decode("utf-8"))
        # By way of JSON, since strict checks of Python values refuse lists where tuples are wanted.
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        return adapter.validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        # What is missing is often there under a wrong name, so that comes first.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != _UNKNOWN)
        message, hint = _told(kind, faults[0])
        raise UsageError(f"{where}: {message}", hint=hint) from error
    except ValueError as error:  # of TOML or of UTF-8
        line = str(error).splitlines()[0]
        raise UsageError(f"{where} is no TOML file: {line}", hint="see the targets that come along") from error


def _told(kind: type, error: ErrorDetails) -> tuple[str, str]:
    """A validation error as a message and a hint, with the nearest name for an unknown key."""
    path = error["loc"]
    option = ".".join(map(str, path))
    if error["type"] == _UNKNOWN:
        known = _options(kind, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"unknown option {option}", f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{option} is missing", "see the targets that come along"
    reason = error["msg"]
    return f"{option}: {reason[:1].lower()}{reason[1:]}", "see the targets that come along"


def _options(kind: Any, path: Sequence[int | str]) -> list[str]:
    """Names of the fields of the dataclass that lies at a path of keys and indices."""
    for step in path:
        kind = get_args(kind)[0] if isinstance(step, int) else get_type_hints(kind)[step]
    return [option.name for option in fields(kind)] if is_dataclass(kind) else []
