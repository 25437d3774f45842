"""The harness's core on this machine drives the real ExecuTorch and LiteRT: whole jobs, held against PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_harness.host.build import build_host
from edgesam_mobile.lab.protocol.events import Check, Error, Event, Hello, Result, Sample
from edgesam_mobile.lab.protocol.stream import Ending
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.package.manifest import read_manifest
from tests.android.conftest import tools_or_skip
from tests.android.job_folder import Answer, make_job, read_stream

# A build of real weights: about two minutes.
pytestmark = pytest.mark.slow
ARTIFACTS = ("executorch-xnnpack-fp32", "tflite-fp32")
each_artifact = pytest.mark.parametrize("artifact", ARTIFACTS)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with tools_or_skip():
        return build_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def oracle(android_package: Path, cat: np.ndarray) -> Any:
    """PyTorch's answer to points on the cat, or to a box, chosen as the manifest says."""
    predictor = SamPredictor(load_model("edge-sam-open", image_size=256))
    predictor.set_image(cat)
    skipped = 4 - read_manifest(android_package).mask.point_masks

    def answer(points: list[tuple[float, float]], labels: list[int]) -> Answer:
        if labels == [2, 3]:
            return predictor.predict(box=np.array(points).ravel(), num_multimask_outputs=4)[0][0], 0
        masks, scores, _ = predictor.predict(np.array(points), np.array(labels), num_multimask_outputs=4)
        best = skipped + int(np.argmax(scores[skipped:]))
        return masks[best], best

    return answer


@pytest.fixture
def job(tmp_path: Path, android_package: Path, cat: np.ndarray, oracle: Any) -> Any:
    """Makes the folder of a job with three prompts on the cat."""
    height, width = cat.shape[:2]
    prompts = [
        ([(0.5 * width, 0.5 * height)], [1]),
        ([(0.3 * width, 0.3 * height), (0.7 * width, 0.7 * height)], [1, 0]),
        ([(0.1 * width, 0.2 * height), (0.8 * width, 0.9 * height)], [2, 3]),
    ]

    def make(artifact: str, **changes: Any) -> str:
        request = make_job(tmp_path, android_package, artifact, cat, prompts, oracle, **changes)
        return request.relative_to(tmp_path).as_posix()

    return make


def run(command: list[str], folder: Path, request: str) -> tuple[Ending, list[Event]]:
    done = subprocess.run([*command, str(folder), request], capture_output=True, check=False, timeout=300)
    reader, events = read_stream(done.stdout)
    ending = reader.ending()
    assert done.returncode == (0 if ending.status == "complete" else 1), done.stderr.decode()[-2000:]
    return ending, events


