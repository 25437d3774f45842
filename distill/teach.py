"""Filling a cache of the teacher's embeddings, and a file of prompts, for a recipe's pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from distill.data.batch import Batch
from distill.data.dataset import PictureDataset, Place, Request
from distill.data.teacher_prompts import PromptSettings
from distill.embeddings import Dtype
from distill.log import time_left
from distill.recipe import AugmentRecipe, Recipe
from distill.teacher import Written, open_teacher, write_cache
from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.evaluate.data.open import open_source


def teach(
    recipe: Recipe,
    folder: Path | None,
    *,
    dtype: Dtype = "int8",
    prompts: Path | None = None,
    settings: PromptSettings | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Written:
    """Embed every picture of a recipe's sources once, as published; prompts are found along the way if asked for.

    Interrupted, it goes on from where it was.

    Args:
        folder: of the cache; None writes prompts only.
        settings: which of the teacher's masks become prompts.
        report: takes a line after every twentieth of the pictures.

    Raises:
        As :func:`~distill.teacher.write_cache` and :func:`~edgesam_mobile.evaluate.data.open.open_source`.
    """
    sources = [open_source(source.spec) for source in recipe.data.sources]
    started = time.monotonic()
    total, told = sum(len(source) for source in sources), 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = open_teacher(
        recipe.teacher.weights, image_size=recipe.model.image_size, device=device, precision=recipe.run.precision
    )
    dataset = PictureDataset(
        sources,
        replace(recipe.data, augment=AugmentRecipe()),
        image_size=recipe.model.image_size,
        seed=recipe.run.seed,
        rounds=1,
        needs_prompts=False,
    )

    def progress(done: int) -> None:
        nonlocal told
        if done * 20 // total > told:
            told = done * 20 // total
            left = (time.monotonic() - started) / done * (total - done)
            report(f"{done} of {total} pictures, {time_left(left)} left")

    sizes = [len(source) for source in sources]
    batches = _in_order(dataset, sizes, recipe.run.batch_size)
    return write_cache(
        teacher, batches, folder, dtype=dtype, prompts=prompts, settings=settings, on_progress=progress
    )


def _in_order(dataset: PictureDataset, sizes: list[int], batch_size: int) -> Iterator[Batch]:
    """Every picture of every source once, in the sources' own order."""
    for source, size in enumerate(sizes):
        for start in range(0, size, batch_size):
            places = tuple(Place(index, source, index) for index in range(start, min(start + batch_size, size)))
            batch = dataset[Request(0, "point", places)]
            if isinstance(batch, EdgeSamError):
                raise batch
            yield batch
