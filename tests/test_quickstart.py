"""``quickstart`` tells an interrupt, failed timings and wrong masks apart, after everything that was measured."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import call
from typer.testing import Result

from edgesam_mobile.deploy import build as deploying
from edgesam_mobile.evaluate import verify as verification
from edgesam_mobile.evaluate.verify import Check, Verification
from edgesam_mobile.lab import host
from edgesam_mobile.lab.launch import Launch, Sample
from edgesam_mobile.package.manifest import read_manifest


def quickstart(
    package: Path, weights: Path, patch: pytest.MonkeyPatch, run_launch: Any, *, right: bool = True
) -> Result:
    """The command, its package built and checked beforehand, timing PyTorch alone by ``run_launch``."""
    manifest = read_manifest(package)
    check = Check("coreml-fp32", executed=True, passed=right, mask_ious=[1.0])
    only_pytorch = functools.partial(host.prepare, weights=str(weights), only=("pytorch-eager",), threads=(1,))
    patch.setattr(deploying, "build", lambda *_, **__: SimpleNamespace(manifest=manifest, seconds=1.0))
    patch.setattr(verification, "verify", lambda *_, **__: Verification(manifest, ["cat.jpg"], [check]))
    patch.setattr(host, "prepare", only_pytorch)
    patch.setattr(host, "run_launch", run_launch)
    return call("quickstart", "-o", package, "--offline", "--launches", 2, "--json")


def interrupted(launch: Launch, *_: Any, **__: Any) -> None:
    """The first launch gives one frame, then comes Ctrl-C."""
    launch.status = "interrupted"
    launch.samples += [Sample(stage, 5.0, 5.0, 1) for stage in ("encode", "decode", "frame")]
    raise KeyboardInterrupt


def failed(launch: Launch, *_: Any, **__: Any) -> None:
    launch.error = "out of luck"


def done(launch: Launch, *_: Any, **__: Any) -> None:
    launch.status = "ok"
    launch.samples += [Sample(stage, 5.0, 5.0, 1) for stage in ("encode", "decode", "frame")]


def test_an_interrupt_shows_what_was_measured_and_ends_with_130(
    bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = quickstart(bare_package, standin_file, monkeypatch, interrupted)
    assert told.exit_code == 130, told.output
    assert "interrupted: these are partial results" in told.stderr
    data = json.loads(told.stdout)
    assert data["partial"] is True
    assert [row["frame_ms"] for row in data["rows"]] == [None, 5.0]


def test_timings_that_all_fail_end_with_1_and_the_reason(
    bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = quickstart(bare_package, standin_file, monkeypatch, failed)
    assert told.exit_code == 1, told.output
    assert "pytorch-eager@1 launch 2 failed: out of luck" in told.stderr
    assert "no launch succeeded of pytorch-eager@1" in told.stderr
    assert json.loads(told.stdout)["partial"] is False


@pytest.mark.parametrize(("right", "exit_code"), [(True, 0), (False, 7)])
def test_masks_that_are_not_pytorchs_end_with_7(
    right: bool, exit_code: int, bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = quickstart(bare_package, standin_file, monkeypatch, done, right=right)
    assert told.exit_code == exit_code, told.output
    data = json.loads(told.stdout)
    assert (data["passed"], data["partial"]) == (right, False)
    assert ("not equal to PyTorch: coreml-fp32" in told.stderr) is not right
