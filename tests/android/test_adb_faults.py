"""What goes wrong with adb costs no measurement, hangs nothing and harms no other lab: on a fake adb server.

Everything here is the desktop's own code; real adb is in ``test_adb_link.py``.
"""

from __future__ import annotations

import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from device_runs import FORMATS, Acting, Quiet, at_frame, small_inputs, small_package
from fake_adb import FakeAdb, FakePhone, Trouble

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.adb import AdbLink, adb_devices
from edgesam_mobile.lab.adb_calls import AdbLost, errors
from edgesam_mobile.lab.fleet import Outcome, measure_on
from edgesam_mobile.lab.inputs import Inputs
from edgesam_mobile.lab.jobs import JobOptions
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.simulated import SimulatedDevice
from edgesam_mobile.package.manifest import Manifest

pytestmark = pytest.mark.slow  # silence is waited for
HASTE = Patience(idle=0.4, job=1.0, busy=0.1, reconnect=2.0, cancel=2.0)
ONE = JobOptions(seconds=0.05, rounds=40, launches=1)
ENDLESS = JobOptions(seconds=0.05, rounds=100_000, launches=1)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    monkeypatch.setattr("edgesam_mobile.lab.adb._POLL", 0.05)
    with SimulatedDevice(tmp_path / "phone", name="one", formats=FORMATS, pace=0.01) as device:
        phone = FakePhone("PHONE", device)
        with FakeAdb([phone]) as server:
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
            yield phone


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Manifest]:
    """Files of several pieces."""
    return small_package(tmp_path / "package", repeats=10_000)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return small_inputs(tmp_path)


def measured(
    package: tuple[Path, Manifest],
    inputs: Inputs,
    watcher: Quiet | None = None,
    *,
    options: JobOptions = ONE,
    links: Sequence[AdbLink] = (),
) -> tuple[list[Outcome], bool]:
    return measure_on(
        links or [AdbLink("PHONE", patience=HASTE)],
        *package,
        inputs,
        options,
        store=lambda launch: None,
        watcher=watcher or Quiet(),
        only=("tflite-fp32",),
    )


def whole_launch(outcome: Outcome, phone: FakePhone) -> LaunchRecord:
    (launch,) = outcome.launches
    assert launch.status == "complete" and outcome.whole, (launch.error, outcome.error)
    assert [sample.seq for sample in launch.samples] == sorted({sample.seq for sample in launch.samples})
    assert len(launch.samples) == phone.device.samples[launch.id] > 0
    return launch


