"""The README's commands, executed as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, mobile_sam_package: Path) -> Path:
    """A folder with the example pictures, as a newcomer has it; exports come from the session's cache."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=900
    )


def test_every_command_is_one_that_this_file_runs() -> None:
    assert COMMANDS
    assert {shlex.split(line)[0] for line in COMMANDS} == {"make", "edgesam-mobile"}


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_the_target(line: str) -> None:
    asked = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_work_in_the_order_in_which_they_stand(newcomer: Path) -> None:
    for line in (line for line in COMMANDS if line.startswith("edgesam-mobile ")):
        done = run(newcomer, *shlex.split(line))
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    losses = [json.loads(entry)["loss"] for entry in (newcomer / "runs/demo/log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0], "the demonstration learns"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_main_job_prints_one_table_with_every_artefact(newcomer: Path) -> None:
    recipe = subprocess.run(["make", "-n", "quickstart"], cwd=ROOT, capture_output=True, text=True, check=True)
    command = shlex.split(recipe.stdout.strip().splitlines()[-1])
    assert Path(command[0]).name == "edgesam-mobile"
    # The same job, its timings cut short: `bench` measures in full in the test above.
    done = run(newcomer, "edgesam-mobile", *command[1:], "--launches", "1", "--seconds", "0.2")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    ids = [row[0] for row in rows]
    for artefact in ("tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32", "pytorch-eager"):
        assert ids.count(artefact) == 1
    for artefact in ("coreml-fp16", "coreml-fp32", "executorch-coreml-fp16"):
        # Interpreted: masks are measured, times are not.
        assert rows[ids.index(artefact)][-4:] == ["–"] * 4 and float(rows[ids.index(artefact)][3]) > 0.99


@pytest.mark.slow
def test_the_python_example_works(newcomer: Path, cat: object) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {"picture": cat}
    exec(compile(code, "README.md", "exec"), names)  # the README's own lines
    assert getattr(names["masks"], "shape", (0,))[0] == 3


def test_the_exit_codes_are_those_of_the_errors() -> None:
    from edgesam_mobile import errors

    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    leaves = {
        c.exit_code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.EdgeSamError)
    }
    assert documented == leaves | {0, 130, 143}
