"""A wish to cancel that comes too late, and which of several errors a launch is blamed on."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from protocol_samples import QUICK, a_job, a_launch, put_all

from edgesam_mobile.lab.protocol.events import End, Error, Event, Result
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.protocol.stream import Ending
from edgesam_mobile.lab.simulated import SimulatedDevice


def test_the_first_error_is_the_cause() -> None:
    launch = a_launch(a_job())
    launch.take(Error(seq=1, job="job-1", code="load-failed", message="first"))
    launch.take(Error(seq=2, job="job-1", code="internal", message="second"))
    assert launch.record(Ending("whole", status="failed")).error == "load-failed: first"


def test_a_cancel_that_finds_no_job_does_not_lose_the_end(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "device") as device:
        with Session(device.connect, patience=QUICK) as session:
            put_all(session, tmp_path / "files")
            session.run(a_job(), lambda event: None)
        kept = device.store.kept("job-1").read_bytes().splitlines(keepends=True)
    here, there = socket.socketpair()
    hello = json.loads(kept[0])
    del hello["job"]
    late = b'{"type":"error","seq":1,"code":"not-found","message":"it does not run"}\n'

    def harness() -> None:
        with there, there.makefile("rb") as requests:
            there.sendall(json.dumps(hello).encode() + b"\n")
            requests.readline()  # the job
            there.sendall(kept[0])
            requests.readline()  # its cancel, which finds no job running any more
            there.sendall(late + b"".join(kept[1:]))
            requests.readline()

    thread = threading.Thread(target=harness)
    thread.start()
    seen: list[Event] = []

    def take(event: Event) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt), Session(lambda: here, patience=QUICK) as session:
            session.run(a_job(), take)
    finally:
        here.close()
        thread.join(10)
    assert isinstance(seen[-1], End) and len(seen) == len(kept)


def test_a_session_goes_on_after_it(tmp_path: Path) -> None:
    def take(event: Event) -> None:
        if isinstance(event, Result):
            raise KeyboardInterrupt

    for number in range(3):  # it depends on who is quicker
        device = SimulatedDevice(tmp_path / f"device{number}")
        with device, Session(device.connect, patience=QUICK) as session:
            put_all(session, tmp_path / "files")
            with pytest.raises(KeyboardInterrupt):
                session.run(a_job(), take)
            put_all(session, tmp_path / "files")
