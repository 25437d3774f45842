"""From the events of one job to the launch that is kept: what was measured, and how honestly it ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.protocol.events import Check, Error, Event, Hello, Result, Sample, State
from edgesam_mobile.lab.protocol.messages import plain
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.protocol.stream import Ending
from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord, LaunchStatus, SampleRecord, StateRecord


class LaunchEvents:
    """Gathers a job's events, each given once and in order; :meth:`record` is right at any time.

    Args:
        id: the job's.
        index: the round of the interleaved run that it belongs to.

    Attributes:
        cancelled: somebody here wanted it to end early, whatever the device still says.
        failure: one line on why this program gave it up.
    """

    def __init__(self, id: str, case: CaseRecord, device: DeviceRecord, index: int) -> None:
        self.id, self.case, self.device, self.index = id, case, device, index
        self.cancelled = False
        self.failure: str | None = None
        self._started = _now()
        self._hello: Hello | None = None
        self._check: Check | None = None
        self._result: Result | None = None
        self._error: Error | None = None
        self._samples: list[SampleRecord] = []
        self._states: list[StateRecord] = []

    def take(self, event: Event) -> None:
        """The next event of the job."""
        if isinstance(event, Sample):
            self._samples.append(
                SampleRecord(event.seq, event.stage, event.round, event.ns, event.at_ns, event.cpu_ns)
            )
        elif isinstance(event, State):
            self._states.append(StateRecord(event.seq, event.at_ns, _body(event)))
        elif isinstance(event, Hello):
            self._hello = event
        elif isinstance(event, Check):
            self._check = event
        elif isinstance(event, Result):
            self._result = event
        elif isinstance(event, Error):
            self._error = self._error or event  # the first is the cause

    def record(self, ending: Ending) -> LaunchRecord:
        """The launch as its stream ended; whatever came is in it, however that was."""
        status, error = self._outcome(ending)
        return LaunchRecord(
            id=self.id,
            case=self.case,
            device=self.device,
            index=self.index,
            status=status,
            started=self._started,
            ended=_now(),
            error=error,
            hello={} if self._hello is None else _body(self._hello),
            check=None if self._check is None else _body(self._check),
            result=None if self._result is None else _body(self._result),
            samples=tuple(self._samples),
            states=tuple(self._states),
        )

    def _outcome(self, ending: Ending) -> tuple[LaunchStatus, str | None]:
        if self.cancelled or ending.status == "cancelled":
            return "cancelled", "cancelled before it was complete"
        if self.failure is not None:
            return "failed", self.failure
        if ending.kind != "whole":
            return "truncated", ending.message
        if ending.status == "failed":
            return "failed", self._cause()
        # A device may say what it likes: without a passed check and a result there is nothing to believe.
        if self._check is None or not self._check.passed or self._result is None:
            return "failed", "the device calls the job complete, but its check did not pass or its result is missing"
        return "complete", None

    def _cause(self) -> str:
        if self._error is not None:
            return f"{self._error.code}: {plain(self._error.message)}"
        if self._check is not None and not self._check.passed:
            worst = min((mask.iou for mask in self._check.masks), default=0.0)
            return f"check failed: a mask's IoU is {worst:.4f}, at least {self._check.least_iou:g} is wanted"
        return "the device says that it failed, and not why"


def measure(
    session: Session,
    job: Job,
    launch: LaunchEvents,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> LaunchRecord:
    """Run a job and keep whatever comes of it: refusals and lost devices make a launch, too, not an error.

    Args:
        stop: asked while something is waited for: whether to cancel the job.

    Raises:
        KeyboardInterrupt: after the job was cancelled; ``launch`` has what was measured and is marked cancelled.
    """

    def take(event: Event) -> None:
        launch.take(event)
        on_event(event)

    try:
        return launch.record(session.run(job, take, stop=stop))
    except DeviceError as error:
        launch.failure = error.message
        return launch.record(Ending("truncated", code="truncated", message=error.message))
    except KeyboardInterrupt:
        launch.cancelled = True
        raise


def _body(event: BaseModel) -> dict[str, Any]:
    """An event without what the envelope says, as JSON has it."""
    return event.model_dump(mode="json", by_alias=True, exclude={"type", "seq", "job"})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
