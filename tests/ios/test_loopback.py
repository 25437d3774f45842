"""The iOS harness's own code on this machine: real server, real protocol, this project's model in ONNX Runtime."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab import swift
from edgesam_mobile.lab.inputs import Inputs, make_inputs
from edgesam_mobile.lab.jobs import JobOptions, case_record, make_job, plan_cases, uploads
from edgesam_mobile.lab.links import device_record
from edgesam_mobile.lab.protocol.events import Event, Sample
from edgesam_mobile.lab.protocol.launch import LaunchEvents
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.lab.swift import SwiftLink, build_harness, onnx_library
from edgesam_mobile.package.manifest import Manifest, read_manifest
from tests.android.conftest import tools_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # where the compiler's root is not there yet
ARTIFACT = "onnx-fp32"
CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"


@pytest.fixture(scope="module")
def command() -> list[str]:
    """What starts the harness."""
    with tools_or_skip():
        return build_harness()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights at 256 pixels."""
    folder = tmp_path_factory.mktemp("packages") / "small"
    build(BuildOptions("edge-sam-open", targets=("host",), precisions=("fp32",), input_size=256), folder)
    return folder


class Bench:
    """Jobs on a harness that was started for them."""

    def __init__(self, link: SwiftLink, package: Path, manifest: Manifest, inputs: Inputs) -> None:
        self.link, self._package, self._manifest, self._inputs = link, package, manifest, inputs
        self.hello = link.open()

    def launch(self, index: int, *, kill: bool = False, encoder: Path | None = None) -> LaunchRecord:
        """One launch.

        Args:
            kill: the harness, at the first whole frame.
            encoder: a file to send instead of the encoder.
        """
        options = JobOptions(seconds=0.1, rounds=3, launches=1, threads=(1,))
        (case,), _ = plan_cases(self._manifest, self.hello, options, ())
        job = make_job(self._manifest, case, self._inputs, options, index)
        files = {**self._inputs.files, **uploads(self._package, case.artifact)}
        if encoder is not None:
            sha256 = sha256_of(encoder)
            place = f"models/{sha256}/{encoder.name}"
            files[place] = encoder
            job = job.model_copy(update={"encoder": job.encoder.model_copy(update={"path": place, "sha256": sha256})})
        for remote, local in files.items():
            self.link.put(local, remote, lambda done, of: None)
        record = case_record(self._manifest, case.artifact, case.runtime, delegate=case.delegate, threads=1)
        events = LaunchEvents(job.job, record, device_record(self.link.key, self.hello), index)

        def seen(event: Event) -> None:
            if kill and isinstance(event, Sample) and event.stage == "warm-frame" and event.round == 0:
                assert self.link._process is not None
                self.link._process.send_signal(signal.SIGKILL)

        return self.link.run(job, events, seen)


@pytest.fixture
def bench(command: list[str], package: Path, tmp_path: Path) -> Iterator[Bench]:
    manifest = read_manifest(package)
    bench = Bench(SwiftLink(), package, manifest, make_inputs(manifest, CAT, tmp_path))
    yield bench
    bench.link.close()


def test_a_package_is_measured_stored_and_not_held_against_a_phones_target(
    command: list[str], package: Path, tmp_path: Path
) -> None:
    place = {"EDGESAM_STORE": str(tmp_path / "measured.sqlite")}
    words = ("--device", "loopback-swift", "--image", CAT, "--launches", 2, "--seconds", 0.2, "--threads", 2)
    told = run("bench", package, *words, "--json", **place)
    assert told.exit_code == 0, told.stderr
    (device,) = json.loads(told.stdout)["devices"]
    assert [launch["status"] for launch in device["launches"]] == ["complete"] * 2

    store = open_store(place["EDGESAM_STORE"])
    kept = store.run(json.loads(told.stdout)["run"])
    assert kept.status == "complete"
    for launch in kept.launches:
        assert (launch.device.key, launch.device.kind) == ("loopback-swift", "host")
        assert (launch.case.id, launch.case.runtime) == (ARTIFACT, "ONNX Runtime")
        assert launch.check is not None and launch.check["passed"]
        assert all(mask["iou"] >= 0.99 and mask["best_same"] for mask in launch.check["masks"])
        assert len(launch.check["masks"]) >= 3
        assert launch.result is not None
        assert (launch.result["requested"], launch.result["applied"], launch.result["threads"]) == ("cpu", "cpu", 2)
        samples = store.launches(kept.id, ARTIFACT, stage="frame")
        assert all(one.times("frame") for one in samples)

    judged = run("compare", "--target", "iphone14-30fps", **place)
    assert judged.exit_code == 4
    assert "not compared" in judged.stdout and "a host says nothing about it" in judged.stdout
    page = tmp_path / "report.html"
    assert run("report", "-o", page, **place).exit_code == 0
    assert "loopback-swift" in page.read_text()


