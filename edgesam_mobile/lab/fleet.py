"""A package on several devices at once: one thread a device, its jobs one after the other, every launch stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from edgesam_mobile.errors import DeviceError, EdgeSamError, StorageError, UsageError
from edgesam_mobile.lab.inputs import Inputs
from edgesam_mobile.lab.jobs import JobOptions, Planned, case_record, make_job, plan_cases, schedule, uploads
from edgesam_mobile.lab.links import DeviceLink, device_record
from edgesam_mobile.lab.protocol.events import Event
from edgesam_mobile.lab.protocol.launch import LaunchEvents
from edgesam_mobile.lab.protocol.stream import Ending
from edgesam_mobile.lab.records import DeviceRecord, LaunchRecord
from edgesam_mobile.package.manifest import Manifest

_FAILURES = 3  # launches in a row that a device may lose before it is left alone


class Watcher(Protocol):
    """Whoever shows a run while it goes on; called from the devices' threads."""

    def planned(self, device: str, cases: Sequence[str], launches: int) -> None: ...

    def sending(self, device: str, what: str, done: int, of: int) -> None: ...

    def event(self, device: str, case: str, index: int, event: Event) -> None: ...

    def launched(self, device: str, case: str, launch: LaunchRecord) -> None: ...

    def said(self, device: str, line: str) -> None: ...


