"""Core ML in a benchmark of this machine: a mask held against PyTorch's, and never a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare_manifest import bare_manifest
from command_line import call, refusal
from typer.testing import Result

from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab import cases, host
from edgesam_mobile.lab.launch import Launch, Sample
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.lab.subjects import Image
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.manifest import read_manifest, write_manifest

TIMES = ("load_ms", "first_ms", "peak_bytes", "growth_bytes", "vs_pytorch", "drift", "waited")
RIGHT = np.eye(64, dtype=np.bool_)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, standin_file: Path) -> Path:
    """A Core ML artefact whose file is there, and cannot be run."""
    folder = tmp_path_factory.mktemp("coreml")
    (folder / "nothing").write_bytes(b"x")
    bare = bare_manifest(sha256_of(standin_file))
    (artefact,) = bare.artifacts
    file = artefact.encoder.file.model_copy(update={"sha256": sha256_of(folder / "nothing")})
    graph = artefact.encoder.model_copy(update={"file": file})
    whole = artefact.model_copy(update={"encoder": graph, "decoder": graph})
    write_manifest(folder, bare.model_copy(update={"artifacts": [whole]}))
    return folder


@pytest.fixture
def benched(
    package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[Result, list[str]]]:
    """The command on launches that are made up; gives what it told, and each launch's case in order."""

    def bench(*options: str, mask: Any = RIGHT, error: str | None = None) -> tuple[Result, list[str]]:
        ran: list[str] = []

        def run_launch(launch: Launch, job: dict[str, Any], **_: Any) -> None:
            ran.append(launch.case.id)
            launch.end = dict.fromkeys(("rounds", "warm_up_rounds", "stable", "waited", "peak_bytes"))
            if launch.case.kind == "interpreted":
                assert (job["kind"], job["module"]) == ("interpreted", "edgesam_mobile.runtime.coreml.session")
                launch.status, launch.error, launch.mask = ("failed", error, None) if error else ("ok", None, mask)
                return
            launch.status, launch.mask = "ok", RIGHT
            launch.end |= {"stable": True, "peak_bytes": 9, "before_load_bytes": 4, "rounds": 1}
            launch.samples += [Sample(stage, 5.0, 5.0, 1) for stage in ("encode", "decode", "frame")]

        monkeypatch.setattr(host, "run_launch", run_launch)
        only = [word for name in ("coreml-fp32", "pytorch-eager") for word in ("--only", name)]
        call_ = ("bench", package, "--weights", standin_file, "--offline", "--threads", 1, "--launches", 2, *only)
        return call(*call_, "--store", tmp_path / "store.sqlite", *options), ran

    return bench


Benched = Callable[..., tuple[Result, list[str]]]


def test_it_runs_once_and_last_with_a_mask_no_time_and_no_place_in_the_store(
    benched: Benched, tmp_path: Path
) -> None:
    told, ran = benched("--json")
    assert told.exit_code == 0, told.output
    assert ran == ["pytorch-eager", "pytorch-eager", "coreml-fp32"]
    data = json.loads(told.stdout)
    row = data["cases"][-1]
    assert row["case"] == {"id": "coreml-fp32", "kind": "interpreted", "threads": 1, "runtime": "interpreter"}
    assert (row["mask_iou"], row["stages"], row["quick"]) == (1.0, {}, False)
    assert {name: row[name] for name in TIMES} == dict.fromkeys(TIMES)
    launch = data["launches"][-1]
    assert launch["case"] == "coreml-fp32@1" and launch["samples"] == [] and launch["peak_bytes"] is None
    (run,) = open_store(tmp_path / "store.sqlite").runs()
    assert run.status == "complete"
    assert [kept.case.id for kept in run.launches] == ["pytorch-eager", "pytorch-eager"]


def test_its_row_says_who_executed_it_and_has_one_number(benched: Benched) -> None:
    told, _ = benched()
    (row,) = (cells for line in told.stdout.splitlines() if (cells := line.split())[:1] == ["coreml-fp32"])
    assert row == ["coreml-fp32", "interpreter", "1", *["–"] * 8, "1.0000"]
    assert "was not timed and is not in the store" in told.stdout
    assert "[3/3] coreml-fp32@1: interpreted, for its mask alone" in told.stderr
    assert [line.split()[0] for line in benched("--quiet")[0].stdout.splitlines()] == ["pytorch-eager@1"]


def test_a_mask_that_differs_is_warned_of_as_any_other_s(benched: Benched) -> None:
    told, _ = benched(mask=~RIGHT)
    assert told.exit_code == 0
    assert "coreml-fp32@1: its mask is not PyTorch's (IoU 0.000)" in told.stderr


def test_one_that_fails_has_no_row_of_dashes_alone(benched: Benched) -> None:
    told, _ = benched(error="no such operation")
    assert told.exit_code == 1
    (row,) = (cells for line in told.stdout.splitlines() if (cells := line.split())[:1] == ["coreml-fp32"])
    assert row[3] == "failed"
    assert "coreml-fp32@1 launch 1 failed: no such operation" in told.stderr
    assert "no launch succeeded of coreml-fp32@1" in told.stderr


def test_what_cannot_be_interpreted_here_is_named(benched: Benched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "find_spec", lambda name: None)
    told, ran = benched()
    assert set(ran) == {"pytorch-eager"}
    assert any(line.split()[:1] == ["coreml-fp32"] and "not timed" in line for line in told.stdout.splitlines())
    assert "coreml-fp32: coremltools not installed" in told.stdout


def test_without_pytorch_there_is_nothing_to_ask_it_for(package: Path) -> None:
    told = refusal(call("bench", package, "--offline", "--only", "coreml-fp32"), 5)
    assert "without pytorch-eager its mask has nothing to be held to" in told


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_real_program_answers_as_pytorch_does(tmp_path: Path, cat: Image) -> None:
    weights = write_standin("edge-sam-tiny", tmp_path / "tiny.safetensors", upsample="bilinear")
    built = tmp_path / "package"
    options = ("--target", "ios", "--precision", "fp32", "--input-size", 256, "--offline", "-o", built)
    assert call("build", "--weights", weights, *options).exit_code == 0
    (artefact,) = (a.id for a in read_manifest(built).artifacts if a.format == "coreml")
    only = ("--only", artefact, "--only", "pytorch-eager", "--threads", 1)
    short = ("--launches", 1, "--seconds", 0.1, "--weights", weights, "--offline", "--no-store", "--json")
    told = call("bench", built, *only, *short)
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    row, launch = data["cases"][-1], data["launches"][-1]
    assert row["case"]["runtime"] == "interpreter" and row["mask_iou"] > 0.95
    assert launch["samples"] == [] and launch["rounds"] is None
