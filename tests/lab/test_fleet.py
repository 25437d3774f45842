"""A package on several devices at once, all simulated: everything arrives, is stored, and is called what it is."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from command_line import call, refusal
from device_runs import FORMATS, HASTE, QUICK, Quiet, small_inputs, small_package
from PIL import Image

from edgesam_mobile.errors import DeviceError, PackageError, StorageError, UsageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.fleet import Outcome, measure_on, refuse_unoffered
from edgesam_mobile.lab.inputs import Inputs, make_inputs
from edgesam_mobile.lab.jobs import JobOptions, plan_cases, schedule
from edgesam_mobile.lab.links import DuplexLink
from edgesam_mobile.lab.protocol.events import Hello
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice
from edgesam_mobile.package.manifest import Manifest, read_manifest


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Manifest]:
    return small_package(tmp_path / "package")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return small_inputs(tmp_path)


def measured(
    devices: Sequence[SimulatedDevice], package: tuple[Path, Manifest], inputs: Inputs, **changes: Any
) -> tuple[list[Outcome], bool, list[LaunchRecord], Quiet]:
    watcher, stored = Quiet(), list[LaunchRecord]()
    links = [DuplexLink(f"simulated:{device.name}", device.connect, patience=HASTE) for device in devices]
    options = changes.pop("options", QUICK)
    outcomes, interrupted = measure_on(
        links, *package, inputs, options, store=changes.pop("store", stored.append), watcher=watcher, **changes
    )
    return outcomes, interrupted, stored, watcher


def simulated(folder: Path, number: int, **settings: Any) -> SimulatedDevice:
    return SimulatedDevice(folder / f"device{number}", name=f"{number}", formats=FORMATS, seed=number, **settings)


def test_every_launch_of_every_case_of_every_device_arrives_whole(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    with simulated(tmp_path, 1) as one, simulated(tmp_path, 2) as two:
        outcomes, interrupted, stored, watcher = measured([one, two], package, inputs)
        kept = sum(one.samples.values()) + sum(two.samples.values())
    assert not interrupted and all(outcome.whole for outcome in outcomes)
    assert len(stored) == 2 * 2 * 2 and {launch.status for launch in stored} == {"complete"}
    assert sum(len(launch.samples) for launch in stored) == kept > 0
    assert watcher.events > kept
    for outcome in outcomes:
        order = [(launch.index, launch.case.id) for launch in outcome.launches]
        assert sorted(order) == [(n, f"{name}-fp32") for n in (0, 1) for name in sorted(FORMATS)]
        assert [index for index, _ in order] == [0, 0, 1, 1]  # interleaved
        assert {launch.device.key for launch in outcome.launches} == {outcome.device}
        assert {launch.device.kind for launch in outcome.launches} == {"simulated"}
        assert len({launch.id for launch in outcome.launches}) == 4


def test_files_are_sent_once_and_a_damaged_one_again(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    with simulated(tmp_path, 1) as device:
        measured([device], package, inputs, only=("tflite-fp32",))
        model = next((tmp_path / "device1" / "models").rglob("encoder"))
        first = model.stat().st_mtime_ns
        measured([device], package, inputs, only=("tflite-fp32",))
        assert model.stat().st_mtime_ns == first
        model.write_bytes(b"damaged")
        (outcome,), *_ = measured([device], package, inputs, only=("tflite-fp32",))
    assert outcome.whole
    assert sha256_of(model) == package[1].artifact("tflite-fp32").encoder.file.sha256


@pytest.mark.slow
def test_a_lost_device_takes_no_other_along_and_what_it_measured_is_kept(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    gone = Fault("kill", "run", 25, seconds=12)  # four times as long as is waited for it
    with simulated(tmp_path, 1) as good, simulated(tmp_path, 2, faults=[gone], pace=0.02) as bad:
        outcomes, _, stored, watcher = measured([good, bad], package, inputs)
    assert outcomes[0].whole and not outcomes[1].whole
    lost = [launch for launch in stored if launch.device.key == "simulated:2"]
    assert lost[0].status == "truncated" and lost[0].samples
    assert isinstance(outcomes[1].error, DeviceError) and len(lost) == 3
    assert any("simulated:2" in line and "complete" not in line for line in watcher.lines)


def test_a_cable_that_drops_costs_nothing(package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path) -> None:
    faults = [Fault("cable", "put", 3000), Fault("cable", "sent", 9), Fault("malformed", "sent", 14)]
    with simulated(tmp_path, 1, faults=faults) as device:
        (outcome,), *_ = measured([device], package, inputs)
        assert sum(len(launch.samples) for launch in outcome.launches) == sum(device.samples.values())
    assert outcome.whole


def test_a_wrong_mask_makes_a_failed_launch(package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path) -> None:
    with simulated(tmp_path, 1, iou=0.5) as device:
        (outcome,), _, stored, _ = measured([device], package, inputs)
    assert not outcome.whole and {launch.status for launch in stored} == {"failed"}
    assert "IoU is 0.5" in (stored[0].error or "")


def test_a_store_that_fails_is_told_and_the_run_goes_on(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    def full(launch: LaunchRecord) -> None:
        raise StorageError("the disk is full; it is kept elsewhere")

    with simulated(tmp_path, 1) as device:
        (outcome,), *_ = measured([device], package, inputs, store=full)
    assert len(outcome.launches) == 4
    assert outcome.unstored == ["the disk is full; it is kept elsewhere"] * 4


def test_ctrl_c_ends_the_jobs_on_the_devices_and_keeps_what_was_measured(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, asked = threading.Thread.join, threading.Event()

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name == "simulated:1" and watched.is_set() and not asked.is_set():
            asked.set()
            raise KeyboardInterrupt
        join(self, timeout)

    watched = threading.Event()

    class Waiting(Quiet):
        def event(self, device: str, case: str, index: int, event: Any) -> None:
            if event.type == "sample" and event.stage == "frame":
                watched.set()

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    stored: list[LaunchRecord] = []
    with simulated(tmp_path, 1, pace=0.02) as device:
        link = DuplexLink("simulated:1", device.connect, patience=HASTE)
        options = JobOptions(seconds=600, rounds=100_000, launches=2)
        (outcome,), was = measure_on([link], *package, inputs, options, store=stored.append, watcher=Waiting())
    assert was and not outcome.whole
    assert [launch.status for launch in stored] == ["cancelled"] and stored[0].samples


@pytest.mark.parametrize("place", ["put", "run"])
def test_ctrl_c_does_not_wait_for_a_device_that_is_away(
    place: Literal["put", "run"],
    package: tuple[Path, Manifest],
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = interrupting(monkeypatch)
    threading.Timer(0.4, asked.set).start()
    gone = Fault("kill", place, 25, seconds=2)
    begun = time.monotonic()
    with simulated(tmp_path, 1, faults=[gone]) as device:
        link = DuplexLink("simulated:1", device.connect, patience=Patience(idle=2, job=60, reconnect=60))
        (outcome,), was = measure_on(
            [link], *package, inputs, QUICK, store=lambda launch: None, watcher=Quiet(), only=("tflite-fp32",)
        )
        assert time.monotonic() - begun < 1.9
    assert was and outcome.error is None
    assert [launch.status for launch in outcome.launches] == ([] if place == "put" else ["cancelled"])


def test_a_second_ctrl_c_waits_for_nobody(
    package: tuple[Path, Manifest], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = interrupting(monkeypatch), threading.Event()

    class Deaf(DuplexLink):
        def open(self) -> Hello:
            asked.set()
            over.wait(20)
            raise DeviceError("it never answered")

    class Twice(Quiet):
        def said(self, device: str, line: str) -> None:
            super().said(device, line)
            asked.set()

    watcher = Twice()
    link = Deaf("simulated:1", lambda: pytest.fail("it connects"))
    _, was = measure_on([link], *package, inputs, QUICK, store=lambda launch: None, watcher=watcher)
    assert was and not over.is_set() and "second Ctrl-C" in watcher.lines[0]
    over.set()


def interrupting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What it sets is as Ctrl-C, once, in the thread that waits for the devices'."""
    join, asked = threading.Thread.join, threading.Event()

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if asked.is_set() and self.name == "simulated:1":
            asked.clear()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    return asked


