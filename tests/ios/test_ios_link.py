"""A package on iPhones behind a fake usbmuxd: simulated devices, and cables that are pulled at every phase."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import call, refusal
from device_runs import FORMATS, HASTE, PHASES, Acting, Quiet, at_frame, at_phase, small_inputs, small_package

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.devices import discover, open_link, read_lab, select
from edgesam_mobile.lab.fleet import Outcome, measure_on
from edgesam_mobile.lab.inputs import Inputs
from edgesam_mobile.lab.ios import PORT, IosLink, ios_devices
from edgesam_mobile.lab.jobs import JobOptions
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice
from edgesam_mobile.lab.usbmux import ADDRESS
from edgesam_mobile.package.manifest import Manifest
from tests.ios.fake_usbmuxd import FakeUsbmuxd, Phone

FIRST, SECOND = "000081100012345678ABCDEF", "ABCDEF0123456789abcdef0123456789abcdef01"
KEYS = ("ios:00008110-0012345678ABCDEF", f"ios:{SECOND.lower()}")
ONE_LAUNCH = JobOptions(seconds=0.05, rounds=10, launches=1)


@pytest.fixture(autouse=True)
def no_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    """No phone of whoever runs the tests is looked at."""
    monkeypatch.setattr("edgesam_mobile.lab.adb.adb_devices", list)
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.fixture
def mux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUsbmuxd]:
    with FakeUsbmuxd(tmp_path / "mux") as mux:
        monkeypatch.setenv(ADDRESS, mux.address)
        yield mux


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Manifest]:
    """So large that files come in several chunks."""
    return small_package(tmp_path / "package", repeats=60_000)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return small_inputs(tmp_path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatedDevice]:
    with simulated(tmp_path, "one") as device:
        yield device


@pytest.fixture
def phone(mux: FakeUsbmuxd, device: SimulatedDevice) -> Phone:
    phone = Phone(FIRST, {PORT: device.connect})
    mux.attach(phone)
    return phone


def simulated(folder: Path, name: str, **settings: Any) -> SimulatedDevice:
    # Slow enough to be interrupted in the middle.
    return SimulatedDevice(folder / name, name=name, formats=FORMATS, **{"pace": 0.005, **settings})


def measured(
    package: tuple[Path, Manifest],
    inputs: Inputs,
    watcher: Quiet | None = None,
    *,
    udids: Sequence[str] = (FIRST,),
    patience: Patience = HASTE,
    only: Sequence[str] = ("tflite-fp32",),
) -> list[Outcome]:
    links = [IosLink(udid, patience=patience, wait=0.3) for udid in udids]
    outcomes, interrupted = measure_on(
        links, *package, inputs, ONE_LAUNCH, store=lambda launch: None, watcher=watcher or Quiet(), only=only
    )
    assert not interrupted
    return outcomes


def samples(outcome: Outcome) -> int:
    return sum(len(launch.samples) for launch in outcome.launches)


def test_a_package_is_measured_and_no_sample_lost(
    phone: Phone, device: SimulatedDevice, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    (outcome,) = measured(package, inputs, only=())
    assert outcome.whole and outcome.error is None and outcome.device == KEYS[0]
    assert samples(outcome) == sum(device.samples.values()) > 0
    assert {launch.device.kind for launch in outcome.launches} == {"simulated"}
    model = next((device.store.folder / "models").rglob("encoder"))
    assert sha256_of(model) in {artifact.encoder.file.sha256 for artifact in package[1].artifacts}


@pytest.mark.parametrize("phase", PHASES)
def test_a_cable_pulled_at_any_phase_costs_nothing_when_it_is_back(
    phase: str,
    mux: FakeUsbmuxd,
    phone: Phone,
    device: SimulatedDevice,
    package: tuple[Path, Manifest],
    inputs: Inputs,
) -> None:
    number = phone.number
    watcher = Acting(lambda: mux.detach_for(phone, 0.2), at=at_phase(phase))
    (outcome,) = measured(package, inputs, watcher)
    assert watcher.done and phone.connects == 2 and phone.number != number
    assert outcome.whole and samples(outcome) == sum(device.samples.values()) > 0


def test_a_cable_pulled_within_a_file_loses_none_of_what_was_sent(
    mux: FakeUsbmuxd, phone: Phone, device: SimulatedDevice, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    watcher = Acting(lambda: mux.detach_for(phone, 0.2))
    (outcome,) = measured(package, inputs, watcher)
    assert watcher.done and phone.connects == 2 and outcome.whole
    stored = {sha256_of(path) for path in (device.store.folder / "models").rglob("*") if path.is_file()}
    artifact = package[1].artifact("tflite-fp32")
    assert stored == {artifact.encoder.file.sha256, artifact.decoder.file.sha256}


def test_a_cable_pulled_while_missing_events_are_fetched_costs_nothing(
    mux: FakeUsbmuxd, phone: Phone, device: SimulatedDevice, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    def pull_twice() -> None:
        mux.detach(phone)
        time.sleep(0.2)  # so that events wait to be fetched
        phone.allowance = 1000  # beyond the greeting, in the middle of an event
        mux.attach(phone)

    watcher = Acting(pull_twice, at=at_frame(0))
    (outcome,) = measured(package, inputs, watcher)
    assert watcher.done and phone.connects == 3
    assert outcome.whole and samples(outcome) == sum(device.samples.values())


def test_a_harness_that_is_killed_leaves_a_truncated_launch(
    mux: FakeUsbmuxd, package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    with simulated(tmp_path, "killed", faults=[Fault("kill", "run", 25)]) as device:
        mux.attach(Phone(FIRST, {PORT: device.connect}))
        (outcome,) = measured(package, inputs)
    (launch,) = outcome.launches
    assert launch.status == "truncated" and launch.samples and "lost the job" in (launch.error or "")


def test_of_two_iphones_one_may_be_pulled(
    mux: FakeUsbmuxd,
    phone: Phone,
    device: SimulatedDevice,
    package: tuple[Path, Manifest],
    inputs: Inputs,
    tmp_path: Path,
) -> None:
    with simulated(tmp_path, "two") as other:
        mux.attach(Phone(SECOND, {PORT: other.connect}))
        pulled = Acting(lambda: mux.detach_for(phone, 0.2), at=at_frame(1))
        outcomes = measured(package, inputs, pulled, udids=(FIRST, SECOND))
        assert pulled.done and [outcome.device for outcome in outcomes] == list(KEYS)
        assert all(outcome.whole for outcome in outcomes)
        assert [samples(one) for one in outcomes] == [sum(d.samples.values()) for d in (device, other)]


def test_an_iphone_that_is_gone_for_good_keeps_what_it_measured(
    mux: FakeUsbmuxd, phone: Phone, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    watcher = Acting(lambda: mux.detach(phone), at=at_frame(3))
    (outcome,) = measured(package, inputs, watcher, patience=Patience(idle=1, job=1, reconnect=0.5))
    (launch,) = outcome.launches
    assert not outcome.whole and launch.status == "truncated"
    assert len(launch.times("frame")) >= 4
    assert "did not come back" in (launch.error or "") and "is not connected" in (launch.error or "")


def test_a_run_that_ended_within_a_file_goes_on_there_the_next_time(
    mux: FakeUsbmuxd, phone: Phone, device: SimulatedDevice, package: tuple[Path, Manifest], inputs: Inputs
) -> None:
    def pull_when_something_arrived() -> None:
        while not any(path.stat().st_size for path in device.store.folder.rglob("encoder.part")):
            time.sleep(0.01)
        mux.detach(phone)

    patience = Patience(idle=1, job=1, reconnect=0.2)
    (outcome,) = measured(package, inputs, Acting(pull_when_something_arrived), patience=patience)
    assert isinstance(outcome.error, DeviceError) and outcome.launches == []
    mux.attach(phone)
    again = Acting(lambda: None)
    (outcome,) = measured(package, inputs, again)
    assert outcome.whole
    assert next(done for what, done in again.firsts if what == "encoder") > 0


def test_the_app_is_waited_for_and_what_to_do_is_said(
    mux: FakeUsbmuxd, device: SimulatedDevice, tmp_path: Path
) -> None:
    phone = Phone(FIRST, {}, paired=False)
    lines: list[str] = []

    def said(key: str, line: str) -> None:
        assert key == KEYS[0]
        lines.append(line)
        if len(lines) == 1:
            mux.attach(phone)
        elif len(lines) == 2:
            phone.paired = True
        else:
            threading.Timer(0.2, phone.ports.update, [{PORT: device.connect}]).start()

    link = open_link(KEYS[0], say=said)
    assert link.open().device.id == "one"
    link.close()
    to_do = ("connect it by cable", "Trust", "open the harness app")
    assert all(part in line for part, line in zip(to_do, lines, strict=True))


def test_an_iphone_that_does_not_come_is_not_waited_for_without_end(mux: FakeUsbmuxd) -> None:
    with pytest.raises(DeviceError, match="is not connected"):
        IosLink(FIRST, wait=0.1).open()
    mux.attach(Phone(FIRST, {}))
    with pytest.raises(DeviceError, match="nothing listens"):
        IosLink(FIRST, wait=0.1).open()


def test_usbmuxd_may_come_with_the_iphone(
    device: SimulatedDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mux = FakeUsbmuxd(tmp_path / "mux")
    monkeypatch.setenv(ADDRESS, mux.address)
    assert ios_devices() == []
    with pytest.raises(DeviceError, match="usbmuxd is not running"):
        IosLink(FIRST, wait=0.1).open()
    lines: list[str] = []

    def plug_in(line: str) -> None:
        lines.append(line)
        mux.__enter__().attach(Phone(FIRST, {PORT: device.connect}))

    link = IosLink(FIRST, wait=600, say=plug_in)
    try:
        assert link.open().device.id == "one"
        link.close()
    finally:
        mux.__exit__(None, None, None)
    assert len(lines) == 1 and "on Linux install usbmuxd" in lines[0]


@pytest.mark.parametrize("there", [False, True])
def test_whoever_wants_to_stop_does_not_wait_for_an_iphone(there: bool, mux: FakeUsbmuxd) -> None:
    if there:
        mux.attach(Phone(FIRST, {}))
    wish = threading.Event()
    link = IosLink(FIRST, wait=600, say=lambda line: threading.Timer(0.1, wish.set).start())
    link.stop = wish.is_set
    with pytest.raises(DeviceError, match="nothing listens" if there else "is not connected"):
        link.open()


@contextmanager
def held_session(device: SimulatedDevice) -> Iterator[None]:
    """A session of somebody else's: an earlier one may still be on its way out when it asks."""
    for _ in range(100):
        with device.connect() as held, held.makefile("rb") as lines:
            if b'"hello"' in lines.readline():
                yield
                return
        time.sleep(0.05)
    raise AssertionError("the device stays busy")


