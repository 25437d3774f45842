"""The whole way to an iPhone but for the iPhone: usbmux, faked, in front of the Swift harness with a real model.

The harness is the one of ``loopback-swift``: the iOS harness's code, with ONNX Runtime in the place of Core ML.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call
from device_runs import HASTE, PHASES, Acting, at_frame, at_phase

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.evaluate.probes import builtin_pictures
from edgesam_mobile.lab.fleet import measure_on
from edgesam_mobile.lab.inputs import make_inputs
from edgesam_mobile.lab.ios import PORT, IosLink
from edgesam_mobile.lab.jobs import JobOptions
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.lab.swift import build_harness, onnx_library
from edgesam_mobile.lab.usbmux import ADDRESS
from edgesam_mobile.package.manifest import read_manifest
from tests.android.conftest import tools_or_skip
from tests.ios.fake_usbmuxd import FakeUsbmuxd, Phone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # where the compiler's root is not there yet
UDID = "00008110-0012345678ABCDEF"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights at 256 pixels."""
    folder = tmp_path_factory.mktemp("packages") / "small"
    build(BuildOptions("edge-sam-open", targets=("host",), precisions=("fp32",), input_size=256), folder)
    return folder


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Where the Swift harness listens."""
    with tools_or_skip():
        command = [*build_harness(), "--folder", str(tmp_path / "harness")]
        surroundings = os.environ | {"EDGESAM_ORT_LIBRARY": str(onnx_library())}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=surroundings) as process:
        assert process.stdin is not None and process.stdout is not None
        yield "127.0.0.1", json.loads(process.stdout.readline())["port"]
        process.stdin.close()  # with which it ends


@pytest.fixture
def phone(harness: tuple[str, int]) -> Phone:
    return Phone(UDID, {PORT: lambda: socket.create_connection(harness, timeout=5)})


@pytest.fixture
def mux(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUsbmuxd]:
    """On its cable."""
    monkeypatch.setattr("edgesam_mobile.lab.adb.adb_devices", list)
    with FakeUsbmuxd(tmp_path / "mux") as mux:
        monkeypatch.setenv(ADDRESS, mux.address)
        mux.attach(phone)
        yield mux


def test_the_command_streams_real_times_into_the_store(mux: FakeUsbmuxd, package: Path, tmp_path: Path) -> None:
    listed = {one["key"]: one for one in json.loads(call("devices", "--json").stdout)["devices"]}
    assert listed[f"ios:{UDID}"]["state"] == "ready"
    store = tmp_path / "store.sqlite"
    words = ("--device", f"ios:{UDID}", "--launches", 2, "--seconds", 0.2, "--threads", 2, "--store", store)
    told = call("bench", package, *words, "--json")
    assert told.exit_code == 0, told.output
    kept = open_store(str(store)).run(json.loads(told.stdout)["run"])
    assert kept.status == "complete" and len(kept.launches) == 2
    for launch in kept.launches:
        assert (launch.device.key, launch.device.kind) == (f"ios:{UDID}", "host")
        assert launch.check is not None and launch.check["passed"] and launch.result is not None
    judged = call("compare", "--target", "iphone14-30fps", "--store", store)
    assert judged.exit_code == 4 and "a host says nothing about it" in judged.stdout


@pytest.mark.parametrize("where", ["file", *PHASES, "frame"])
def test_a_pulled_cable_loses_no_sample(
    where: str, mux: FakeUsbmuxd, phone: Phone, package: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(package)
    inputs = make_inputs(manifest, builtin_pictures()[0], tmp_path)
    place = {"file": None, "frame": at_frame(1)}.get(where, at_phase(where))
    pulled = Acting(lambda: mux.detach_for(phone, 0.5), at=place)
    options = JobOptions(seconds=1.5, rounds=5, launches=1, threads=(1,))
    stored: list[LaunchRecord] = []
    link = IosLink(UDID, patience=HASTE)
    (outcome,), _ = measure_on([link], package, manifest, inputs, options, store=stored.append, watcher=pulled)
    assert pulled.done and phone.connects == 2 and outcome.whole, outcome
    frames = [sample.round for sample in stored[0].samples if sample.stage == "frame"]
    assert frames == list(range(len(frames))) and len(frames) >= 5
    # What the harness kept is what arrived.
    (kept,) = (tmp_path / "harness" / "jobs").glob("*.jsonl")
    events = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sum(event["type"] == "sample" for event in events) == len(stored[0].samples)
    assert pulled.events == len(events)
