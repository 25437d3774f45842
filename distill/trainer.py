"""The training loop: exact resume, checkpoints, log, pictures; what is trained is the stage's business.

A run folder holds ``recipe.toml``, ``log.jsonl``, ``checkpoints/``, ``loss.png`` and ``masks_<step>.png``. A run is a
function of its recipe, of the files that the recipe names, and of the number of processes: killed at any moment
and started again, it goes on from its last checkpoint and, on a CPU, gives the same numbers bit for bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from distill.checkpoints import Checkpoints, random_state, set_random_state
from distill.data.batch import Batch
from distill.data.report import CorruptReport
from distill.distributed import World
from distill.embeddings import hold
from distill.log import RunLog, Stopwatch, Window, time_left
from distill.plots import draw_curve, draw_masks
from distill.recipe import Recipe
from distill.schedule import learning_rate
from distill.stages.base import Stage
from distill.tables import differences
from distill.update import Update, Updater
from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError
from edgesam_mobile.files import atomic_file

_SHOWN = 3  # differences named in a refusal before the rest is counted


@dataclass(frozen=True)
class Feed:
    """Where batches come from.

    Attributes:
        batches: the batches of an epoch from the given one on, this process's share of each.
        per_epoch: batches in an epoch.
        shown: a small batch for the pictures of masks, always the same.
    """

    batches: Callable[[int, int], Iterable[Batch]]
    per_epoch: int
    shown: Callable[[], Batch]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: steps done, in all the run's sessions together.
        interrupted: whether it was told to stop before its end.
        checkpoint: the newest.
        weights: the student's state to use, by the model's own names.
        loss: the last logged one; None where nothing was logged.
        bad_steps: steps that were skipped.
        corrupt: one line on what could not be used, in all processes together.
    """

    step: int
    interrupted: bool
    checkpoint: Path
    weights: dict[str, torch.Tensor]
    loss: float | None
    bad_steps: int
    corrupt: str


