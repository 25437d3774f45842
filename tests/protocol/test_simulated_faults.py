"""Everything that goes wrong with a device: told plainly, marked as what it is, gone on with, and no sample lost."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_samples import CONTENTS, QUICK, a_job, a_launch, put_all, stored, write_files

from edgesam_mobile.errors import DeviceError, UsageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.protocol.events import Event
from edgesam_mobile.lab.protocol.launch import measure
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.protocol.stream import Sequence
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice
from edgesam_mobile.lab.simulated.faults import DAMAGES, Kind

ENCODER = stored("encoder")


def run(device: SimulatedDevice, folder: Path, *, patience: Patience = QUICK, job: str = "job-1") -> LaunchRecord:
    """Files and a job; holds every event against what there may be: each once, in order, none missing between."""
    events: list[Event] = []
    with Session(device.connect, patience=patience) as session:
        put_all(session, folder)
        record = measure(session, a_job(job), a_launch(a_job(job)), on_event=events.append)
    assert [event.seq for event in events] == list(range(len(events)))
    return record


@pytest.mark.parametrize("kind", ["cable", "silence", "clock", *DAMAGES])
@pytest.mark.parametrize("at", [0, 30, 66])
def test_what_breaks_on_the_way_is_fetched_again(kind: Kind, at: int, tmp_path: Path) -> None:
    faults = [Fault(kind, "sent", at, seconds=60.0)]
    patience = replace(QUICK, job=1.0) if kind == "silence" else QUICK
    with SimulatedDevice(tmp_path / "device", faults=faults) as device:
        record = run(device, tmp_path / "files", patience=patience)
        assert not device.script.waits_at("sent")
    assert (record.status, record.error) == ("complete", None)
    assert len(record.samples) == device.samples["job-1"] > 30


@pytest.mark.parametrize("kind", ["cable", "silence", *DAMAGES])
def test_a_fetch_that_breaks_is_fetched_again(kind: Kind, tmp_path: Path) -> None:
    patience = replace(QUICK, job=1.0) if kind == "silence" else QUICK
    faults = [Fault("cable", "sent", 20), Fault(kind, "fetch", 30, seconds=60.0), Fault("cable", "fetch", 50)]
    with SimulatedDevice(tmp_path / "device", faults=faults) as device:
        record = run(device, tmp_path / "files", patience=patience)
        assert not device.script.waits_at("fetch")
    assert record.status == "complete"
    assert len(record.samples) == device.samples["job-1"]


@pytest.mark.parametrize("kind", ["cable", "kill", "reboot", "silence"])
def test_an_upload_goes_on_where_it_stopped(kind: Kind, tmp_path: Path) -> None:
    progress: list[int] = []
    faults = [Fault(kind, "put", 300_000, seconds=3.0 if kind == "silence" else 0.1)]
    patience = replace(QUICK, idle=1.0) if kind == "silence" else QUICK
    with SimulatedDevice(tmp_path / "device", faults=faults) as device:
        source = write_files(tmp_path / "files")[ENCODER]
        with Session(device.connect, patience=patience) as session:
            session.put(source, ENCODER, on_progress=lambda done, of: progress.append(done))
        assert not device.script.waits_at("put")
        assert sha256_of(device.store.path(ENCODER)) == sha256_of(source)
    again = progress[progress.index(0, 1) if 0 in progress[1:] else 1 :]
    assert min(again) >= 256 << 10  # the first chunk was not sent again
    assert progress[-1] == len(CONTENTS["encoder"])


def test_an_upload_that_arrives_damaged_is_sent_anew(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "device") as device:
        source = write_files(tmp_path / "files")[ENCODER]
        target = device.store.path(ENCODER)
        target.parent.mkdir(parents=True)
        # As after a crash of the device's file system: a part of the right length with something else in it.
        target.with_name(target.name + ".part").write_bytes(b"?" * 300_000)
        with Session(device.connect, patience=QUICK) as session:
            session.put(source, ENCODER)
        assert sha256_of(target) == sha256_of(source)


class Wire:
    """A connection of which ``spoil`` changes what is sent."""

    def __init__(self, connection: socket.socket, spoil: Callable[[bytes], bytes]) -> None:
        self._connection, self._spoil = connection, spoil
        self.settimeout, self.recv, self.close = connection.settimeout, connection.recv, connection.close

    def sendall(self, data: bytes) -> None:
        spoilt = self._spoil(data)
        self._connection.sendall(spoilt)
        if len(spoilt) < len(data):
            self._connection.shutdown(socket.SHUT_RDWR)
            raise BrokenPipeError(32, "Broken pipe")


def test_an_upload_that_always_arrives_damaged_is_given_up(tmp_path: Path) -> None:
    def flip(data: bytes) -> bytes:
        at = data.find(b'"data":"') + 8
        return data if at < 8 else data[:at] + b"AAAA" + data[at + 4 :]

    with SimulatedDevice(tmp_path / "device") as device:
        source = write_files(tmp_path / "files")[ENCODER]
        with (
            Session(lambda: Wire(device.connect(), flip), patience=QUICK) as session,
            pytest.raises(DeviceError, match="hash-mismatch") as told,
        ):
            session.put(source, ENCODER)
        assert "cable or the device's storage" in str(told.value.hint)
        assert not [p for p in device.store.folder.rglob("*") if p.is_file()]


@pytest.mark.parametrize("kind", ["kill", "reboot"])
@pytest.mark.parametrize("at", [1, 25, 60])
def test_a_harness_that_dies_leaves_a_truncated_launch_with_every_sample(kind: Kind, at: int, tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "device", faults=[Fault(kind, "run", at)]) as device:
        record = run(device, tmp_path / "files")
        kept = device.store.kept("job-1").read_bytes()
        assert record.status == "truncated"
        assert "the harness was killed, or the device restarted" in str(record.error)
        assert len(record.samples) == device.samples["job-1"] == kept.count(b'"type":"sample"') - torn_samples(kept)
        assert not kept.endswith(b"\n")  # half a line stays
        # Files stay, and the next job runs.
        again = run(device, tmp_path / "files", job="job-2")
        assert again.status == "complete"
    started_anew = again.samples[0].at_ns < 2e9
    assert started_anew or kind == "kill"
    if record.samples and kind == "kill":
        assert again.samples[0].at_ns > record.samples[-1].at_ns


def torn_samples(kept: bytes) -> int:
    return int(b'"type":"sample"' in kept[kept.rfind(b"\n") + 1 :])


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "truncated"])
def test_damage_in_what_is_kept_is_told_and_what_is_before_it_stays(kind: Kind, tmp_path: Path) -> None:
    code = {"malformed": "bad-line", "not-utf8": "bad-line", "oversized": "too-large"}.get(kind, "gap")
    with SimulatedDevice(tmp_path / "device", faults=[Fault(kind, "run", 25)]) as device:
        record = run(device, tmp_path / "files")
        before = device.store.kept("job-1").read_bytes().splitlines()[:25]
    assert record.status == "truncated"
    assert f"({code})" in str(record.error)
    assert len(record.samples) == sum(b'"type":"sample"' in line for line in before) > 10


def test_a_wall_clock_that_jumps_changes_no_time(tmp_path: Path) -> None:
    records = []
    for name, faults in (("steady", []), ("jumps", [Fault("clock", "run", 20), Fault("clock", "sent", 40)])):
        with SimulatedDevice(tmp_path / name, faults=faults) as device:
            records.append(run(device, tmp_path / "files"))
            walls = [line for line in device.store.kept("job-1").read_bytes().splitlines() if b"wall_ns" in line]
    steady, jumps = records
    assert steady.samples == jumps.samples and jumps.status == "complete"
    assert [s.at_ns for s in jumps.samples] == sorted(s.at_ns for s in jumps.samples)
    numbers = [int(line.split(b'"wall_ns":')[1].strip(b"}\n")) for line in walls]
    assert numbers != sorted(numbers)  # it did jump


def test_a_desktop_that_reads_slowly_holds_nothing_up_and_loses_nothing(tmp_path: Path) -> None:
    seen: list[Event] = []

    def slowly(event: Event) -> None:
        seen.append(event)
        if len(seen) == 10:  # waits until the job is over on the device, which must not wait for this one
            deadline = time.monotonic() + 60
            while b'"type":"end"' not in device.store.kept("job-1").read_bytes()[-500:]:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def narrow() -> socket.socket:
        connection = device.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return connection

    with SimulatedDevice(tmp_path / "device") as device, Session(narrow, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        job = a_job(measure={"seconds": 0.0, "rounds": 2000})
        record = measure(session, job, a_launch(job), on_event=slowly)
    assert record.status == "complete"
    assert len(record.samples) == device.samples["job-1"] > 10_000
    assert [event.seq for event in seen] == list(range(len(seen)))


def test_a_device_that_reads_slowly_gets_everything(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "device", read_delay=0.02) as device:
        assert run(device, tmp_path / "files").status == "complete"


def test_a_device_that_stays_away_is_given_up_and_the_job_taken_up_later(tmp_path: Path) -> None:
    events: list[Event] = []
    away = False

    def connect() -> socket.socket:
        if away:
            raise ConnectionRefusedError(111, "Connection refused")
        return device.connect()

    def take(event: Event) -> None:
        nonlocal away
        events.append(event)
        sequence.next += 1
        sequence.counts[event.type] += 1
        away = True

    sequence, launch = Sequence(job="job-1"), a_launch(a_job())
    with (
        SimulatedDevice(tmp_path / "device", faults=[Fault("truncated", "sent", 20)]) as device,
        Session(connect, patience=replace(QUICK, reconnect=0.3)) as session,
    ):
        put_all(session, tmp_path / "files")
        record = measure(session, a_job(), launch, on_event=take)
        assert record.status == "truncated" and len(record.samples) == 12
        assert "did not come back within 0.3 s" in str(record.error) and "Connection refused" in str(record.error)
        with pytest.raises(DeviceError, match="did not come back"):
            put_all(session, tmp_path / "files")
        away = False
        fetched: list[Event] = []
        ending = session.fetch("job-1", fetched.append, sequence=sequence)
        for event in fetched:
            launch.take(event)
        record = launch.record(ending)
    assert (record.status, record.error) == ("complete", None)
    assert [event.seq for event in events + fetched] == list(range(len(events) + len(fetched)))
    assert len(record.samples) == device.samples["job-1"]


def test_a_job_that_was_lost_on_its_way_is_sent_again(tmp_path: Path) -> None:
    cuts = [100]

    def cut(data: bytes) -> bytes:
        return data[: cuts.pop()] if cuts and b'"type":"job"' in data else data

    with (
        SimulatedDevice(tmp_path / "device") as device,
        Session(lambda: Wire(device.connect(), cut), patience=QUICK) as session,
    ):
        put_all(session, tmp_path / "files")
        record = measure(session, a_job(), a_launch(a_job()))
    assert cuts == [] and record.status == "complete"


def test_a_job_beside_a_running_one_fails_as_busy(tmp_path: Path) -> None:
    endless = {"measure": {"seconds": 1e4, "rounds": 10**6}}
    with SimulatedDevice(tmp_path / "device", pace=0.002) as device:
        with Session(device.connect, patience=QUICK) as session:
            put_all(session, tmp_path / "files")
        with Session(device.connect, patience=QUICK) as session:
            session.link().send(a_job("job-1", **endless), 1.0)
            session.drop()  # and it runs on
            while not device.store.kept("job-1").exists():
                time.sleep(0.01)
            record = measure(session, a_job("job-2"), a_launch(a_job("job-2")))
            assert (record.status, record.error) == ("failed", "busy: another job is running")


def test_a_job_that_takes_too_long_is_given_up_and_ended(tmp_path: Path) -> None:
    job = a_job("job-1", measure={"seconds": 1e4, "rounds": 10**6})
    with SimulatedDevice(tmp_path / "device", pace=0.002) as device:
        with Session(device.connect, patience=replace(QUICK, whole=0.5)) as session:
            put_all(session, tmp_path / "files")
            record = measure(session, job, a_launch(job))
        assert record.status == "truncated" and "no end in 0.5 s" in str(record.error)
        while b'"status":"cancelled"' not in device.store.kept("job-1").read_bytes()[-500:]:
            time.sleep(0.01)


def test_a_fault_that_cannot_happen_at_a_place_is_refused() -> None:
    for kind, place in (("cable", "run"), ("silence", "run"), ("gap", "put")):
        with pytest.raises(UsageError, match=f"{kind} can happen in {place}"):
            Fault(kind, place, 0)  # type: ignore[arg-type]


RECOVERABLE = st.one_of(
    st.builds(
        Fault,
        st.sampled_from(["cable", "clock", *DAMAGES]),
        st.sampled_from(["sent", "fetch"]),
        st.integers(0, 70),
    ),
    st.builds(
        Fault, st.sampled_from(["cable", "kill", "reboot"]), st.just("put"), st.integers(0, 330_000), st.just(0.05)
    ),
    st.builds(Fault, st.sampled_from(["kill", "reboot"]), st.just("run"), st.integers(1, 67), st.just(0.05)),
)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(RECOVERABLE, max_size=5), st.integers(0, 5))
def test_whatever_goes_wrong_every_kept_sample_arrives_once(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Fault], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("faults")
    died = any(fault.place == "run" for fault in faults)
    with SimulatedDevice(folder / "device", faults=faults, seed=seed) as device:
        record = run(device, folder / "files")
    assert record.status == ("truncated" if died else "complete"), record.error
    assert len(record.samples) == device.samples["job-1"]
    assert [s.seq for s in record.samples] == sorted({s.seq for s in record.samples})
