"""What is kept of a benchmark: runs, launches, samples. The same for every device, in the store and in exports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

RunStatus = Literal["running", "complete", "partial"]
LaunchStatus = Literal["complete", "failed", "cancelled", "truncated"]
DeviceClass = Literal["android", "ios", "emulator", "host", "simulated"]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One timing; stages and clock as in ``docs/protocol.md``.

    Attributes:
        seq: its place in the device's stream; unique within a launch.
        ns: how long it took.
        at_ns: the device's monotonic clock as it ended.
        cpu_ns: processor time of all threads, where the device tells it.
    """

    seq: int
    stage: str
    round: int
    ns: int
    at_ns: int
    cpu_ns: int | None = None


@dataclass(frozen=True, slots=True)
class StateRecord:
    """The device's state at a moment: the fields of the protocol's ``state`` event."""

    seq: int
    at_ns: int
    body: dict[str, Any]


@dataclass(frozen=True)
class DeviceRecord:
    """Where something was measured.

    Attributes:
        key: how it is addressed, such as ``host`` or ``adb:SERIAL``; stays the same from day to day.
        kind: the protocol's ``class``.
        info: the protocol's ``device``: maker, model, OS, SoC, memory.
    """

    key: str
    kind: DeviceClass
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseRecord:
    """What was measured: an artefact (or a baseline) on a runtime, with its options.

    Attributes:
        id: the artefact's id in its manifest, or the baseline's name.
        delegate: the one asked for; the one applied stands in each launch's ``result``.
        sha256: of the encoder and of the decoder; empty for baselines.
        bytes: of both files together.
        accuracy: mIoU in percent by prompt (``box``, ``centre`` …) as the manifest records it; empty if unmeasured.
        reference: PyTorch's on the same objects, likewise.
    """

    id: str
    format: str
    precision: str
    runtime: str
    delegate: str | None = None
    threads: int | None = None
    sha256: tuple[str, ...] = ()
    bytes: int | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    reference: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LaunchRecord:
    """One process that measured one case on one device.

    Attributes:
        id: a UUID in hexadecimal; the job's id in the protocol.
        index: the round of the interleaved run that it belongs to, from 0.
        started, ended: ISO 8601 in UTC, by the desktop's clock; for people, never subtracted.
        hello, check, result: the events of that name, without what the envelope says.
        error: one line on why it is not complete.
    """

    id: str
    case: CaseRecord
    device: DeviceRecord
    index: int
    status: LaunchStatus
    started: str
    ended: str
    error: str | None = None
    hello: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    samples: tuple[SampleRecord, ...] = ()
    states: tuple[StateRecord, ...] = ()

    def times(self, stage: str) -> list[float]:
        """Milliseconds of a stage, in order of time."""
        return [sample.ns / 1e6 for sample in self.samples if sample.stage == stage]


@dataclass(frozen=True)
class RunRecord:
    """One ``bench``: a package measured on one or several devices.

    Attributes:
        id: a UUID in hexadecimal.
        tags: names that people gave it, such as ``release-1.2``.
        package_sha256: of the manifest.
        settings: launches, seconds, seed and so on, as they were asked for.
        tools: versions of this project and of what it used.
        status: ``running`` until it ended; ``partial`` where launches are missing.
    """

    id: str
    created: str
    status: RunStatus
    model: str
    weights_sha256: str
    trained: bool
    package_sha256: str
    settings: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    launches: tuple[LaunchRecord, ...] = ()
