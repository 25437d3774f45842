"""A run that was stopped, killed or damaged continues as if nothing had happened, or says why it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import NoisyStage, curve, feed, recipe, trainer

from distill.checkpoints import Checkpoints
from distill.data.batch import Batch
from distill.distributed import World
from distill.log import RunLog
from edgesam_mobile.errors import StorageError, UsageError, WeightsError
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.weights.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


class PowerCut(Exception):
    """Ends a run at once, with no chance to write anything."""


def cut_at(step: int):  # type: ignore[no-untyped-def]
    def change(number: int, batch: Batch) -> Batch:
        if number == step:
            raise PowerCut
        return batch

    return change


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("run.ema=0.9", "run.log_every=3"), ("run.checkpoint_every=3",)])
def test_cut_off_before_any_step_the_curve_is_that_of_an_unbroken_run(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    plan = recipe("run.steps=7", *settings)
    whole = trainer(tmp_path / "whole", plan, stage=NoisyStage)
    outcome = whole.train()
    for step in range(7):
        folder = tmp_path / f"cut at {step}"
        with pytest.raises(PowerCut):
            trainer(folder, plan, feed(change=cut_at(step)), stage=NoisyStage).train()
        again = trainer(folder, plan, stage=NoisyStage)
        resumed = again.train()
        assert curve(again) == curve(whole), step
        assert resumed.weights.keys() == outcome.weights.keys()
        assert all(torch.equal(resumed.weights[key], value) for key, value in outcome.weights.items()), step


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = trainer(tmp_path, recipe())
    first.train()
    before = curve(first)
    again = trainer(tmp_path, recipe(), feed(change=cut_at(8)))
    assert again.train().step == 8
    assert curve(again) == before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("optim.lr=0.02",), r"optim\.lr: 0\.01 -> 0\.02"),
        (("run.steps=9", "run.seed=3"), r"run\.seed: 0 -> 3; run\.steps: 8 -> 9"),
        (('data.sources=[{spec="generated:9"}]',), r"data\.sources: .*generated:8.* -> .*generated:9"),
    ],
)
def test_a_changed_recipe_is_refused_with_what_changed(tmp_path: Path, settings: tuple[str, ...], told: str) -> None:
    trainer(tmp_path, recipe(steps=8)).train()
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(UsageError, match=told) as refusal:
        trainer(tmp_path, recipe(*settings)).train()
    assert f'model.init = "{tmp_path / "model.safetensors"}"' in str(refusal.value.hint)
    assert 'model.decoder_init = "init"' in str(refusal.value.hint)
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(), bound={"teacher": "a" * 64}).train()
    with pytest.raises(UsageError, match="teacher: "):
        trainer(tmp_path, recipe(), bound={"teacher": "b" * 64}).train()


def test_other_files_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(), files=lambda: {"files": {"images:photos": "a"}}).train()
    with pytest.raises(UsageError, match=r'files\.images:photos: "a" -> "b"'):
        trainer(tmp_path, recipe(), files=lambda: {"files": {"images:photos": "b"}}).train()


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    """As if two processes had begun it: their checkpoints say so."""
    built = trainer(tmp_path, recipe())
    built._bound["processes"] = 2
    built.train()
    with pytest.raises(UsageError, match="processes: 2 -> 1"):
        trainer(tmp_path, recipe(), world=World()).train()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "foreign"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(tmp_path: Path, damage: str) -> None:
    whole = trainer(tmp_path / "whole", recipe(), stage=NoisyStage)
    whole.train()
    folder = tmp_path / "damaged"
    with pytest.raises(PowerCut):
        trainer(folder, recipe(), feed(change=cut_at(7)), stage=NoisyStage).train()
    newest = folder / "checkpoints" / "step-00000006.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[:-100], "altered": content, "empty": b"", "foreign": b"PK"}[damage])
    told: list[str] = []
    again = trainer(folder, recipe(), stage=NoisyStage, report=told.append)
    again.train()
    assert "step-00000006.ckpt" in told[0] and "going back to the one before" in told[0]
    assert told[1] == "continuing after step 4 of 8, from step-00000004.ckpt"
    assert curve(again) == curve(whole)


def test_checkpoints_that_are_all_damaged_are_no_reason_to_begin_anew(tmp_path: Path) -> None:
    trainer(tmp_path, recipe()).train()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no checkpoint in .* can be read"):
        trainer(tmp_path, recipe()).train()


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".step-00000002.ckpt.x.ckpt").write_bytes(b"half")
    assert Checkpoints(tmp_path, keep=1).newest(pytest.fail) is None
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_of_the_log_is_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        log.write({"step": step})
    with log.path.open("a") as stream:
        stream.write('{"step": 4, "lo')
    log.forget_after(2)
    log.write({"step": 3})
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    def change(number: int, batch: Batch) -> Batch:
        if number == 1:
            with pytest.raises(StorageError, match="another process is writing"):
                trainer(tmp_path, recipe()).train()
        return batch

    assert trainer(tmp_path, recipe(), feed(change=change)).train().step == 8


def start(output: Path, teacher: Path, workers: int) -> subprocess.Popen[str]:
    """A real run of 8 steps of 2 pictures, with a tiny student whose batch norms train."""
    settings = (
        f"teacher.weights={teacher}", f"data.workers={workers}", 'data.sources=[{spec="generated:6"}]', "run.steps=8",
        "run.batch_size=2", "run.log_every=1", "run.checkpoint_every=2", "run.picture_every=0", "run.ema=0.9",
    )  # fmt: skip
    command = [sys.executable, "-m", "distill", "demo", "-o", str(output), "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stdout.endswith("model.safetensors\n")


def logged(output: Path) -> list[tuple[int, float, float, float]]:
    entries = RunLog(output / "log.jsonl").entries()
    return [(e["step"], e["loss"], e["gradient_norm"], e["cosine"]) for e in entries]


@pytest.mark.slow
def test_killed_and_started_again_the_loss_curve_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """Killed three times on the way: before the first checkpoint, and at two later steps.

    The unbroken run reads its pictures itself, the broken one has a loader process."""
    teacher = write_standin("edge-sam-tiny", tmp_path / "teacher.safetensors", 1, image_size=256)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole, teacher, workers=0))
    for step in (1, 4, 7):
        with start(broken, teacher, workers=1) as process:
            while process.poll() is None and not any(entry[0] >= step for entry in logged(broken)):
                time.sleep(0.002)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
    finish(start(broken, teacher, workers=1))
    assert [entry[0] for entry in logged(broken)] == list(range(1, 9))
    assert logged(broken) == logged(whole)
    one, other = (read_checkpoint(run / "model.safetensors").state for run in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], value) for key, value in other.items())
    assert not list(tmp_path.rglob(".step-*"))
