"""Sessions with a simulated device that behaves, and what it and this program refuse."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from protocol_samples import CONTENTS, QUICK, a_job, a_launch, put_all, stored, write_files

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.protocol.events import Event, Sample, job_of
from edgesam_mobile.lab.protocol.launch import measure
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.protocol.stream import Ending, Reader
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice

LONG = {"measure": {"seconds": 1e4, "rounds": 10**6}}


@contextmanager
def server(*says: bytes) -> Iterator[Any]:
    """Something that is no harness: it says lines to whoever comes, and then nothing; gives how to connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                    held.append(connection)
                    connection.sendall(b"".join(says))
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield lambda: socket.create_connection(listener.getsockname(), timeout=2)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C as a program that was started in the foreground has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ending_of(kept: list[bytes]) -> Ending:
    """How a kept stream ends, by a reader of its own."""
    reader = Reader("one-job")
    reader.feed(b"".join(line + b"\n" for line in kept))
    return reader.ending()


def test_files_are_sent_once_and_a_job_is_complete(device: SimulatedDevice, tmp_path: Path) -> None:
    events: list[Event] = []
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        progress: list[tuple[int, int]] = []
        session.put(tmp_path / "files" / "encoder", stored("encoder"), on_progress=lambda *p: progress.append(p))
        job = a_job()
        record = measure(session, job, a_launch(job), on_event=events.append)
    size = len(CONTENTS["encoder"])
    assert progress == [(size, size)]  # there already
    assert sha256_of(device.store.path(stored("encoder"))) == sha256_of(tmp_path / "files" / "encoder")
    assert not list(device.store.folder.rglob("*.part"))
    assert (record.status, record.error) == ("complete", None)
    assert len(record.samples) == device.samples["job-1"] == sum(isinstance(e, Sample) for e in events) > 30
    assert [e.seq for e in events] == list(range(len(events)))
    assert record.hello["device"]["class"] == "simulated"
    assert record.result is not None and record.result["note"].startswith("simulated: times are drawn")


def test_times_are_drawn_from_the_seed(tmp_path: Path) -> None:
    times = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        with (
            SimulatedDevice(tmp_path / name, seed=seed) as device,
            Session(device.connect, patience=QUICK) as session,
        ):
            put_all(session, tmp_path / "files")
            times.append(measure(session, a_job(), a_launch(a_job())).times("encode"))
    assert times[0] == times[1] != times[2]


