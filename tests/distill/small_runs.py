"""Runs of milliseconds: a one-convolution student, pictures of noise, and a recipe for them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_stage import small_model
from small_teacher import pictures, small_teacher
from torch import Tensor, nn

from distill.data.batch import Batch
from distill.distributed import World
from distill.recipe import Recipe
from distill.stages.encoder import EncoderStage
from distill.tables import from_table, override
from distill.teacher import Teacher
from distill.trainer import Feed, Trainer
from edgesam_mobile.model.sam import Sam

PER_EPOCH = 3


class NoisyStage(EncoderStage):
    """An encoder stage whose loss depends on every random number generator there is."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        told = super().forward(batch)
        noise = float(torch.rand(())) + random.random() + float(np.random.rand())
        return told | {"loss": told["loss"] * (1 + noise)}


def recipe(*settings: str, **run: Any) -> Recipe:
    """A recipe of 8 steps in epochs of 3; settings as on the command line, or as options of ``[run]``."""
    table: dict[str, Any] = {
        "data": {"sources": [{"spec": "generated:8"}], "workers": 0},
        "optim": {"lr": 1e-2, "clip": 1.0},
        "run": {"steps": 8, "batch_size": 2, "log_every": 1, "checkpoint_every": 2, "picture_every": 0, **run},
    }
    for setting in settings:
        override(table, setting)
    return from_table(Recipe, table)


def feed(
    batch_size: int = 2, change: Callable[[int, Batch], Batch] = lambda _, batch: batch, rows: slice = slice(None)
) -> Feed:
    """Three batches an epoch; ``change`` gets the number of each batch in the run, ``rows`` are this process's."""

    def batches(epoch: int, start: int) -> Iterable[Batch]:
        every = list(pictures(PER_EPOCH * batch_size, batch_size=batch_size))
        for number in range(start, PER_EPOCH):
            batch = every[(number + epoch) % PER_EPOCH]
            mine = Batch(batch.names[rows], batch.frames[rows], batch.sizes[rows])
            yield change(epoch * PER_EPOCH + number, mine)

    return Feed(batches, PER_EPOCH, lambda: next(iter(batches(0, 0))))


def trainer(output: Path, plan: Recipe, source: Feed | None = None, *, stage: type[EncoderStage] = EncoderStage,
            world: World | None = None, **options: Any) -> Trainer:  # fmt: skip
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    student, teacher = copy.deepcopy(_models())
    return Trainer(
        plan, stage(student, teacher), source or feed(plan.run.batch_size), output, world or World(), **options
    )


@cache
def _models() -> tuple[Sam, Teacher]:
    """The student has no decoder, which this stage does not train: checkpoints would be a hundred times as large."""
    student = small_model(1)
    student.prompt_encoder, student.mask_decoder = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return student, small_teacher()


def curve(built: Trainer) -> list[tuple[int, float, float, float]]:
    """What was logged, without times."""
    return [(e["step"], e["loss"], e["gradient_norm"], e["lr"]) for e in built.log.entries()]