def test_an_iphone_is_ready_only_when_its_harness_answers(
    mux: FakeUsbmuxd, phone: Phone, device: SimulatedDevice, tmp_path: Path
) -> None:
    mux.attach(Phone(SECOND, {}))
    mux.attach(Phone("0" * 40, {}, paired=False))
    ready, attached, untrusted = ios_devices()
    assert (ready.key, ready.state, ready.model, ready.os, ready.hint) == (
        KEYS[0], "ready", "simulated", "none", None
    )  # fmt: skip
    assert (attached.key, attached.state, attached.model, attached.os) == (KEYS[1], "attached", None, None)
    assert "open the harness app" in (attached.hint or "")
    assert untrusted.state == "unauthorised" and "Trust" in (untrusted.hint or "")
    with held_session(device):
        (busy, *_) = ios_devices()
    assert busy.state == "attached" and "another session" in (busy.hint or "")
    lab = tmp_path / "lab.toml"
    lab.write_text(
        f'[[device]]\nkey = "ios:{FIRST.lower()}"\nname = "On the shelf"\nlabels = ["shelf"]\n'
        f'[[device]]\nkey = "ios:{"1" * 40}"\nlabels = ["shelf"]\n'
    )
    found = discover(read_lab(lab))
    states = {one.key: (one.state, one.model) for one in found if one.labels}
    assert states == {KEYS[0]: ("ready", "On the shelf"), f"ios:{'1' * 40}": ("absent", None)}
    assert select(["all"], found) == [KEYS[0]] == select([f"ios:{FIRST}", KEYS[0].lower()], found)
    told = call("devices", "--json")
    assert [d["state"] for d in json.loads(told.stdout)["devices"]] == ["ready", "ready", "attached", "unauthorised"]
    assert call("devices", "--quiet").stdout.split() == ["host", KEYS[0]]


