"""What a device sends: the events of ``docs/protocol.md``, one class a ``type``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesam_mobile.lab.protocol.fields import (
    PROTOCOL,
    Battery,
    Device,
    FileSize,
    Harness,
    JobId,
    MaskCheck,
    Memory,
    Part,
    PlacedOperation,
    RelativePath,
    Runtime,
    Share,
    Thermal,
    WarmedUp,
    Whole,
    Word,
)

PhaseName = Literal["gate", "check", "load", "first", "warm-up", "measure"]


class _Event(Part):
    seq: Whole


class _JobEvent(_Event):
    job: JobId


class Hello(_Event):
    """First of every stream; ``job`` where the stream is a job's."""

    type: Literal["hello"] = "hello"
    job: JobId | None = None
    protocol: Literal["edgesam.harness/1"] = PROTOCOL
    harness: Harness
    device: Device
    runtimes: tuple[Runtime, ...]


class Ready(_Event):
    """How much of a file is there, and whether it is whole and under its name."""

    type: Literal["ready"] = "ready"
    path: RelativePath
    offset: FileSize
    complete: bool


class Phase(_JobEvent):
    """A phase of the job begins."""

    type: Literal["phase"] = "phase"
    name: PhaseName
    at_ns: Whole


class Sample(_JobEvent):
    """One timing: ``ns`` long, ended at ``at_ns``; ``cpu_ns`` is processor time of all threads."""

    type: Literal["sample"] = "sample"
    stage: Word
    round: Whole
    ns: Whole
    at_ns: Whole
    cpu_ns: Whole | None = None


class State(_JobEvent):
    """The device's state at a moment."""

    type: Literal["state"] = "state"
    at_ns: Whole
    thermal: Thermal | None = None
    headroom: float | None = None
    battery: Battery | None = None
    low_power: bool | None = None
    clocks_khz: tuple[Whole | None, ...] | None = None
    memory: Memory | None = None


class Check(_JobEvent):
    """The golden prompts' masks against the expected ones, in the order of ``golden``."""

    type: Literal["check"] = "check"
    masks: tuple[MaskCheck, ...]
    least_iou: Share
    passed: bool


class Result(_JobEvent):
    """What was really run, and how much of it; ``placement`` as the runtime planned it, where it tells."""

    type: Literal["result"] = "result"
    requested: str | None = None
    applied: str | None = None
    threads: Whole | None = None
    warm_up: WarmedUp
    rounds: Whole
    note: str | None = None
    placement: tuple[PlacedOperation, ...] | None = None


class Error(_Event):
    """What went wrong, with ``job`` where it belongs to one."""

    type: Literal["error"] = "error"
    job: JobId | None = None
    code: Word
    message: str
    hint: str | None = None


class End(_JobEvent):
    """Last of a job's stream; ``counts``: how many events of each type came before it."""

    type: Literal["end"] = "end"
    status: Literal["complete", "failed", "cancelled"]
    counts: dict[str, Whole]


Event = Hello | Ready | Phase | Sample | State | Check | Result | Error | End
AnyEvent = Annotated[Event, Field(discriminator="type")]


def job_of(event: Event) -> str | None:
    """The job that an event belongs to; ``None`` for the session's own."""
    return None if isinstance(event, Ready) else event.job
