"""A device as a run uses it, however it is connected: files to it, jobs on it, launches back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.protocol.events import Event, Hello
from edgesam_mobile.lab.protocol.launch import LaunchEvents, measure
from edgesam_mobile.lab.protocol.link import Connection, Patience, Refusal
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.records import DeviceRecord, LaunchRecord

_LEAVING = 2.0  # seconds that a session may take to end
OnEvent = Callable[[Event], None]
OnBytes = Callable[[int, int], None]


def never() -> bool:
    """Nobody wants to stop."""
    return False


class DeviceLink(Protocol):
    """One device, connected.

    Attributes:
        key: how it is addressed.
        stop: asked while something is sent or waited for: whether to raise ``KeyboardInterrupt`` instead.
    """

    key: str
    stop: Callable[[], bool]

    def identity(self) -> str | None:
        """What tells it from all other devices, before anything is started there; ``None`` if only ``hello`` does."""
        ...

    def open(self) -> Hello:
        """Connect, and say what is there.

        Raises:
            DeviceError: it is not there, busy, or of another version.
        """
        ...

    def put(self, source: Path, path: str, on_bytes: OnBytes) -> None:
        """Send a file or folder unless it is there.

        Raises:
            DeviceError: the device refuses it or is lost.
            KeyboardInterrupt: ``stop`` says so; what is there already is not sent again next time.
        """
        ...

    def run(self, job: Job, launch: LaunchEvents, on_event: OnEvent) -> LaunchRecord:
        """Run a job to its end; whatever becomes of it is a launch.

        Raises:
            KeyboardInterrupt: after the job was cancelled; ``launch`` has what was measured.
        """
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class DuplexLink:
    """A harness behind a socket.

    Args:
        connect: makes a new connection; raises ``OSError`` while the device is not there.
    """

    def __init__(self, key: str, connect: Callable[[], Connection], *, patience: Patience | None = None) -> None:
        self.key = key
        self.stop: Callable[[], bool] = never
        self._session = Session(connect, patience=patience)

    def identity(self) -> str | None:
        return None  # a harness serves one session at a time: the second link is refused

    def open(self) -> Hello:
        deadline = time.monotonic() + _LEAVING
        while True:
            try:
                self._session.link()
                break
            except Refusal as error:
                if error.code != "busy" or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # a session that said goodbye may still be on its way out
        assert self._session.hello is not None
        return self._session.hello

    def put(self, source: Path, path: str, on_bytes: OnBytes) -> None:
        self._session.put(source, path, on_progress=on_bytes, stop=self.stop)

    def run(self, job: Job, launch: LaunchEvents, on_event: OnEvent) -> LaunchRecord:
        return measure(self._session, job, launch, on_event=on_event, stop=self.stop)

    def close(self) -> None:
        self._session.__exit__(None, None, None)


def device_record(key: str, hello: Hello) -> DeviceRecord:
    """What is kept of a device that said ``hello``.

    Raises:
        DeviceError: a device that is addressed as a phone is none, or the other way round.
    """
    told = hello.device.model_dump(mode="json", by_alias=True)
    kind = told.pop("class")
    transport = key.partition(":")[0]
    if kind != {"host": "host", "simulated": "simulated", "loopback-swift": "host"}.get(transport, kind):
        raise DeviceError(f"{key} calls itself {kind}", hint="look at what is connected there")
    return DeviceRecord(key, kind, told)
