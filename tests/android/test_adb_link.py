"""The desktop measures a package over real adb: the APK's own core on this machine's ExecuTorch and LiteRT.

What is not Android here: see ``android_harness/adb/loop.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from android_harness.adb.loop import LoopDevice, adb_loop, in_own_network, own_network
from edgesam_mobile.errors import DeviceError
from edgesam_mobile.evaluate.probes import builtin_pictures
from edgesam_mobile.lab.adb import AdbLink
from edgesam_mobile.lab.fleet import Outcome, measure_on
from edgesam_mobile.lab.inputs import Inputs, make_inputs
from edgesam_mobile.lab.jobs import JobOptions
from edgesam_mobile.lab.protocol.events import Event, Sample
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.requests import Golden, Prompted
from edgesam_mobile.package.manifest import read_manifest
from tests.android.conftest import tools_or_skip
from tests.command_line import call

# The package takes two minutes to build.
pytestmark = pytest.mark.slow
LONG = JobOptions(seconds=4, rounds=3, launches=1)
HASTE = Patience(idle=20, job=60, reconnect=20, cancel=20)
Seen = Callable[[LoopDevice, Event], None]


class Watching:
    """Gives every event of a job to a function; what is shown to people is nobody's here."""

    def __init__(self, device: LoopDevice, seen: Seen) -> None:
        self._device, self._seen = device, seen

    def planned(self, device: str, cases: Sequence[str], launches: int) -> None: ...

    def sending(self, device: str, what: str, done: int, of: int) -> None: ...

    def event(self, device: str, case: str, index: int, event: Event) -> None:
        self._seen(self._device, event)

    def launched(self, device: str, case: str, launch: Any) -> None: ...

    def said(self, device: str, line: str) -> None: ...


@dataclass(frozen=True)
class Setting:
    """All that the function in the other process needs, as JSON."""

    package: str
    inputs: str
    command: list[str]
    apk: str


@pytest.fixture(scope="module")
def setting(
    android_package: Path, apk: Path, apk_command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Setting:
    with tools_or_skip():
        own_network()
    folder = tmp_path_factory.mktemp("inputs")
    made = make_inputs(read_manifest(android_package), builtin_pictures()[0], folder)
    (folder / "inputs.json").write_text(
        json.dumps(
            {
                "frame": made.frame.model_dump(mode="json"),
                "golden": [golden.model_dump(mode="json") for golden in made.golden],
                "files": {remote: str(local) for remote, local in made.files.items()},
            }
        )
    )
    return Setting(str(android_package), str(folder / "inputs.json"), apk_command, str(apk))


def read_inputs(path: str) -> Inputs:
    content = json.loads(Path(path).read_text())
    return Inputs(
        frame=Prompted.model_validate_json(json.dumps(content["frame"])),
        golden=tuple(Golden.model_validate_json(json.dumps(golden)) for golden in content["golden"]),
        files={remote: Path(local) for remote, local in content["files"].items()},
    )


def measured(
    folder: str, setting: dict[str, Any], options: JobOptions, seen: Seen = lambda *_: None, only: Sequence[str] = ()
) -> Outcome:
    """Run ``measure_on`` through the loop; everything that was planned."""
    package = Path(setting["package"])
    with adb_loop(Path(folder), setting["command"]) as device:
        device.install(Path(setting["apk"]))
        link = AdbLink(device.serial, apk=Path(setting["apk"]), patience=HASTE)
        (outcome,), _ = measure_on(
            [link],
            package,
            read_manifest(package),
            read_inputs(setting["inputs"]),
            options,
            store=lambda launch: None,
            watcher=Watching(device, seen),
            only=only,
        )
    if outcome.error is not None:
        raise outcome.error
    return outcome


def at_frame(number: int, act: Callable[[LoopDevice], None]) -> Seen:
    """Do something once, as soon as a frame of that number was timed."""

    def seen(device: LoopDevice, event: Event) -> None:
        if isinstance(event, Sample) and event.stage == "frame" and event.round == number:
            act(device)

    return seen


def both_formats(folder: str, setting: dict[str, Any]) -> None:
    outcome = measured(folder, setting, JobOptions(seconds=0.1, rounds=3, launches=1))
    assert {launch.case.id for launch in outcome.launches} == {"tflite-fp32", "executorch-xnnpack-fp32"}
    for launch in outcome.launches:
        assert launch.status == "complete", launch.error
        assert launch.check is not None and launch.check["passed"]
        assert min(mask["iou"] for mask in launch.check["masks"]) >= 0.99
        assert len(launch.times("frame")) >= 3
        print(launch.case.id, [round(mask["iou"], 5) for mask in launch.check["masks"]], launch.times("frame"))
    assert outcome.whole


def cable_pulled(folder: str, setting: dict[str, Any]) -> None:
    def pull(device: LoopDevice) -> None:
        device.pull_cable()
        threading.Timer(1.0, device.plug_cable).start()

    times, break_at_frame = [], at_frame(2, pull)

    def seen(device: LoopDevice, event: Event) -> None:
        times.append(time.monotonic())
        break_at_frame(device, event)

    (launch,) = measured(folder, setting, LONG, seen, only=["tflite-fp32"]).launches
    assert launch.status == "complete", launch.error
    assert max(after - before for before, after in itertools.pairwise(times)) > 0.9  # it was pulled indeed
    assert [sample.seq for sample in launch.samples] == sorted({sample.seq for sample in launch.samples})
    assert sum(launch.times("frame")) >= 0.8 * LONG.seconds * 1000  # also what was timed meanwhile


def harness_killed(folder: str, setting: dict[str, Any]) -> None:
    def kill(device: LoopDevice) -> None:
        device.adb("shell", "am force-stop dev.edgesam.harness")

    (launch,) = measured(folder, setting, LONG, at_frame(2, kill), only=["tflite-fp32"]).launches
    assert launch.status == "truncated"
    assert "Process crashed" in str(launch.error)
    assert len(launch.times("frame")) >= 3


def interrupted(folder: str, setting: dict[str, Any]) -> None:
    def interrupt(device: LoopDevice) -> None:
        raise KeyboardInterrupt

    (launch,) = measured(folder, setting, LONG, at_frame(2, interrupt), only=["tflite-fp32"]).launches
    assert launch.status == "cancelled"
    assert len(launch.times("frame")) >= 3
    assert '"status":"cancelled"' in Path(folder, "files", "jobs", f"{launch.id}.jsonl").read_text()


def no_space(folder: str, setting: dict[str, Any]) -> None:
    """The harness's folder on a file system of two megabytes."""
    files = Path(folder, "files")
    files.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(files)], check=True)
    try:
        with pytest.raises(DeviceError, match="no space for"):
            measured(folder, setting, LONG, only=["tflite-fp32"])
        assert not list(files.rglob("encoder.tflite"))  # nothing that looks whole
    finally:
        subprocess.run(["umount", "-l", str(files)], check=True)