@dataclass
class Outcome:
    """What became of one device.

    Attributes:
        planned, launches: how many launches were to be, and those that were.
        skipped: a line for each artefact that it cannot run, or not with a delegate that was asked for.
        delegates: all that its runtimes offer; ``None`` if it never answered.
        same_as: the key under which this run measures the same device already.
        error: why it was given up.
        unstored: where launches are kept that the store did not take.
    """

    device: str
    planned: int = 0
    launches: list[LaunchRecord] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    delegates: frozenset[str] | None = None
    same_as: str | None = None
    error: EdgeSamError | None = None
    unstored: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every launch that was to be is complete."""
        measured = sum(one.status == "complete" for one in self.launches) == self.planned > 0
        return self.error is None and (measured or self.same_as is not None)


def measure_on(
    links: Sequence[DeviceLink],
    package: Path,
    manifest: Manifest,
    inputs: Inputs,
    options: JobOptions,
    *,
    store: Callable[[LaunchRecord], None],
    watcher: Watcher,
    only: Sequence[str] = (),
) -> tuple[list[Outcome], bool]:
    """Measure a package on devices in parallel; jobs of one device never overlap.

    Args:
        store: keeps a launch; called by one thread at a time.
        only: ids of artefacts.

    Returns:
        What became of each device, and whether Ctrl-C ended it early; then the devices' jobs were cancelled and
        what they had measured is kept. A second Ctrl-C does not wait for that.
    """
    stop, lock = threading.Event(), threading.Lock()

    def kept(outcome: Outcome, launch: LaunchRecord) -> None:
        with lock:
            outcome.launches.append(launch)
            try:
                store(launch)
            except StorageError as error:
                outcome.unstored.append(error.message)

    claimed: dict[str, str] = {}

    def claim(device: str, key: str) -> str:
        with lock:
            return claimed.setdefault(device, key)

    runs = [_DeviceRun(link, package, manifest, inputs, options, only, watcher, kept, claim, stop) for link in links]
    threads = [threading.Thread(target=run.to_the_end, name=run.outcome.device, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    try:
        _join(threads)
    except KeyboardInterrupt:
        stop.set()
        for run, thread in zip(runs, threads, strict=True):
            if thread.is_alive():
                watcher.said(run.outcome.device, "its job is being ended; a second Ctrl-C does not wait for it")
        with suppress(KeyboardInterrupt):
            _join(threads)
    return [run.outcome for run in runs], stop.is_set()


def _join(threads: Sequence[threading.Thread]) -> None:
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(0.2)


def refuse_unoffered(outcomes: Sequence[Outcome], delegates: Sequence[str]) -> None:
    """Tell a delegate that no device has, which is a slip of the pen more often than a lack of the devices.

    Raises:
        UsageError: all devices answered, and none offers one of ``delegates``.
    """
    answers = [outcome.delegates for outcome in outcomes if outcome.same_as is None]
    offered = frozenset[str]().union(*(answer for answer in answers if answer is not None))
    if None not in answers and (unknown := [name for name in delegates if name not in offered]):
        raise UsageError(
            f"no device offers the delegate {unknown[0]!r}", hint=f"they offer {', '.join(sorted(offered)) or 'none'}"
        )


class _DeviceRun:
    """One device's part of a run, in a thread of its own."""

    def __init__(
        self,
        link: DeviceLink,
        package: Path,
        manifest: Manifest,
        inputs: Inputs,
        options: JobOptions,
        only: Sequence[str],
        watcher: Watcher,
        keep: Callable[[Outcome, LaunchRecord], None],
        claim: Callable[[str, str], str],
        stop: threading.Event,
    ) -> None:
        self.outcome = Outcome(link.key)
        link.stop = stop.is_set
        self._claim = claim
        self._link, self._package, self._manifest, self._inputs = link, package, manifest, inputs
        self._options, self._only, self._watcher, self._keep, self._stop = options, only, watcher, keep, stop

    def to_the_end(self) -> None:
        """Run; whatever goes wrong is in the outcome."""
        try:
            self._measure()
        except KeyboardInterrupt:
            pass  # the link was told to stop; what was measured is in the outcome
        except EdgeSamError as error:
            self.outcome.error = error
        # A fault of one device's thread must not take the others' measurements along.
        except Exception as error:
            self.outcome.error = EdgeSamError(f"unexpected {type(error).__name__}: {error}")
        if self.outcome.error is not None:
            self._watcher.said(self.outcome.device, f"given up: {self.outcome.error.message}")

    def _measure(self) -> None:
        if self._measured_elsewhere(self._link.identity()):
            return
        hello = self._link.open()
        try:
            if self._measured_elsewhere(hello.device.id):
                return
            device = device_record(self._link.key, hello)
            self.outcome.delegates = frozenset(d for runtime in hello.runtimes for d in runtime.delegates)
            cases, self.outcome.skipped = plan_cases(self._manifest, hello, self._options, self._only)
            order = list(schedule(cases, self._options))
            self.outcome.planned = len(order)
            self._watcher.planned(self.outcome.device, [_name(case) for case in cases], len(order))
            if not cases:
                raise DeviceError("the device runs none of what was asked for", hint="; ".join(self.outcome.skipped))
            self._send(cases)
            lost = 0
            for index, case in order:
                if self._stop.is_set():
                    return
                record = self._launch(index, case, device)
                lost = lost + 1 if record.status == "truncated" or not record.hello else 0
                if lost >= _FAILURES:
                    raise DeviceError(
                        f"{lost} launches in a row were lost: {record.error}",
                        hint="look at the device and start again",
                    )
        finally:
            self._link.close()

    def _measured_elsewhere(self, identity: str | None) -> bool:
        """Whether another link of this run leads to the same device, such as one by Wi-Fi beside one by cable."""
        if identity is None or (other := self._claim(identity, self._link.key)) == self._link.key:
            return False
        self.outcome.same_as = other
        line = f"the same device as {other}, which is measured: one device, one link"
        self.outcome.skipped.append(line)
        self._watcher.said(self._link.key, line)
        return True

    def _send(self, cases: Sequence[Planned]) -> None:
        files = dict(self._inputs.files)
        for case in cases:
            files |= uploads(self._package, case.artifact)
        for remote, local in files.items():
            if self._stop.is_set():
                return
            self._link.put(local, remote, partial(self._watcher.sending, self.outcome.device, local.name))

    def _launch(self, index: int, case: Planned, device: DeviceRecord) -> LaunchRecord:
        job = make_job(self._manifest, case, self._inputs, self._options, index)
        record = case_record(
            self._manifest, case.artifact, case.runtime, delegate=case.delegate, threads=case.threads
        )
        launch = LaunchEvents(job.job, record, device, index)

        def seen(event: Event) -> None:
            self._watcher.event(self.outcome.device, _name(case), index, event)
            if self._stop.is_set():
                raise KeyboardInterrupt  # as the session takes it: the job is cancelled, its last events come

        try:
            ended = self._link.run(job, launch, seen)
        except KeyboardInterrupt:
            ended = launch.record(Ending("truncated", code="truncated", message="interrupted"))
        except Exception as error:
            # Whatever it was, the measurement must survive it.
            why = f"unexpected {type(error).__name__}: {error}"
            self._keep(self.outcome, launch.record(Ending("truncated", code="truncated", message=why)))
            raise
        self._keep(self.outcome, ended)
        self._watcher.launched(self.outcome.device, _name(case), ended)
        return ended


def _name(case: Planned) -> str:
    threads = f"@{case.threads}" if case.threads else ""
    return f"{case.artifact.id}{f' {case.delegate}' if case.delegate else ''}{threads}"
