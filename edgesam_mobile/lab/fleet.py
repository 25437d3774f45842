"""A package on several devices at once: one thread a device, its jobs one after the other, every launch stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from edgesam_mobile.errors import DeviceError, EdgeSamError, StorageError
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
        skipped: a line for each artefact that it cannot run.
        error: why it was given up.
        unstored: where launches are kept that the store did not take.
    """

    device: str
    planned: int = 0
    launches: list[LaunchRecord] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    error: EdgeSamError | None = None
    unstored: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every launch that was to be is complete."""
        return self.error is None and sum(one.status == "complete" for one in self.launches) == self.planned > 0


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
        what they had measured is kept.
    """
    stop, lock = threading.Event(), threading.Lock()

    def kept(outcome: Outcome, launch: LaunchRecord) -> None:
        with lock:
            outcome.launches.append(launch)
            try:
                store(launch)
            except StorageError as error:
                outcome.unstored.append(error.message)

    runs = [_DeviceRun(link, package, manifest, inputs, options, only, watcher, kept, stop) for link in links]
    threads = [threading.Thread(target=run.to_the_end, name=run.outcome.device, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    interrupted = False
    while any(thread.is_alive() for thread in threads):
        try:
            for thread in threads:
                thread.join(0.2)
        except KeyboardInterrupt:
            interrupted = True
            stop.set()
    return [run.outcome for run in runs], interrupted


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
        stop: threading.Event,
    ) -> None:
        self.outcome = Outcome(link.key)
        self._link, self._package, self._manifest, self._inputs = link, package, manifest, inputs
        self._options, self._only, self._watcher, self._keep, self._stop = options, only, watcher, keep, stop

    def to_the_end(self) -> None:
        """Run; whatever goes wrong is in the outcome."""
        try:
            self._measure()
        except EdgeSamError as error:
            self.outcome.error = error
        # A fault of one device's thread must not take the others' measurements along.
        except Exception as error:
            self.outcome.error = EdgeSamError(f"unexpected {type(error).__name__}: {error}")
        if self.outcome.error is not None:
            self._watcher.said(self.outcome.device, f"given up: {self.outcome.error.message}")

    def _measure(self) -> None:
        hello = self._link.open()
        try:
            device = device_record(self._link.key, hello)
            cases, self.outcome.skipped = plan_cases(self._manifest, hello, self._options, self._only)
            order = list(schedule(cases, self._options))
            self.outcome.planned = len(order)
            self._watcher.planned(self.outcome.device, [_name(case) for case in cases], len(order))
            if not cases:
                raise DeviceError(
                    "the device runs none of the package's artefacts", hint="; ".join(self.outcome.skipped)
                )
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
        self._keep(self.outcome, ended)
        self._watcher.launched(self.outcome.device, _name(case), ended)
        return ended


def _name(case: Planned) -> str:
    threads = f"@{case.threads}" if case.threads else ""
    return f"{case.artifact.id}{f' {case.delegate}' if case.delegate else ''}{threads}"