def of(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@each_artifact
def test_masks_are_pytorchs(command: list[str], job: Any, tmp_path: Path, artifact: str) -> None:
    ending, events = run(command, tmp_path, job(artifact))
    assert (ending.kind, ending.status) == ("whole", "complete"), of(events, Error)
    (check,) = of(events, Check)
    assert check.passed and len(check.masks) == 3
    assert all(mask.iou >= 0.99 and mask.best_same for mask in check.masks)
    (result,) = of(events, Result)
    # LiteRT tells that XNNPACK leaves operations of the decoder out.
    assert result.applied == ("xnnpack" if artifact == ARTIFACTS[0] else None)
    assert (result.requested, result.threads, result.rounds) == ("xnnpack", 1, 3)
    stages = Counter(sample.stage for sample in of(events, Sample))
    assert stages["frame"] == stages["encode"] == 3
    assert stages["first-frame"] == stages["load-cold"] == 1
    assert stages["warm-frame"] == result.warm_up.rounds
    assert stages["kernel"] == 2
    assert "load-cached" not in stages  # neither keeps anything on disk


@each_artifact
def test_frames_are_whole(command: list[str], job: Any, tmp_path: Path, artifact: str) -> None:
    _, events = run(command, tmp_path, job(artifact))
    samples = {(sample.stage, sample.round): sample.ns for sample in of(events, Sample)}
    for number in range(3):
        steps = sum(samples[stage, number] for stage in ("pre", "encode", "decode", "post"))
        assert samples["frame", number] == steps


def test_every_event_is_kept_as_it_was_sent(command: list[str], job: Any, tmp_path: Path) -> None:
    request = job("tflite-fp32")
    done = subprocess.run([*command, str(tmp_path), request], capture_output=True, check=True)
    assert (tmp_path / "jobs" / "job-1.jsonl").read_bytes() == done.stdout


def test_a_wrong_mask_fails_before_anything_is_timed(
    command: list[str], job: Any, tmp_path: Path, cat: np.ndarray
) -> None:
    request = tmp_path / job("tflite-fp32")
    fields = json.loads(request.read_bytes())
    empty = tmp_path / fields["golden"][0]["mask"]
    empty.write_bytes(b"P4 %d %d\n" % cat.shape[1::-1] + bytes((cat.shape[1] + 7) // 8 * cat.shape[0]))
    ending, events = run(command, tmp_path, "jobs/job-1.json")
    assert (ending.kind, ending.status) == ("whole", "failed")
    assert not of(events, Sample)
    assert of(events, Check)[0].masks[0].iou == 0


@each_artifact
def test_what_is_no_graph_is_the_runtimes_error(command: list[str], job: Any, tmp_path: Path, artifact: str) -> None:
    exchange_encoder(tmp_path / job(artifact), tmp_path, b"This is no model. " * 100)
    ending, events = run(command, tmp_path, "jobs/job-1.json")
    assert (ending.kind, ending.status) == ("whole", "failed")
    assert of(events, Error)[0].code == "load-failed"


def exchange_encoder(request: Path, folder: Path, content: bytes) -> None:
    fields = json.loads(request.read_bytes())
    (folder / fields["encoder"]["path"]).write_bytes(content)
    fields["encoder"]["sha256"] = hashlib.sha256(content).hexdigest()
    request.write_text(json.dumps(fields))


def test_another_graphs_file_is_an_error(command: list[str], job: Any, tmp_path: Path) -> None:
    request = tmp_path / job("tflite-fp32")
    fields = json.loads(request.read_bytes())
    for key in ("path", "sha256"):
        fields["encoder"][key] = fields["decoder"][key]
    request.write_text(json.dumps(fields))
    ending, events = run(command, tmp_path, "jobs/job-1.json")
    assert ending.status == "failed"
    assert of(events, Error)[0].code in ("load-failed", "run-failed")


def test_a_killed_process_leaves_a_stream_that_says_so(command: list[str], job: Any, tmp_path: Path) -> None:
    request = job("tflite-fp32", measure={"seconds": 60.0, "rounds": 1})
    kept = tmp_path / "jobs" / "job-1.jsonl"
    with subprocess.Popen(
        [*command, str(tmp_path), request], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while b'"frame"' not in (kept.read_bytes() if kept.exists() else b""):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    reader, events = read_stream(kept.read_bytes())
    assert reader.ending().kind == "truncated"
    assert any(sample.stage == "frame" for sample in of(events, Sample))


def test_cancelling_ends_a_job_between_frames(command: list[str], job: Any, tmp_path: Path) -> None:
    request = job("tflite-fp32", measure={"seconds": 60.0, "rounds": 1})
    with subprocess.Popen(
        [*command, str(tmp_path), request], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        lines = b""
        for line in process.stdout:
            lines += line
            if b'"stage":"frame"' in line:
                (tmp_path / "jobs" / "job-1.cancel").touch()
    reader, _ = read_stream(lines)
    assert (reader.ending().kind, reader.ending().status) == ("whole", "cancelled")


def test_hello_tells_what_is_here(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*command, str(tmp_path), "", "event="], capture_output=True, check=True)
    _, (hello,) = read_stream(done.stdout.removeprefix(b"event="))
    assert isinstance(hello, Hello)
    assert hello.device.class_ == "host"
    assert {runtime.name: runtime.formats for runtime in hello.runtimes} == {
        "ExecuTorch": ("executorch-xnnpack",),
        "LiteRT": ("tflite",),
    }
