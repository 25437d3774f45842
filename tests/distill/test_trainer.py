"""The loop: equal gradients however a batch is cut, bad steps, averages, the log, and what ends a run."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small_runs import PER_EPOCH, curve, feed, recipe, trainer
from small_stage import make_batch
from torch import Tensor, nn

from distill.data.batch import Batch
from distill.log import Stopwatch
from distill.schedule import learning_rate
from distill.stages.encoder import EncoderStage
from distill.update import Average, split
from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError


class NanStage(EncoderStage):
    """Not finite where a picture is named so."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        told = super().forward(batch)
        return told | {"loss": told["loss"] * float("nan")} if "nan" in batch.names else told


class NormStage(NanStage):
    """With a batch norm, whose averages a NaN would stay in."""

    def __init__(self, model, teacher) -> None:  # type: ignore[no-untyped-def]
        model.image_encoder = nn.Sequential(model.image_encoder, nn.BatchNorm2d(256))
        super().__init__(model, teacher)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if "nan" in batch.names:
            self.model.image_encoder[1](torch.full((1, 256, 4, 4), float("nan")))
        return super().forward(batch)


def nan_at(*steps: int):  # type: ignore[no-untyped-def]
    def change(number: int, batch: Batch) -> Batch:
        return Batch(["nan"] * len(batch), batch.frames, batch.sizes) if number in steps else batch

    return change


@pytest.mark.parametrize("accumulate", [2, 5])
def test_portions_add_up_to_the_whole_batch(tmp_path: Path, accumulate: int) -> None:
    """Five pictures in two portions are two and three. (The student has no batch norm: its statistics would be
    those of a portion.)"""
    outcomes = []
    for name, portions in (("whole", 1), ("cut", accumulate)):
        plan = recipe(batch_size=10, accumulate=portions, steps=4)
        built = trainer(tmp_path / name, plan, feed(10, rows=slice(0, 5)))
        outcomes.append((built.train(), curve(built)))
    (whole, whole_curve), (cut, cut_curve) = outcomes
    torch.testing.assert_close(cut.weights, whole.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(cut_curve), torch.tensor(whole_curve), rtol=1e-5, atol=1e-6)


def test_splitting_keeps_every_prompt_with_its_picture() -> None:
    batch = make_batch("box", (3, 0, 4))
    assert batch.prompts is not None
    parts = list(split(batch, 2))
    assert [len(part) for part in parts] == [1, 2]
    assert [name for part in parts for name in part.names] == batch.names
    owners = [part.names[i] for part in parts if part.prompts for i in part.prompts.image.tolist()]
    assert owners == [batch.names[i] for i in batch.prompts.image.tolist()]
    assert torch.equal(torch.cat([part.prompts.boxes for part in parts if part.prompts]), batch.prompts.boxes)
    assert len(list(split(batch, 9))) == 3


def test_a_skipped_step_leaves_no_trace_but_its_count(tmp_path: Path) -> None:
    told: list[str] = []
    plan = recipe(steps=3)
    two = trainer(tmp_path / "two", recipe(steps=2), stage=NormStage)
    two.train()
    built = trainer(tmp_path / "nan", plan, feed(change=nan_at(2)), stage=NormStage, report=told.append)
    # The schedule of both is that of three steps.
    two_of_three = trainer(tmp_path / "stopped", plan, feed(change=stop_before(2)), stage=NormStage)
    stopped, outcome = two_of_three.train(), built.train()
    assert stopped.interrupted
    assert outcome.bad_steps == 1
    assert [line for line in told if "step 3 skipped: the loss is NaN or infinite" in line]
    assert outcome.weights.keys() == stopped.weights.keys()
    for key, value in outcome.weights.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, stopped.weights[key]), key


def stop_before(step: int):  # type: ignore[no-untyped-def]
    def change(number: int, batch: Batch) -> Batch:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    return change


def test_bad_steps_in_a_row_end_the_run_and_name_the_last_good_checkpoint(tmp_path: Path) -> None:
    plan = recipe(max_bad_steps=3)
    with pytest.raises(EdgeSamError, match="stopped at step 6: 3 steps in a row were skipped") as refusal:
        trainer(tmp_path, plan, feed(change=nan_at(3, 4, 5, 6)), stage=NanStage).train()
    assert "step-00000002.ckpt" in str(refusal.value.hint)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.ckpt"]


