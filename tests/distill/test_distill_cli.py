"""``edgesam-mobile distill`` and ``teach`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import PROGRAM, call, refusal

from distill.embeddings import EmbeddingCache
from distill.log import RunLog
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.standin import write_standin


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam-tiny", tmp_path_factory.mktemp("teacher") / "t.safetensors", 1, image_size=256)


def small(teacher: Path, *settings: str) -> list[str]:
    """The demonstration with a small teacher, as words of the command line."""
    settings = (
        f"teacher.weights={teacher}", 'data.sources=[{spec="generated:4"}]', "run.batch_size=2", "run.steps=2",
        "run.log_every=1", "run.picture_every=0", *settings,
    )  # fmt: skip
    return ["demo", *(word for setting in settings for word in ("--set", setting))]


@pytest.mark.slow
def test_a_shipped_recipe_trains_and_goes_on_and_says_so_in_json(teacher: Path, tmp_path: Path) -> None:
    first = call("distill", *small(teacher), "-o", tmp_path / "run", "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["schema"] == "edgesam.distill/1"
    assert told["step"] == 2
    assert told["interrupted"] is False
    assert load_model(told["weights"]).image_size == 256
    again = call("distill", *small(teacher), "-o", tmp_path / "run")
    assert "continuing after step 2 of 2" in again.stderr
    assert "trained in 2 steps" in again.stdout
    changed = refusal(call("distill", *small(teacher, "optim.lr=0.1"), "-o", tmp_path / "run"), 2)
    assert "optim.lr: 0.003 -> 0.1" in changed


@pytest.mark.slow
def test_the_trained_student_is_measured_as_eval_measures_it(teacher: Path, tmp_path: Path) -> None:
    words = (*small(teacher), "-o", tmp_path / "run", "--eval", "generated:2")
    told = json.loads(call("distill", *words, "--json").stdout)
    found = call("eval", "--weights", told["weights"], "--data", "generated:2", "--refine", 0, "--json")
    (entry,) = json.loads(found.stdout)["entries"]
    assert told["evaluation"]["objects"] == entry["objects"] > 0
    assert told["evaluation"]["results"] == entry["results"]
    said = call("distill", *words).stdout
    assert f"mIoU on generated:2: {100 * entry['results']['box']['miou']:.1f} from box" in said


def test_data_that_cannot_be_evaluated_is_refused_before_the_training(teacher: Path, tmp_path: Path) -> None:
    words = ("distill", *small(teacher), "-o", tmp_path / "run", "--eval")
    assert "no/such" in refusal(call(*words, f"coco:{tmp_path}/no/such"), 8)
    assert not (tmp_path / "run").exists()


def test_recipes_are_listed() -> None:
    told = json.loads(call("distill", "--list", "--json").stdout)
    about = {recipe["name"]: recipe["about"] for recipe in told["recipes"]}
    assert "generated" in about["demo"] or "shapes" in about["demo"]
    assert "edgesam-stage2" in call("distill", "--list", "--quiet").stdout.split()


def test_refusals_are_one_line() -> None:
    assert "no recipe given" in refusal(call("distill"), 2)
    assert "no recipe named dmo" in refusal(call("distill", "dmo"), 2)
    assert "did you mean optim.lr?" in refusal(call("distill", "demo", "--set", "optim.l=1"), 2)
    assert "no such dtype: int4" in refusal(call("teach", "demo", "--dtype", "int4", "-o", "x"), 2)
    assert "names neither cache nor prompts" in refusal(call("teach", "demo"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_a_taught_cache_serves_the_training(teacher: Path, tmp_path: Path, dtype: str) -> None:
    words = small(teacher, f"teacher.cache={tmp_path / 'cache'}")
    taught = call("teach", *words, "--dtype", dtype, "--json")
    assert taught.exit_code == 0, taught.output
    assert json.loads(taught.stdout)["embedded"] == 4
    cache = EmbeddingCache(tmp_path / "cache", teacher_sha256=sha256_of(teacher), image_size=256)
    assert cache.header.dtype == dtype
    assert len(cache) == 4
    assert "4 were there already" in call("teach", *words, "--dtype", dtype).stdout
    assert call("distill", *words, "-o", tmp_path / "run").exit_code == 0
    header = tmp_path / "cache" / "cache.json"
    header.write_text(header.read_text().replace('"float32"', '"bfloat16"'))
    assert 'cache.precision: "float32" -> "bfloat16"' in refusal(call("distill", *words, "-o", tmp_path / "run"), 2)


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(teacher: Path, tmp_path: Path) -> None:
    """With a loader process, which gets the interrupt as well."""
    run = tmp_path / "run"
    words = small(teacher, "run.steps=500", "data.workers=1")
    program = [*PROGRAM, "distill", *words, "-o", str(run)]
    unmask = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program[2] = unmask + program[2]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not RunLog(run / "log.jsonl").entries():
            time.sleep(0.02)
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "the same command goes on from there" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert len(list((run / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_the_module_is_the_same_command(teacher: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distill", *small(teacher, "optim.lr=-1"), "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 2
    assert done.stderr == "error: optim.lr must be above 0, not -1 — correct the recipe\n"