class Trainer:
    """Trains a stage by a recipe into a run folder.

    Args:
        stage: on ``world.device``.
        output: the run folder: new, or one that the same recipe began.
        world: the processes; the folder is the main one's, the others need not see it.
        bound: what else the numbers depend on, by name, such as the teacher's sha256.
        files: gives more of it, from files that only the main process needs to look at.
        report: takes lines for people; called in the main process only.
        clock: takes the time of the stage's inner parts as well, if they are given it.

    Raises:
        UsageError: the recipe asks for what this machine or this number of processes cannot do, or for a warm-up
            that is longer than the run.
    """

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        feed: Feed,
        output: Path,
        world: World,
        *,
        bound: dict[str, Any] | None = None,
        files: Callable[[], dict[str, Any]] = dict,
        report: Callable[[str], None] = lambda _: None,
        clock: Stopwatch | None = None,
    ) -> None:
        run = recipe.run
        if feed.per_epoch < 1:
            raise UsageError(f"the pictures do not fill one batch of {run.batch_size}", hint="lower run.batch_size")
        self.recipe, self.stage, self.feed, self.output, self.world = recipe, stage, feed, output, world
        self.steps = run.steps or run.epochs * feed.per_epoch
        warmup = recipe.optim.warmup_epochs * feed.per_epoch
        if warmup > self.steps:
            raise UsageError(
                f"optim.warmup_epochs = {recipe.optim.warmup_epochs:g} is {warmup:g} steps, the run has {self.steps}",
                hint="lower optim.warmup_epochs, or raise run.steps or run.epochs",
            )
        self.updater = Updater(stage, recipe, world)
        self.checkpoints = Checkpoints(output / "checkpoints", keep=run.keep)
        self.log = RunLog(output / "log.jsonl")
        self.clock = clock or Stopwatch()
        self.report = report if world.main else lambda _: None
        self._bound = {"processes": world.size, "batches an epoch": feed.per_epoch} | (bound or {})
        self._files = files
        self._step = self._bad = self._bad_in_a_row = self._pictures = 0
        self._seen = CorruptReport()
        self._told: list[str] = []
        self._window = Window()
        self._shown: Batch | None = None

    def train(self) -> Outcome:
        """Run to the end, or until SIGINT or SIGTERM; then a checkpoint is written first.

        Raises:
            UsageError: the run folder belongs to another recipe, another number of processes, or other bound files.
            StorageError: the folder holds something else or is in use, or something cannot be written; the
                checkpoints before stay whole.
            WeightsError: there are checkpoints, and none can be read.
            EdgeSamError: too many steps in a row, or all, had a NaN or an infinite loss or gradient.
        """
        lock = hold(self.output / "run.lock") if self.world.main else None
        try:
            self._begin()
            with _stop_signals() as stop, closing(self._batches()) as batches:
                interrupted = self._loop(batches, stop)
            if self._bad >= self.steps:
                raise EdgeSamError("every step was skipped: nothing was trained", hint=str(self._survey()[0]))
            checkpoint = self._save()
            if not interrupted and self.world.main:
                self._draw()
            return self._outcome(interrupted, checkpoint)
        finally:
            if lock is not None:
                lock.release()

    def _loop(self, batches: Generator[Batch, None, None], stop: threading.Event) -> bool:
        """Do the steps that are left; True when stopped before the last."""
        run, began, first = self.recipe.run, time.monotonic(), self._step
        self.clock.take()
        while self._step < self.steps:
            with self.clock.measure("data"):
                batch = next(batches).to(self.world.device)
            counts = torch.tensor([len(batch), not len(batch), stop.is_set()], device=self.world.device)
            pictures, empty, stopping = self.world.total(counts).tolist()
            if stopping:
                return True
            rate = learning_rate(self.recipe.optim, self._step, steps=self.steps, per_epoch=self.feed.per_epoch)
            self._seen.add(batch)
            with self.clock.measure("student"):
                # All processes must take part in a step, or none.
                nothing = Update(0.0, 0.0, {}, "a process's share has no picture that can be read")
                update = nothing if empty else self.updater.step(batch, rate, pictures)
            self._step += 1
            self._pictures += pictures
            self._judge(update)
            if self._step % run.log_every == 0 or self._step == self.steps:
                left = (time.monotonic() - began) / (self._step - first) * (self.steps - self._step)
                self._write_log(rate, left)
            if run.picture_every and self._step % run.picture_every == 0 and self.world.main:
                self._draw()
            if self._step % run.checkpoint_every == 0 and self._step < self.steps and not self._bad_in_a_row:
                self._save()
        return False

    def _batches(self) -> Generator[Batch, None, None]:
        """Batches from the present step on, epoch after epoch."""
        epoch, start = divmod(self._step, self.feed.per_epoch)
        while True:
            yield from self.feed.batches(epoch, start)
            epoch, start = epoch + 1, 0

    def _judge(self, update: Update) -> None:
        """Count a skipped step, and stop after too many in a row."""
        if not update.problem:
            self._bad_in_a_row = 0
            self._window.add({**update.parts, "loss": update.loss, "gradient_norm": update.norm})
            return
        self._bad += 1
        self._bad_in_a_row += 1
        self.report(f"warning: step {self._step} skipped: {update.problem}")
        if self._bad_in_a_row >= self.recipe.run.max_bad_steps:
            self._survey()  # the pictures that it may be about
            paths = self.checkpoints.paths()
            last = f"the last good checkpoint is {paths[0]}" if paths else "there is no checkpoint yet"
            raise EdgeSamError(
                f"stopped at step {self._step}: {self._bad_in_a_row} steps in a row were skipped: {update.problem}",
                hint=f"{last}; try a lower optim.lr or a smaller optim.clip in a new folder",
            )

    def _survey(self) -> tuple[CorruptReport, dict[str, str]]:
        """What all processes could not use, and the names in it that are told for the first time; tells them."""
        every = CorruptReport.of_all(self.world.gather(self._seen))
        fresh = {name: reason for name, reason in every.reasons.items() if name not in self._told}
        self._told += fresh
        for name, reason in fresh.items():
            self.report(f"warning: skipped {name}: {reason}")
        return every, fresh

    def _write_log(self, rate: float, left: float) -> None:
        """One entry: means over the steps since the last, over all processes."""
        window = Window()
        for sums in self.world.gather(self._window.sums):
            window.merge(sums)
        seen, fresh = self._survey()
        seconds, means = self.clock.take(), window.means()
        speed = self._pictures / max(seconds["all"], 1e-9)
        self._window, self._pictures = Window(), 0
        if not self.world.main:
            return
        epoch = (self._step - 1) // self.feed.per_epoch
        entry = {
            "step": self._step,
            "epoch": epoch,
            "loss": means.pop("loss", None),
            **means,
            "lr": rate,
            "bad_steps": self._bad,
            "corrupt": seen.corrupt,
            "newly_corrupt": fresh,
            "empty_objects": seen.empty,
            "images_per_second": round(speed, 2),
            "data_wait": round(seconds.get("data", 0.0) / max(seconds["all"], 1e-9), 4),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }
        self.log.write(entry)
        loss = "none" if entry["loss"] is None else f"{entry['loss']:.5g}"
        what = f"step {self._step}/{self.steps}, epoch {epoch + 1}: loss {loss}, lr {rate:.3g}, {speed:.3g} images/s"
        self.report(what + (f", {time_left(left)} left" if self._step < self.steps else ""))

    def _draw(self) -> None:
        """Write the loss curve and the masks as they are now."""
        draw_curve(self.log.entries(), self.output / "loss.png")
        if self._shown is None:
            self._shown = self.feed.shown().to(self.world.device)
        if len(self._shown):
            rows = self.stage.comparison(self._shown)
            self.stage.train()
            draw_masks(rows, self.output / f"masks_{self._step:08d}.png")

    def _save(self) -> Path:
        """Write a checkpoint of everything that the next step depends on; gives its path in every process."""
        own = self.world.gather((random_state(), self._window.sums, asdict(self._seen)))
        path = None
        if self.world.main:
            content = {
                "recipe": self.recipe.to_table(),
                "fingerprint": self.recipe.fingerprint,
                "bound": self._bound,
                "step": self._step,
                "bad_steps": [self._bad, self._bad_in_a_row],
                "pictures": self._pictures,
                "told": self._told,
                "processes": [list(values) for values in own],
                "training": self.updater.state_dict(),
            }
            path = self.checkpoints.save(self._step, content)
        shared = self.world.share(path)
        assert shared is not None
        return shared

    def _begin(self) -> None:
        """Prepare the run folder and take up the newest checkpoint, where there is one."""
        content, error = None, None
        if self.world.main:
            try:
                content = self._prepare()
            except EdgeSamError as refusal:
                error = refusal
        # The other processes must not wait for one that has given up.
        content, error = self.world.share((content, error))
        if error is not None:
            raise error
        if content is None:
            return
        self._step, self._pictures, self._told = content["step"], content["pictures"], content["told"]
        self._bad, self._bad_in_a_row = content["bad_steps"]
        self.updater.load_state_dict(content["training"])
        random, self._window.sums, seen = content["processes"][self.world.rank]
        self._seen = CorruptReport(**seen)
        set_random_state(random)

    def _prepare(self) -> dict[str, Any] | None:
        """The checkpoint to continue from, after all that could speak against it."""
        self._bound |= self._files()
        kept = self.output / "recipe.toml"
        if not kept.exists():
            names = {path.name for path in self.output.iterdir() if not path.name.startswith(".")}
            if foreign := sorted(names - {"run.lock"}):
                hint = "choose an empty or a new folder"
                raise StorageError(f"{self.output} holds something else: {foreign[0]}", hint=hint)
            with atomic_file(kept) as temporary:
                temporary.write_text(self.recipe.to_toml(), encoding="utf-8")
        self._refuse_other({"recipe": Recipe.load(kept).to_table()}, {"recipe": self.recipe.to_table()})
        newest = self.checkpoints.newest(lambda text: self.report(f"warning: {text}"))
        if newest is None:
            self.log.forget_after(0)
            return None
        path, content = newest
        self._refuse_other(
            {"recipe": content["recipe"], **content["bound"]}, {"recipe": self.recipe.to_table(), **self._bound}
        )
        self.log.forget_after(content["step"])
        self.report(f"continuing after step {content['step']} of {self.steps}, from {path.name}")
        return content

    def _refuse_other(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        changed = [text.removeprefix("recipe.") for text in differences(before, now)]
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            begin = f'model.init = "{self.output / "model.safetensors"}" and model.decoder_init = "init"'
            if self.recipe.stage.name == "proposals":
                begin = f'stage.head_init = "{self.output / "proposals.safetensors"}"'
            raise UsageError(
                f"{self.output} was begun with other settings: {'; '.join(changed[:_SHOWN])}{more}",
                hint=f"continue with the same, or begin a new folder with {begin}",
            )

    def _outcome(self, interrupted: bool, checkpoint: Path) -> Outcome:
        losses = [entry["loss"] for entry in self.log.entries()] if self.world.main else []
        return Outcome(
            step=self._step,
            interrupted=interrupted,
            checkpoint=checkpoint,
            weights=self.updater.trained(),
            loss=losses[-1] if losses else None,
            bad_steps=self._bad,
            corrupt=str(self._survey()[0]),
        )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Within it, the first SIGINT or SIGTERM only sets the event given; a second one does what it always does."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def take(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, take)
    try:
        yield stop
    finally:
        restore()