def test_bad_steps_apart_from_each_other_do_not_end_it(tmp_path: Path) -> None:
    plan = recipe(max_bad_steps=2)
    assert trainer(tmp_path, plan, feed(change=nan_at(0, 2, 4, 6)), stage=NanStage).train().bad_steps == 4


def test_a_run_of_skipped_steps_only_has_trained_nothing(tmp_path: Path) -> None:
    with pytest.raises(EdgeSamError, match="every step was skipped"):
        trainer(tmp_path, recipe(steps=2), feed(change=nan_at(0, 1)), stage=NanStage).train()


def test_a_batch_without_a_picture_is_a_skipped_step(tmp_path: Path) -> None:
    def change(number: int, batch: Batch) -> Batch:
        return (
            Batch([], batch.frames[:0], batch.sizes[:0], corrupt=[("x.jpg", "cut short")]) if number == 1 else batch
        )

    told: list[str] = []
    outcome = trainer(tmp_path, recipe(), feed(change=change), report=told.append).train()
    assert outcome.bad_steps == 1
    assert "x.jpg (cut short)" in outcome.corrupt
    assert "warning: skipped x.jpg: cut short" in told


def test_what_could_not_be_used_is_logged_by_name_once(tmp_path: Path) -> None:
    """Also where the run is cut off and goes on."""

    def change(number: int, batch: Batch) -> Batch:
        bad = [("x.jpg", "cut short")] if number in (1, 3) else [("y.jpg", "gone")] if number == 4 else []
        return Batch(batch.names, batch.frames, batch.sizes, corrupt=bad, empty=number)

    told: list[str] = []
    stopped = trainer(
        tmp_path, recipe(), feed(change=lambda n, b: stop_before(3)(n, change(n, b))), report=told.append
    )
    assert stopped.train().interrupted
    again = trainer(tmp_path, recipe(steps=8), feed(change=change), report=told.append)
    outcome = again.train()
    assert [line for line in told if line.startswith("warning: ")] == [
        "warning: skipped x.jpg: cut short",
        "warning: skipped y.jpg: gone",
    ]
    entries = again.log.entries()
    assert [(e["step"], e["newly_corrupt"]) for e in entries if e["newly_corrupt"]] == [
        (2, {"x.jpg": "cut short"}),
        (5, {"y.jpg": "gone"}),
    ]
    assert (entries[-1]["corrupt"], entries[-1]["empty_objects"]) == (3, sum(range(8)))
    assert outcome.corrupt.startswith("3 of 19 pictures could not be used: x.jpg (cut short), y.jpg (gone)")


def test_names_are_told_before_a_run_ends_for_them(tmp_path: Path) -> None:
    def nothing(number: int, batch: Batch) -> Batch:
        return Batch([], batch.frames[:0], batch.sizes[:0], corrupt=[(f"{number}.jpg", "cut short")])

    told: list[str] = []
    with pytest.raises(EdgeSamError, match="3 steps in a row"):
        plan = recipe(max_bad_steps=3, log_every=100)
        trainer(tmp_path, plan, feed(change=nothing), report=told.append).train()
    assert [f"warning: skipped {number}.jpg: cut short" in told for number in range(3)] == [True] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path: Path, number: int) -> None:
    def change(at: int, batch: Batch) -> Batch:
        if at == 3:
            os.kill(os.getpid(), number)
        return batch

    before = signal.getsignal(number)
    outcome = trainer(tmp_path, recipe(), feed(change=change)).train()
    assert outcome.interrupted
    assert outcome.step == 3
    assert outcome.checkpoint.name == "step-00000003.ckpt"
    assert signal.getsignal(number) is before


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(keep=2)).train()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000006.ckpt",
        "step-00000008.ckpt",
    ]


def test_the_log_says_what_happened_and_the_loss_falls(tmp_path: Path) -> None:
    told: list[str] = []
    built = trainer(tmp_path, recipe(log_every=2), report=told.append)
    built.train()
    entries = built.log.entries()
    assert [entry["step"] for entry in entries] == [2, 4, 6, 8]
    assert [entry["epoch"] for entry in entries] == [0, 1, 1, 2]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert {"cosine", "gradient_norm", "lr", "images_per_second", "data_wait", "bad_steps", "corrupt"} <= entries[
        0
    ].keys()
    assert 0 <= entries[0]["data_wait"] <= 1
    assert sum(line.startswith("step ") for line in told) == 4
    assert " left" in told[0] and " left" not in told[-1]