def test_what_a_device_cannot_run_is_skipped_and_said(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    with SimulatedDevice(tmp_path / "d", name="1", formats=("tflite",)) as device:
        (outcome,), *_ = measured([device], package, inputs)
        assert outcome.whole and outcome.planned == 2
        assert outcome.skipped == ["executorch-xnnpack-fp32: the harness has no runtime for executorch-xnnpack"]
        (nothing,), *_ = measured([device], package, inputs, only=("executorch-xnnpack-fp32",))
        (wrong,), *_ = measured([device], package, inputs, only=("no-such",))
    assert isinstance(nothing.error, DeviceError) and isinstance(wrong.error, UsageError)


def test_a_delegate_that_a_device_lacks_is_skipped_and_said_and_nothing_else_measured_in_its_place(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    with simulated(tmp_path, 1) as device:
        options = dataclasses.replace(QUICK, delegates=("gpu", "npu"))
        (outcome,), *_ = measured([device], package, inputs, options=options)
        (nothing,), *_ = measured([device], package, inputs, options=dataclasses.replace(QUICK, delegates=("gup",)))
    assert outcome.whole and {launch.case.delegate for launch in outcome.launches} == {"gpu"}
    assert outcome.skipped[0] == "tflite-fp32: simulated has no delegate npu (it has cpu, gpu)"
    assert nothing.launches == [] and isinstance(nothing.error, DeviceError)
    assert "no delegate gup" in (nothing.error.hint or "")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (({"cpu", "gpu"}, {"cpu", "npu"}), None),  # one has each
        (({"cpu", "gpu"}, {"cpu"}), "no device offers the delegate 'npu'"),
        (({"cpu", "gpu"}, None), None),  # one that never answered may have it
    ],
)
def test_a_delegate_that_no_device_has_is_a_wrong_call(
    answers: tuple[set[str] | None, ...], told: str | None
) -> None:
    outcomes = [
        Outcome(f"simulated:{i}", delegates=None if names is None else frozenset(names))
        for i, names in enumerate(answers)
    ]
    with pytest.raises(UsageError, match=told) if told else contextlib.nullcontext():
        refuse_unoffered(outcomes, ("gpu", "npu"))


