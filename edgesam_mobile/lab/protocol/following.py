"""A job on a device, followed to its end over as many connections as it takes, without a loss or a double."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.protocol.events import End, Error, Event, job_of
from edgesam_mobile.lab.protocol.link import FRUITLESS, Interrupts, Link, LinkLost, Refusal
from edgesam_mobile.lab.protocol.messages import plain
from edgesam_mobile.lab.protocol.requests import Cancel, Fetch, Job, Request
from edgesam_mobile.lab.protocol.stream import Ending, Sequence

if TYPE_CHECKING:
    from edgesam_mobile.lab.protocol.session import Session

OnEvent = Callable[[Event], None]


class Following:
    """Follows one job.

    Args:
        sequence: what was seen of its stream already; it grows as events come.
        job: to start it; ``None`` to take up one that was started before.
        stop: asked again and again whether to cancel the job; once it has said so, it is not asked any more.
    """

    def __init__(
        self,
        session: Session,
        id: str,
        sequence: Sequence,
        on_event: OnEvent,
        job: Job | None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._session, self._id, self._sequence, self._on_event, self._job = session, id, sequence, on_event, job
        self._patience = session.patience
        self._interrupts, self._stop = Interrupts(), stop
        self._over = time.monotonic() + self._patience.whole
        self._cancel_sent = False
        self._own = None if job is None else job.job  # only who started a job ends it
        self._fetching = job is None

    def to_the_end(self) -> Ending:
        """See :meth:`Session.run`."""
        with self._interrupts:
            try:
                ending = self._ending()
            except BaseException:
                self._session.drop(cancelling=self._own)
                raise
            if ending.kind != "whole" or self._cancel_sent:
                self._session.drop()  # what it may still send belongs to nobody
            if self._interrupts.asked:
                raise KeyboardInterrupt
            return ending

    def _ending(self) -> Ending:
        requests: list[Request] = [self._fetch() if self._job is None else self._job]
        fruitless = 0
        while True:
            seen = self._sequence.next
            try:
                link = self._session.link()
                link.expect(self._id, self._sequence)
                for request in requests:
                    link.send(request, self._patience.idle)
                ending = self._take(link)
                if ending is not None:
                    return ending
                assert self._job is not None
                requests, self._fetching = [self._job], False
            except LinkLost as lost:
                self._session.drop(cancelling=self._own if self._out_of_time() else None)
                fruitless = fruitless + 1 if self._sequence.next == seen else 0
                if fruitless >= FRUITLESS or self._out_of_time():
                    return self._given_up(lost)
                try:
                    self._session.open_again(lost, self._left(self._patience.reconnect), stop=self._asked)
                except DeviceError as gone:
                    return self._given_up(gone)
                requests = [self._cancel()] if self._interrupts.asked else []
                requests.append(self._fetch())
                self._fetching = True

    def _take(self, link: Link) -> Ending | None:
        """Events until the last; ``None`` if the job never arrived and is to be sent again."""
        while True:
            event = link.next(self._left(self._patience.job), stop=self._is_to_cancel)
            if event is None:
                link.send(self._cancel(), self._patience.idle)
            elif job_of(event) == self._id:
                self._give(event)
                if isinstance(event, End):
                    return Ending("whole", status=event.status)
            elif isinstance(event, Error):
                if event.code == "not-found" and self._cancel_sent:
                    continue  # it had ended before the wish arrived: its `end` is on the way
                return self._told(event)
            elif job_of(event) is not None:
                raise LinkLost(f"the device sends events of {job_of(event)}, which nobody asked for")

    def _told(self, error: Error) -> Ending | None:
        """What an error outside the job's stream means for it."""
        if error.code == "job-lost":
            return Ending("truncated", code="truncated", message=f"the device lost the job: {plain(error.message)}")
        if self._sequence.next > 0:
            raise LinkLost(f"the device says: {plain(error.message)} ({error.code})")
        if error.code == "not-found" and self._fetching and self._job is not None:
            return None
        raise Refusal(error)

    def _give(self, event: Event) -> None:
        try:
            self._on_event(event)
        except KeyboardInterrupt:
            self._interrupts.asked = True

    def _given_up(self, error: DeviceError) -> Ending:
        if self._sequence.next == 0 and not self._interrupts.asked:
            raise error
        fault = error.fault if isinstance(error, LinkLost) else None
        if fault is not None:
            return Ending("damaged", code=fault.code, message=error.message)
        late = f"no end in {self._patience.whole:g} s; " if self._out_of_time() and not self._cancel_sent else ""
        return Ending("truncated", code="truncated", message=late + error.message)

    def _is_to_cancel(self) -> bool:
        return self._asked() and not self._cancel_sent

    def _asked(self) -> bool:
        self._interrupts.asked = self._interrupts.asked or self._stop()
        return self._interrupts.asked

    def _left(self, patience: float) -> float:
        return max(0.0, min(patience, self._over - time.monotonic()))

    def _out_of_time(self) -> bool:
        return time.monotonic() >= self._over

    def _cancel(self) -> Cancel:
        if not self._cancel_sent:
            self._cancel_sent = True
            self._over = min(self._over, time.monotonic() + self._patience.cancel)
        return Cancel(job=self._id)

    def _fetch(self) -> Fetch:
        return Fetch(job=self._id, from_seq=self._sequence.next)