def damaged_on_the_device(folder: str, setting: dict[str, Any]) -> None:
    """A model that went bad is sent anew."""
    options = JobOptions(seconds=0.1, rounds=3, launches=1)
    assert measured(folder, setting, options, only=["tflite-fp32"]).whole
    model = next(Path(folder, "files", "models").rglob("encoder.tflite"))
    model.write_bytes(b"damaged")
    assert measured(folder, setting, options, only=["tflite-fp32"]).whole
    assert model.stat().st_size > 1_000_000


def harness_missing_or_another(folder: str, setting: dict[str, Any]) -> None:
    apk = Path(setting["apk"])
    with adb_loop(Path(folder), setting["command"]) as device:
        installed = device.folder.parent / "base.apk"
        link = AdbLink(device.serial, apk=apk, patience=HASTE)
        with pytest.raises(DeviceError, match="the harness does not start"):
            AdbLink(device.serial, patience=HASTE).open()
        for _ in range(2):
            assert link.open().harness.version
            assert installed.read_bytes() == apk.read_bytes()
            installed.write_bytes(b"another version")
        installed.unlink()
        installed.symlink_to("no such folder/harness.apk")
        with pytest.raises(DeviceError, match="does not install the harness: cp: ") as caught:
            link.open()
        assert caught.value.hint and "allow installing" in caught.value.hint


def from_the_command_line(folder: str, setting: dict[str, Any]) -> None:
    """Devices, bench with its store, the report, and a verdict that is refused: this is no phone."""
    store, page = Path(folder, "store.sqlite"), Path(folder, "report.html")
    with adb_loop(Path(folder), setting["command"]) as device:
        key = f"adb:{device.serial}"
        listed = json.loads(call("devices", "--json").stdout)["devices"]
        assert {one["key"]: one["state"] for one in listed}[key] == "ready"
        told = call(
            *("bench", setting["package"], "--device", key, "--apk", setting["apk"], "--store", store),
            *("--launches", 2, "--seconds", 0.2, "--tag", "loop", "--json"),
        )
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    assert data["status"] == "complete" and len(data["devices"][0]["launches"]) == 4
    assert {case["checked"] for case in data["cases"]} == {True}
    compared = call("compare", "loop", "--target", "iphone14-30fps", "--store", store)
    assert compared.exit_code == 4 and "not compared" in compared.stdout
    assert call("report", "loop", "--store", store, "-o", page).exit_code == 0
    assert "executorch-xnnpack-fp32" in page.read_text()


@pytest.mark.parametrize(
    "what",
    [
        both_formats,
        cable_pulled,
        harness_killed,
        interrupted,
        harness_missing_or_another,
        damaged_on_the_device,
        pytest.param(
            no_space, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
        ),
        from_the_command_line,
    ],
    ids=lambda function: function.__name__,
)
def test_over_adb(what: Callable[..., None], setting: Setting, tmp_path: Path) -> None:
    print(in_own_network(what, str(tmp_path), vars(setting)))