def test_an_altered_package_is_refused_before_anything_is_measured(
    package: tuple[Path, Manifest], inputs: Inputs, tmp_path: Path
) -> None:
    (package[0] / "tflite-fp32" / "encoder").write_bytes(b"altered")
    with simulated(tmp_path, 1) as device:
        (outcome,), _, stored, _ = measured([device], package, inputs)
    assert isinstance(outcome.error, PackageError) and stored == []


def test_delegates_and_threads_multiply_cases_and_a_long_launch_is_one(package: tuple[Path, Manifest]) -> None:
    with SimulatedDevice(package[0] / "x", formats=FORMATS) as device:
        link = DuplexLink("simulated:x", device.connect)
        hello = link.open()
        link.close()
    offered = hello.runtimes[0].delegates
    options = JobOptions(delegates=offered, threads=(1, 2), sustain=60)
    cases, skipped = plan_cases(package[1], hello, options)
    assert len(cases) == len(FORMATS) * len(offered) * 2 and skipped == []
    assert {case.delegate for case in plan_cases(package[1], hello, JobOptions())[0]} == {offered[0]}
    assert [index for index, _ in schedule(cases, options)] == [0] * len(cases)
    first, again = (list(schedule(cases, JobOptions(launches=3, seed=7))) for _ in range(2))
    assert first == again != list(schedule(cases, JobOptions(launches=3, seed=8)))


@pytest.mark.parametrize("settings", [{"launches": 0}, {"seconds": 0}, {"seconds": 1e9}, {"sustain": -1}])
def test_options_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        JobOptions(**settings)