def test_a_frame_is_its_steps(bench: Bench) -> None:
    launch = bench.launch(0)
    assert launch.status == "complete", launch.error
    assert bench.hello.device.class_ == "host"
    assert bench.hello.harness.build == "release"
    stages = Counter(sample.stage for sample in launch.samples)
    assert stages["first-frame"] == stages["load-cold"] == 1 and stages["kernel"] == 2
    assert stages["frame"] == stages["encode"] >= 3
    ns = {(sample.stage, sample.round): sample.ns for sample in launch.samples}
    for number in range(stages["frame"]):
        assert ns["frame", number] == sum(ns[step, number] for step in ("pre", "encode", "decode", "post"))


def test_a_killed_harness_is_a_truncated_launch_and_the_next_one_is_whole(bench: Bench) -> None:
    launch = bench.launch(0, kill=True)
    assert launch.status == "truncated", launch.error
    assert any(sample.stage == "first-frame" for sample in launch.samples)
    assert bench.launch(1).status == "complete"


def test_what_is_no_graph_is_the_runtimes_error(bench: Bench, tmp_path: Path) -> None:
    damaged = tmp_path / "encoder.onnx"
    damaged.write_bytes(b"This is no model. " * 100)
    launch = bench.launch(0, encoder=damaged)
    assert launch.status == "failed" and not launch.samples
    assert launch.error is not None and "encoder.onnx failed:Protobuf parsing failed" in launch.error


def test_another_graphs_file_is_the_runtimes_error(bench: Bench, package: Path) -> None:
    launch = bench.launch(0, encoder=package / read_manifest(package).artifact(ARTIFACT).decoder.file.path)
    assert launch.status == "failed" and not launch.samples
    assert launch.error is not None and "Invalid" in launch.error


@pytest.mark.parametrize("how", ["stdin", "SIGTERM"])
def test_it_ends_with_whoever_started_it(command: list[str], tmp_path: Path, how: str) -> None:
    environment = os.environ | {"EDGESAM_ORT_LIBRARY": str(onnx_library())}
    with subprocess.Popen(
        [*command, "--folder", tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as harness:
        assert harness.stdin is not None and harness.stdout is not None
        port = json.loads(harness.stdout.readline())["port"]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if how == "stdin":
            harness.stdin.close()
        else:
            harness.terminate()
        assert harness.wait(10) == (0 if how == "stdin" else -signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize(
    ("options", "library", "told"),
    [
        (["--port", "x", "--folder", "f"], "{}", "the port is none"),
        ([], "{}", "a folder is missing"),
        (["--quiet"], "{}", "cannot read the option --quiet"),
        (["--folder", "f"], "nothing.so", "cannot load nothing.so"),
    ],
)
def test_a_harness_that_cannot_start_says_why(
    command: list[str], tmp_path: Path, options: list[str], library: str, told: str
) -> None:
    environment = os.environ | {"EDGESAM_ORT_LIBRARY": library.format(onnx_library())}
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ") and told in error and hint


def test_a_taken_port_is_told(command: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"EDGESAM_ORT_LIBRARY": str(onnx_library())}
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = ["--folder", str(tmp_path), "--port", str(other.getsockname()[1])]
        done = subprocess.run(
            [*command, *words], stdin=subprocess.PIPE, capture_output=True, text=True, env=environment
        )
    assert done.returncode == 2 and "in use" in done.stderr


def test_its_runtime_in_xctest(command: list[str], tmp_path: Path) -> None:
    write_graphs(tmp_path)
    scratch = swift._SOURCES / "build" / "tests"
    building = [swift._SWIFT, "build", "--build-tests", "--scratch-path", scratch, "-j", "2"]
    built = subprocess.run(building, cwd=swift._SOURCES, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:]
    # On the host, where the wheel's library is wherever it may be.
    bundle = scratch / "debug" / "EdgeSAMPackageTests.xctest"
    done = subprocess.run(
        [swift._SWIFT, "--run", bundle, "HarnessORTTests.OnnxTests"],
        capture_output=True,
        text=True,
        env=os.environ | {"EDGESAM_ORT_LIBRARY": str(onnx_library()), "EDGESAM_ORT_GRAPHS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Executed 9 tests, with 0 failures" in done.stdout + done.stderr


def write_graphs(folder: Path) -> None:
    """Small graphs from x (1 x 3) to y: one that doubles, two that change the type, and a file that is none."""
    two = onnx.numpy_helper.from_array(np.float32(2), "two")
    for name, kind, node in (
        ("double", TensorProto.FLOAT, helper.make_node("Mul", ["x", "two"], ["y"])),
        ("from_bytes", TensorProto.UINT8, helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)),
        ("from_halves", TensorProto.FLOAT16, helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)),
    ):
        ports = [helper.make_tensor_value_info("x", kind, [1, 3])]
        out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
        graph = helper.make_graph([node], name, ports, out, [two] if name == "double" else [])
        opset = helper.make_opsetid("", 20)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / f"{name}.onnx")
    (folder / "text.onnx").write_text("This is no model.")