def test_pictures_appear_as_it_goes(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(picture_every=5)).train()
    assert {"loss.png", "masks_00000005.png", "masks_00000008.png"} <= {path.name for path in tmp_path.iterdir()}


def test_one_dimensional_weights_are_not_decayed(tmp_path: Path) -> None:
    groups = trainer(tmp_path, recipe("optim.weight_decay=0.3"), stage=NormStage).updater.optimiser.param_groups
    assert {p.ndim for p in groups[0]["params"]} == {4}
    assert groups[0]["weight_decay"] == 0.3
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert groups[1]["weight_decay"] == 0


def test_the_average_follows_the_weights_and_is_what_is_kept(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "plain", recipe(picture_every=0)).train()
    averaged = trainer(tmp_path / "average", recipe(ema=0.9))
    kept = averaged.train().weights
    key = "image_encoder.mix.weight"
    assert torch.equal(averaged.stage.state_dict()[f"model.{key}"], plain.weights[key])
    assert not torch.equal(kept[key], plain.weights[key])


def test_the_average_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average, expected = Average(layer, 0.5), float(layer.weight.detach())
    for number in range(12):
        nn.init.constant_(layer.weight, number)
        average.update()
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * number
    assert float(average.state["weight"]) == pytest.approx(expected)


def test_bfloat16_changes_the_computation_not_the_weights(tmp_path: Path) -> None:
    weights = trainer(tmp_path, recipe('run.precision="bfloat16"', steps=2)).train().weights
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


def test_the_published_rate_falls_to_half_when_the_warm_up_ends() -> None:
    """Figures of the published scheduler: epochs 0, 5, 6, 8 and the end of ten."""
    optim = recipe(
        "optim.lr=1.25e-2", "optim.min_lr=6.25e-7", "optim.warmup_lr=6.25e-8", "optim.warmup_epochs=5"
    ).optim  # fmt: skip
    rates = [learning_rate(optim, step, steps=1000, per_epoch=100) for step in range(1001)]
    assert rates[0] == pytest.approx(6.25e-8)
    assert rates[499] == pytest.approx(0.0125, rel=0.01)
    assert rates[500] == pytest.approx(0.00625, rel=0.001)
    assert rates[600] == pytest.approx(4.3e-3, rel=0.01)
    assert rates[800] == pytest.approx(1.2e-3, rel=0.01)
    assert rates[1000] == pytest.approx(6.25e-7)
    smooth = [
        learning_rate(replace(optim, drop_after_warmup=False), s, steps=1000, per_epoch=100) for s in range(1001)
    ]
    assert smooth[500] == pytest.approx(0.0125)
    assert max(abs(a - b) for a, b in pairwise(smooth)) < 1e-4


def test_a_full_disk_during_a_checkpoint_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: from the second checkpoint on, syncing a file to the disk fails as a full disk does."""
    from edgesam_mobile import files

    real = files._sync

    def sync(path: Path) -> None:
        if "step-00000004" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(files, "_sync", sync)
    with pytest.raises(StorageError, match=r"no space left while writing .*step-00000004\.ckpt"):
        trainer(tmp_path, recipe()).train()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.ckpt"]
    monkeypatch.setattr(files, "_sync", real)
    assert trainer(tmp_path, recipe()).train().step == 8


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds something else: thesis\.txt"):
        trainer(tmp_path, recipe()).train()
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "run.lock"}


def test_pictures_that_fill_no_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not fill one batch of 2"):
        trainer(tmp_path, recipe(), replace(feed(), per_epoch=0))


def test_a_warm_up_longer_than_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warmup_epochs = 3 is 9 steps, the run has 8") as refusal:
        trainer(tmp_path, recipe("optim.warmup_epochs=3"))
    assert "optim.warmup_epochs" in str(refusal.value.hint)
    trainer(tmp_path, recipe("optim.warmup_epochs=3", "run.steps=9"))


def test_a_stopwatch_counts_inner_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Stopwatch()
    with clock.measure("student"):
        now[0] += 2
        with clock.measure("teacher"):
            now[0] += 3
        now[0] += 1
    now[0] += 4
    assert clock.take() == {"student": 3, "teacher": 3, "other": 4, "all": 10}
    assert clock.take() == {"other": 0, "all": 0}


def test_epochs_give_the_number_of_steps(tmp_path: Path) -> None:
    assert trainer(tmp_path, recipe(steps=0, epochs=4)).steps == 4 * PER_EPOCH