def within(seconds: float, act: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    try:
        return act()
    finally:
        assert time.monotonic() - begun < seconds


def test_a_package_is_measured(phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs) -> None:
    (outcome,), interrupted = measured(package, inputs)
    assert not interrupted
    whole_launch(outcome, phone)
    model = next((phone.device.store.folder / "models").rglob("encoder"))
    assert sha256_of(model) == package[1].artifact("tflite-fp32").encoder.file.sha256


@pytest.mark.parametrize("service", ["host:transport", "exec:sha256sum", "sync:encoder"])
def test_a_device_that_falls_silent_is_given_up(service: str, phone: FakePhone, tmp_path: Path) -> None:
    (tmp_path / "encoder").write_bytes(bytes(300_000))
    phone.trouble = [Trouble(service, "silent") for _ in range(3)]
    link = AdbLink("PHONE", patience=HASTE)
    with pytest.raises(AdbLost):
        within(6, lambda: link.put(tmp_path / "encoder", "models/encoder", lambda done, of: None))


def test_a_device_that_falls_silent_is_no_ready_one_and_holds_nobody_up(phone: FakePhone) -> None:
    (ready,) = adb_devices()
    assert ready.state == "ready"
    phone.word = "unauthorized"
    (listed,) = adb_devices()
    assert listed.state == "unauthorised" and "accept this computer" in str(listed.hint)
    with pytest.raises(DeviceError, match="unauthorized"):
        AdbLink("PHONE", patience=HASTE).open()
    phone.word, phone.trouble = "device", [Trouble("dumpsys", "cut")]
    (listed,) = adb_devices()
    assert listed.state == "offline" and "cut" in str(listed.hint)
    phone.trouble = [Trouble("get-state", "silent")]
    with pytest.raises(AdbLost):
        within(2, AdbLink("PHONE", patience=HASTE).open)


@pytest.mark.parametrize("kind", ["cut", "silent"])
def test_a_file_that_breaks_off_is_sent_again(
    kind: Any, phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    phone.trouble = [Trouble("sync:encoder.part", kind, after=100_000), Trouble("exec:mv", "cut")]
    (outcome,), _ = measured(package, inputs)
    whole_launch(outcome, phone)
    assert phone.trouble == []


def test_a_cable_that_is_pulled_while_a_file_is_sent_is_waited_for(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    def pull() -> None:
        phone.pull()
        threading.Timer(0.3, phone.plug).start()

    (outcome,), _ = measured(package, inputs, Acting(pull))
    whole_launch(outcome, phone)


@pytest.mark.parametrize("trouble", [None, "cut", "silent"])
def test_a_cable_that_is_pulled_during_a_job_costs_nothing_and_nothing_is_read_twice(
    trouble: Any, phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    def pull() -> None:
        phone.trouble = [Trouble("exec:tail", trouble)] if trouble else []
        phone.pull()
        threading.Timer(0.3, phone.plug).start()

    options = JobOptions(seconds=0.05, rounds=90, launches=1)
    (outcome,), _ = measured(package, inputs, Acting(pull, at=at_frame(5)), options=options)
    whole_launch(outcome, phone)
    assert phone.trouble == []
    offsets = [int(asked.split("+")[1].split()[0]) for asked in phone.asked if "exec:tail" in asked]
    assert offsets == sorted(offsets) and offsets[0] == 1 < offsets[-1]
    assert phone.killed == []


def test_a_harness_that_died_before_it_kept_anything_is_not_waited_for(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    phone.trouble = [Trouble("am instrument -w -r -e job", "cut")]
    patient = AdbLink("PHONE", patience=Patience(idle=1, reconnect=60))
    (outcome,), _ = within(5, lambda: measured(package, inputs, links=[patient]))
    assert [launch.status for launch in outcome.launches] == ["truncated"]


def test_a_harness_that_is_killed_leaves_what_it_had_measured(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    (outcome,), _ = measured(package, inputs, Acting(phone.stop, at=at_frame(5)))
    (launch,) = outcome.launches
    assert launch.status == "truncated" and "Process crashed" in str(launch.error)
    assert launch.times("frame")


@pytest.mark.parametrize("away", [False, True], ids=["connected", "after a dropped cable"])
def test_ctrl_c_ends_the_phones_job(
    away: bool,
    phone: FakePhone,
    package: tuple[Path, Manifest],
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while what was kept is read: the phone must not measure on."""
    asked = threading.Event()

    def act() -> None:
        if away:
            phone.pull()
            threading.Timer(0.2, phone.plug).start()
        threading.Timer(0.6, asked.set).start()

    interrupt_when(asked, monkeypatch)
    watcher = Acting(act, at=at_frame(5))
    (outcome,), interrupted = within(10, lambda: measured(package, inputs, watcher, options=ENDLESS))
    (launch,) = outcome.launches
    assert interrupted and launch.status == "cancelled" and launch.times("frame")
    assert phone.job is None
    assert any("second Ctrl-C" in line for line in watcher.lines)


def test_ctrl_c_does_not_wait_for_a_device_that_is_away(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    interrupt_when(asked, monkeypatch)

    def act() -> None:
        phone.pull()
        threading.Timer(0.3, asked.set).start()

    link = AdbLink("PHONE", patience=Patience(idle=1, reconnect=60))
    (outcome,), interrupted = within(5, lambda: measured(package, inputs, Acting(act), links=[link]))
    assert interrupted and outcome.launches == [] and outcome.error is None


def interrupt_when(asked: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does, once: in the thread that waits for the others."""
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if asked.is_set() and self.name.startswith("adb:"):
            asked.clear()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)


def test_a_second_lab_is_refused_and_the_firsts_job_goes_on(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    told: list[str] = []

    def another_lab() -> None:
        with pytest.raises(DeviceError, match="is busy") as caught:
            AdbLink("PHONE", patience=HASTE).open()
        told.append(str(caught.value.hint))

    (outcome,), _ = measured(package, inputs, Acting(another_lab, at=at_frame(5)))
    whole_launch(outcome, phone)
    assert phone.killed == [] and "other job" in told[0]


@pytest.mark.parametrize("identity", ["", "0123456789abcdef"], ids=["told by hello", "told by settings"])
def test_a_phone_by_cable_and_by_wifi_is_measured_once(
    identity: str,
    tmp_path: Path,
    package: tuple[Path, Manifest],
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SimulatedDevice(tmp_path / "phone", name="one", formats=FORMATS) as device:
        phones = [FakePhone(serial, device, identity=identity) for serial in ("PHONE", "192.168.1.2:5555")]
        with FakeAdb(phones) as server:
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
            patience = Patience(idle=2, job=5, busy=5, reconnect=2, cancel=2)
            links = [AdbLink(phone.serial, patience=patience) for phone in phones]
            watcher = Quiet()
            outcomes, _ = measured(package, inputs, watcher, links=links)
    once, again = sorted(outcomes, key=lambda outcome: outcome.same_as is not None)
    assert len(once.launches) == 1 and once.whole and again.whole
    assert again.launches == [] and again.same_as == once.device
    assert any(line.startswith(f"{again.device}: the same device as {once.device}") for line in watcher.lines)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        struct.error("unpack requires a buffer of 4 bytes"),
        ValueError("invalid literal"),
        EOFError(),
        subprocess.TimeoutExpired("adb start-server", 20),
        OSError(5, "broken"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_adbutils_raises_is_a_device_that_was_lost(error: Exception) -> None:
    with pytest.raises(AdbLost, match=r"adb on adb:X: .+") as caught, errors("adb:X"):
        raise error
    assert caught.value.hint


def test_an_unexpected_error_leaves_what_was_measured(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    def fault() -> None:
        raise LookupError("a fault of the program")

    (outcome,), _ = measured(package, inputs, Acting(fault, at=at_frame(5)))
    (launch,) = outcome.launches
    assert launch.status == "truncated" and launch.times("frame")
    assert "LookupError" in str(launch.error) and "LookupError" in str(outcome.error)


def test_a_job_of_a_device_that_did_not_come_back_is_ended_before_the_next(
    phone: FakePhone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    link = AdbLink("PHONE", patience=Patience(idle=0.4, job=1, busy=0.1, reconnect=0.3, cancel=3))

    class Returning(Acting):
        def launched(self, device: str, case: str, launch: LaunchRecord) -> None:
            super().launched(device, case, launch)
            phone.plug()

    watcher = Returning(phone.pull, at=at_frame(5))
    options = JobOptions(seconds=0.05, rounds=150, launches=2)
    (outcome,), _ = within(25, lambda: measured(package, inputs, watcher, options=options, links=[link]))
    first, second = outcome.launches
    assert first.status == "truncated" and "did not come back" not in str(first.error)
    assert second.status == "complete", second.error
    kept = phone.device.store.kept(first.id).read_text()
    assert '"status":"cancelled"' in kept and phone.killed == []