def test_golden_masks_are_pytorchs_and_boxes_alone_check_integers(
    bare_package: Path, standin_file: Path, tmp_path: Path
) -> None:
    from edgesam_mobile.evaluate.probes import builtin_pictures

    manifest = read_manifest(bare_package)
    made = make_inputs(manifest, builtin_pictures()[1], tmp_path, weights=str(standin_file), offline=True)
    assert {2 in golden.labels for golden in made.golden} == {True, False}
    assert all(2 in golden.labels for golden in made.golden_for("int8"))
    assert made.golden_for("fp16") == made.golden
    for remote, local in made.files.items():
        assert hashlib.sha256(local.read_bytes()).hexdigest() == remote.split("/")[1]
    mask = made.files[made.golden[0].mask]
    with Image.open(builtin_pictures()[1]) as picture, Image.open(mask) as shown:
        width, height = picture.size
        black = ~np.asarray(shown)
    header, _, packed = mask.read_bytes().partition(f"{width} {height}\n".encode())
    assert header == b"P4\n"
    rows = np.unpackbits(np.frombuffer(packed, np.uint8).reshape(height, -1), axis=1)[:, :width]
    assert 0 < rows.sum() < rows.size and np.array_equal(black, rows == 1)  # 1 is the object: black


def test_the_command_measures_stores_and_tells(
    bare_package: Path, standin_file: Path, package: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """Through the loopback interface, as a harness on this machine is used."""
    folder = package[0]
    record = json.loads((folder / "manifest.json").read_text())
    record["weights"]["sha256"] = sha256_of(standin_file)
    (folder / "manifest.json").write_text(json.dumps(record))
    store = tmp_path / "store.sqlite"
    words = ("bench", folder, "--weights", standin_file, "--offline", "--seconds", 0.05, "--launches", 2)
    with simulated(tmp_path, 1) as device:
        with device.connect() as connection:
            port = connection.getpeername()[1]
        refused = call(*words, "--device", f"loopback:{port}", "--no-store", "--delegate", "gup")
        told = call(*words, "--device", f"loopback:{port}", "--store", store, "--tag", "nightly", "--json")
    assert refused.exit_code == 2 and "no device offers the delegate 'gup'" in refused.stderr
    # It calls itself simulated, which a harness on a loopback port may be.
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    assert (data["schema"], data["status"]) == ("edgesam.bench-devices/1", "complete")
    assert len(data["devices"][0]["launches"]) == 4 and len(data["cases"]) == 2
    told = call("history", "--store", store, "--json")
    assert [run["tags"] for run in json.loads(told.stdout)["runs"]] == [["nightly"]]
    told = call("compare", "nightly", "--target", "iphone14-30fps", "--store", store)
    assert told.exit_code == 4 and "simulated" in told.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--device", "pixel-8"), "no device is called 'pixel-8'"),
        (("--device", "label:none"), "label:none means no device here"),
        (("--device", "loopback:none"), "'none' is no port"),
        (("--device", "host", "--device", "loopback:1"), "host beside other devices"),
        (("--device", "loopback:1", "--sustain", "25h"), "24 hours at most"),
        (("--device", "loopback:1", "--sustain", "long"), "'long' is no duration"),
        (("--device", "loopback:1", "--samples", "samples.json"), "--samples is for this machine, not for devices"),
        (("--device", "loopback:1", "--no-baselines"), "--no-baselines is for this machine, not for devices"),
        (("--sustain", "nonsense"), "--sustain is for devices, and --device names none"),
        (("--delegate", "gpu"), "--delegate is for devices"),
        (("--hottest", "fair"), "--hottest is for devices"),
        (("--apk", "harness.apk"), "--apk is for devices"),
        (("--install",), "--install is for devices"),
        (("--lab", "lab.toml"), "--lab is for devices"),
    ],
)
def test_addresses_that_mean_nothing_and_options_that_change_nothing_are_refused(
    words: tuple[str, ...], told: str, bare_package: Path
) -> None:
    assert told in refusal(call("bench", bare_package, "--no-store", *words), 2)
