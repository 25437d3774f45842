"""One connection to a harness: requests out, events in, nothing without a time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pydantic import BaseModel

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.protocol.events import Error, Event
from edgesam_mobile.lab.protocol.messages import encode, plain
from edgesam_mobile.lab.protocol.stream import Fault, Reader, Sequence

_PIECE = 1 << 16
_SLICE = 0.2  # seconds between two looks at whether somebody wants to stop

HINTS = {
    "no-space": "free some storage on the device, or remove old models from the harness",
    "busy": "wait until the other session or job is over, or stop it",
    "hot": "let the device cool down, take it off the charger, or allow a hotter start",
    "no-runtime": "install the harness that has this runtime",
    "no-delegate": "choose another delegate, or another device",
    "hash-mismatch": "try again; if it stays so, the cable or the device's storage is at fault",
    "unknown-version": "install the harness that belongs to this version of edgesam-mobile",
    "unknown-type": "install the harness that belongs to this version of edgesam-mobile",
    "load-failed": "the runtime's own words are in the message; try another precision or delegate",
    "run-failed": "the runtime's own words are in the message; try another precision or delegate",
    "too-large": "use a smaller model or fewer golden prompts",
}
FRUITLESS = 3  # connections in a row that bring nothing new, before a device is given up
_REPORT = "start the harness anew; if it stays so, please report it"


class Connection(Protocol):
    """What is used of a socket."""

    def settimeout(self, value: float | None, /) -> None: ...

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Patience:
    """Seconds to wait at most.

    Attributes:
        idle: for an answer outside a job.
        job: for the next event within a job.
        busy: for the session before to be over.
        reconnect: for a lost device to come back, each time.
        cancel: for a cancelled job to end.
        whole: for a job altogether.
    """

    idle: float = 10.0
    job: float = 120.0
    busy: float = 2.0
    reconnect: float = 90.0
    cancel: float = 15.0
    whole: float = 24 * 3600.0


class LinkLost(DeviceError):
    """The connection is of no more use: closed, silent, or what comes over it is damaged.

    Attributes:
        fault: in the latter case.
    """

    def __init__(self, message: str, fault: Fault | None = None) -> None:
        super().__init__(message, hint="look at the cable, the device's screen and whether the harness still runs")
        self.fault = fault


class Refusal(DeviceError):
    """The device said ``error``; its own hint goes before ours.

    Attributes:
        code: the protocol's.
    """

    def __init__(self, error: Error) -> None:
        hint = plain(error.hint) if error.hint else HINTS.get(error.code, _REPORT)
        super().__init__(f"the device refuses: {plain(error.message)} ({error.code})", hint=hint)
        self.code = error.code


class Interrupts:
    """Ctrl-C as a wish that is looked at between two messages, so that none is torn; a second one is not waited for.

    Outside the main thread, where Python delivers none, and where somebody else handles them, it changes nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._ours = False

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._ours = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Link:
    """A connection, from the harness's ``hello`` on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = Reader("duplex")
        self._waiting: deque[Event] = deque()

    def expect(self, job: str, sequence: Sequence) -> None:
        """Events of a job are to come, from any ``seq`` on that leaves no gap; those of others are forgotten."""
        self._reader.expect(job, sequence)

    def send(self, message: BaseModel, within: float) -> None:
        """Send a request.

        Raises:
            LinkLost: closed, or not taken within so many seconds.
        """
        try:
            self._connection.settimeout(within)
            self._connection.sendall(encode(message))
        except TimeoutError:
            raise LinkLost(f"the device has taken nothing for {within:.3g} s") from None
        except OSError as error:
            # Why the harness hung up may have come before.
            self._receive_rest()
            if not self._waiting:
                raise LinkLost(f"the connection was lost: {reason(error)}") from None

    def has_event(self) -> bool:
        """Whether an event has come, without waiting."""
        if not self._waiting:
            self._receive(0.0)
        return bool(self._waiting)

    def next(self, within: float, *, stop: Callable[[], bool] = lambda: False) -> Event | None:
        """The next event; ``None`` as soon as ``stop`` says so.

        Raises:
            LinkLost: closed, damaged, or nothing for so many seconds.
        """
        deadline = time.monotonic() + within
        while True:
            if stop():
                return None
            if self._waiting:
                return self._waiting.popleft()
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkLost(f"the device has said nothing for {within:.3g} s")
            self._receive(min(left, _SLICE))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _receive(self, within: float) -> None:
        """Take what comes first; all good events before a loss are given out before the loss is told."""
        if self._reader.fault is not None:
            raise LinkLost(
                f"what the device sends is damaged: {self._reader.fault.message} ({self._reader.fault.code})",
                self._reader.fault,
            )
        try:
            self._connection.settimeout(within)
            data = self._connection.recv(_PIECE)
        except (TimeoutError, BlockingIOError):
            return
        except OSError as error:
            raise LinkLost(f"the connection was lost: {reason(error)}") from None
        if not data:
            raise LinkLost("the device has closed the connection")
        self._waiting.extend(self._reader.feed(data))

    def _receive_rest(self) -> None:
        try:
            while not self._waiting:
                self._receive(_SLICE)
        except LinkLost:
            return


def reason(error: OSError) -> str:
    """Why the system refuses, in one line."""
    return error.strerror or plain(str(error)) or type(error).__name__