def test_a_folder_is_sent_file_by_file(device: SimulatedDevice, tmp_path: Path) -> None:
    package = tmp_path / "model.mlpackage"
    (package / "Data" / "com.apple.CoreML" / "weights").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    (package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").write_bytes(bytes(1000))
    (package / "Data" / "com.apple.CoreML" / "empty").touch()
    digest = sha256_of(package)
    with Session(device.connect, patience=QUICK) as session:
        session.put(package, f"models/{digest}/model.mlpackage")
    assert sha256_of(device.store.path(f"models/{digest}/model.mlpackage")) == digest


def test_several_jobs_in_one_session(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        for job in (a_job("job-1"), a_job("job-2"), a_job("job-3", least_iou=1.0), a_job("job-4")):
            status = measure(session, job, a_launch(job)).status
            assert status == ("failed" if job.job == "job-3" else "complete")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"least_iou": 1.0}, "check failed: a mask's IoU is 0.9990"),
        ({"delegate": "abacus"}, "no-delegate: "),
        ({"thermal_gate": {"thermal": "fair", "battery_c": None, "wait": 60.0}}, "hot: still serious after 60 s"),
    ],
)
def test_a_job_that_fails_says_why(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with (
        SimulatedDevice(tmp_path / "device", thermal="serious") as device,
        Session(device.connect, patience=QUICK) as session,
    ):
        put_all(session, tmp_path / "files")
        record = measure(session, a_job(**changes), a_launch(a_job()))
    assert record.status == "failed"
    assert str(record.error).startswith(told)
    assert record.times("frame") == []


def test_a_missing_file_fails_the_job(device: SimulatedDevice) -> None:
    with Session(device.connect, patience=QUICK) as session:
        record = measure(session, a_job(), a_launch(a_job()))
    assert record.status == "failed"
    assert str(record.error).startswith("not-found: models/")


def test_a_folder_is_no_picture(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        job = a_job(frame={"image": "models", "points": [[0.0, 0.0]], "labels": [1]})
        record = measure(session, job, a_launch(job))
    assert (record.status, record.error) == ("failed", "not-found: models is not there")


def test_a_job_id_is_used_once(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        assert measure(session, a_job(), a_launch(a_job())).status == "complete"
        again = measure(session, a_job(), a_launch(a_job()))
        assert again.status == "failed" and "was used before" in str(again.error)


def test_full_storage_is_told_with_what_to_do_and_the_session_goes_on(tmp_path: Path) -> None:
    with (
        SimulatedDevice(tmp_path / "device", capacity=1000) as device,
        Session(device.connect, patience=QUICK) as session,
    ):
        files = write_files(tmp_path / "files")
        with pytest.raises(DeviceError, match="no-space") as told:
            session.put(files[stored("encoder")], stored("encoder"))
        assert "free some storage" in str(told.value.hint)
        session.put(files[stored("decoder")], stored("decoder"))
    assert [p.name for p in device.store.folder.rglob("*coder*")] == ["decoder"]


def test_a_model_corrupted_on_the_device_is_found_and_sent_anew(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        device.corrupt(stored("encoder"))
        record = measure(session, a_job("job-1"), a_launch(a_job()))
        assert record.status == "failed" and str(record.error).startswith("hash-mismatch: ")
        put_all(session, tmp_path / "files")
        assert measure(session, a_job("job-2"), a_launch(a_job("job-2"))).status == "complete"
        device.corrupt(stored("encoder"))
        put_all(session, tmp_path / "files")  # found by `put` as well
        assert measure(session, a_job("job-3"), a_launch(a_job("job-3"))).status == "complete"


def test_a_second_lab_is_told_that_the_device_is_busy(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as first:
        with pytest.raises(DeviceError, match="another session is running") as told:
            Session(device.connect, patience=replace(QUICK, busy=0.3)).__enter__()
        assert "wait until the other" in str(told.value.hint)
        put_all(first, tmp_path / "files")
        assert measure(first, a_job(), a_launch(a_job())).status == "complete"
    with Session(device.connect, patience=QUICK):
        pass


def test_a_device_that_is_not_there_or_silent_or_something_else_is_told(tmp_path: Path) -> None:
    patience = Patience(idle=0.3, reconnect=0.3)
    device = SimulatedDevice(tmp_path / "device")
    with pytest.raises(DeviceError, match="no connection to the device"):
        Session(device.connect, patience=patience).__enter__()
    with server() as connect, pytest.raises(DeviceError, match=r"said nothing for 0\.3 s") as told:
        Session(connect, patience=patience).__enter__()
    assert told.value.hint
    with server(b"SSH-2.0-OpenSSH_9.2\r\n") as connect, pytest.raises(DeviceError, match="bad-line"):
        Session(connect, patience=patience).__enter__()
    hello = b'{"type":"hello","seq":0,"protocol":"edgesam.harness/2"}\n'
    with server(hello) as connect, pytest.raises(DeviceError, match="speaks another version") as told:
        Session(connect, patience=patience).__enter__()
    assert "install the harness that belongs" in str(told.value.hint)


def test_a_refusal_outside_the_jobs_stream_fails_the_launch(tmp_path: Path) -> None:
    good = (Path(__file__).parent / "streams" / "duplex-session.jsonl").read_bytes().splitlines(keepends=True)
    refusal = b'{"type":"error","seq":1,"code":"not-found","message":"no such thing"}\n'
    with server(good[0], refusal) as connect, Session(connect, patience=QUICK) as session:
        record = measure(session, a_job(), a_launch(a_job()))
    assert (record.status, record.error) == ("failed", "the device refuses: no such thing (not-found)")


def test_another_device_at_the_same_place_is_refused(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "a", name="a") as a, SimulatedDevice(tmp_path / "b", name="b") as b:
        devices = [a, b]
        session = Session(lambda: devices.pop(0).connect(), patience=QUICK)
        with session:
            session.drop()
            with pytest.raises(DeviceError, match="another device answers: b instead of a"):
                session.put(write_files(tmp_path / "files")[stored("mask")], stored("mask"))


@pytest.mark.parametrize("by", ["signal", "callback"])
def test_an_interrupt_cancels_the_job_and_keeps_what_was_measured(by: str, tmp_path: Path) -> None:
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 60:
            if by == "callback":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    with (
        SimulatedDevice(tmp_path / "device", pace=0.002) as device,
        Session(device.connect, patience=QUICK) as session,
        interruptible(),
    ):
        put_all(session, tmp_path / "files")
        job = a_job(**LONG)
        launch = a_launch(job)
        with pytest.raises(KeyboardInterrupt):
            measure(session, job, launch, on_event=on_event)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        kept = device.store.kept("job-1").read_bytes().splitlines()
        assert measure(session, a_job("job-2"), a_launch(a_job("job-2"))).status == "complete"
    record = launch.record(ending_of(kept))
    assert record.status == "cancelled"
    assert ending_of(kept).status == "cancelled"
    assert len(record.samples) == device.samples["job-1"] >= 50
    assert len(kept) == len(events)


def test_an_interrupt_does_not_wait_for_a_device_that_says_nothing_more(tmp_path: Path) -> None:
    faults = [Fault("silence", "sent", 30, seconds=60)]
    patience = Patience(idle=1, job=60, reconnect=60, cancel=0.5)
    with (
        SimulatedDevice(tmp_path / "device", faults=faults) as device,
        Session(device.connect, patience=patience) as session,
        interruptible(),
    ):
        put_all(session, tmp_path / "files")
        job = a_job(**LONG)
        launch = a_launch(job)
        started = time.monotonic()
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            measure(session, job, launch)
        assert time.monotonic() - started < 10
    assert launch.record(Ending("truncated", code="truncated")).status == "cancelled"


def test_a_callback_that_fails_ends_the_job_on_the_device_as_well(tmp_path: Path) -> None:
    def on_event(event: Event) -> None:
        if event.seq == 30:
            raise OSError("disk full")

    with (
        SimulatedDevice(tmp_path / "device", pace=0.002) as device,
        Session(device.connect, patience=QUICK) as session,
    ):
        put_all(session, tmp_path / "files")
        with pytest.raises(OSError, match="disk full"):
            measure(session, a_job(**LONG), a_launch(a_job()), on_event=on_event)
        time.sleep(0.3)  # until the job has noticed
        assert measure(session, a_job("job-2"), a_launch(a_job("job-2"))).status == "complete"


def test_events_of_a_job_go_to_nobody_who_did_not_ask(device: SimulatedDevice, tmp_path: Path) -> None:
    with Session(device.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        session.run(a_job("job-1"), lambda event: None)
        seen: list[Event] = []
        session.run(a_job("job-2"), seen.append)
        assert {job_of(event) for event in seen} == {"job-2"}
        again: list[Event] = []
        session.fetch("job-1", again.append)
        assert {job_of(event) for event in again} == {"job-1"}
        with pytest.raises(DeviceError, match="not-found"):
            session.fetch("job-3", again.append)