def test_a_service_that_answers_nonsense_is_told(mux: FakeUsbmuxd) -> None:
    mux.attach(Phone("no UDID", {}))
    assert "usbmuxd's answer has no proper" in refusal(call("devices"), 6)


def test_the_command_measures_one_iphone_and_the_other_when_it_is_there(
    mux: FakeUsbmuxd,
    phone: Phone,
    bare_package: Path,
    standin_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert IosLink.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(IosLink.__init__.__kwdefaults__, "wait", 0.2)
    folder, _ = small_package(tmp_path / "package", weights_sha256=sha256_of(standin_file))
    store = tmp_path / "store.sqlite"
    words = ("bench", folder, "--weights", standin_file, "--offline", "--seconds", 0.05, "--launches", 1)
    words += ("--store", store, "--json")
    told = call(*words, "--device", f"ios:{FIRST}", "--device", f"ios:{SECOND}", "--tag", "first")
    assert told.exit_code == 6
    data = json.loads(told.stdout)
    assert data["status"] == "partial"
    assert [(d["device"], len(d["launches"])) for d in data["devices"]] == [(KEYS[0], 2), (KEYS[1], 0)]
    assert "is not connected" in data["devices"][1]["error"]
    assert f"warning: {KEYS[1]}" in told.stderr and "(connect it by cable" in told.stderr
    with simulated(tmp_path, "two") as other:
        mux.attach(Phone(SECOND, {PORT: other.connect}))
        told = call(*words, "--device", f"ios:{SECOND}", "--tag", "second")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["status"] == "complete"
    runs = json.loads(call("history", "--store", store, "--json").stdout)["runs"]
    assert {run["tags"][0]: run["status"] for run in runs} == {"first": "partial", "second": "complete"}
    for tag in ("first", "second"):
        told = call("compare", tag, "--target", "iphone14-30fps", "--store", store, "--json")
        assert told.exit_code == 4
        cases = json.loads(told.stdout)["cases"]
        assert len(cases) == 2 and all(case["refused"] for case in cases)
