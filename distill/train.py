"""From a recipe to its pieces, and from them to a finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.data.batch import Batch
from distill.data.loader import Loader
from distill.distributed import World, processes
from distill.log import Stopwatch
from distill.recipe import AugmentRecipe, Recipe
from distill.rounding import round_as_integers
from distill.stages.base import Stage
from distill.stages.encoder import EncoderStage
from distill.stages.prompts import PromptOptions, PromptStage
from distill.stages.proposals import ProposalStage
from distill.student import build_student, write_student
from distill.teacher import Teacher, open_teacher
from distill.trainer import Feed, Outcome, Trainer
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import read_weights
from edgesam_mobile.model.proposals import ProposalHead, Stages, load_proposals
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Result:
    """How a run ended, and the checkpoint of the student; None where it was interrupted.

    Attributes:
        main: whether this process is the one that speaks.
    """

    outcome: Outcome
    weights: Path | None
    main: bool


def train(recipe: Recipe, output: Path, *, report: Callable[[str], None] = lambda _: None) -> Result:
    """Run a recipe, or go on with it, in as many processes as torchrun started.

    Raises:
        EdgeSamError: as :class:`~distill.trainer.Trainer`, and what loading weights and data may raise.
    """
    with processes() as world:
        return _run(recipe, output, world, report)


def _run(recipe: Recipe, output: Path, world: World, report: Callable[[str], None]) -> Result:
    torch.manual_seed(recipe.run.seed)
    torch.backends.cudnn.benchmark = world.device.type == "cuda"
    clock = Stopwatch()
    teacher = _teacher(recipe, world, clock)
    model, init = build_student(
        recipe.model,
        teacher.model if teacher else None,
        recipe.teacher.weights,
        report=report if world.main else lambda _: None,
    )
    head = read_weights(recipe.stage.head_init)[1] if recipe.stage.head_init else None
    if recipe.model.int8:
        round_as_integers(model.image_encoder, recipe.model.float_layers)
    stage = _stage(recipe, model, teacher, head).to(world.device)
    origin = teacher.model.provenance if teacher else None
    with _loader(recipe, world, stage, teacher) as loader:
        feed = Feed(loader.epoch, loader.batches_per_epoch, partial(_shown, recipe, stage, teacher))
        bound = {
            "teacher": origin and origin.weights_sha256,
            "model.init": init and init.sha256,
            "stage.head_init": head and head.sha256,
        }
        files = partial(bound_files, recipe, loader, teacher)
        trainer = Trainer(recipe, stage, feed, output, world, bound=bound, files=files, report=report, clock=clock)
        outcome = trainer.train()
    weights = None
    if not outcome.interrupted:
        name = "proposals" if recipe.stage.name == "proposals" else "model"
        weights = output / f"{name}.safetensors"
        if world.main:
            begun = [checkpoint for checkpoint in (init, head) if checkpoint is not None]
            write_student(weights, recipe, outcome.weights, teacher=origin, begun=begun, steps=outcome.step)
    return Result(outcome, weights, world.main)


def bound_files(recipe: Recipe, loader: Loader, teacher: Teacher | None) -> dict[str, Any]:
    """What a run depends on beside its recipe and weights: the data's files, the prompts, the cache's kind.

    Raises:
        PictureError: a source's files cannot be looked at.
    """
    cache = teacher.cache if teacher else None
    prompts = recipe.data.prompts.file if recipe.stage.name == "prompts" else ""
    return {
        "files": loader.digests(),
        "prompts": sha256_of(Path(prompts)) if prompts else None,
        "cache": asdict(cache.header) if cache else None,
    }


class _TimedTeacher(Teacher):
    """Tells a stopwatch how long its embeddings take, as far as the CPU is what computes them."""

    def __init__(self, teacher: Teacher, clock: Stopwatch) -> None:
        super().__init__(teacher.model, teacher.cache, teacher.precision)
        self.clock = clock

    def embed(self, batch: Batch) -> Tensor:
        with self.clock.measure("teacher"):
            return super().embed(batch)


def _teacher(recipe: Recipe, world: World, clock: Stopwatch) -> Teacher | None:
    """None where nothing is learnt or taken from a teacher."""
    if recipe.stage.name == "proposals" and recipe.model.decoder_init == "init":
        return None
    teacher = open_teacher(
        recipe.teacher.weights,
        image_size=recipe.model.image_size,
        cache=recipe.teacher.cache,
        device=world.device,
        precision=recipe.run.precision,
        augmented=recipe.data.augment.active,
    )
    return _TimedTeacher(teacher, clock) if world.device.type == "cpu" else teacher


def _stage(recipe: Recipe, model: Sam, teacher: Teacher | None, begun: Checkpoint | None) -> Stage:
    if recipe.stage.name == "proposals":
        head = ProposalHead(Stages(model).widths)
        if begun is not None:
            load_proposals(head, begun.state, source=recipe.stage.head_init)
        return ProposalStage(model, head)
    assert teacher is not None
    if recipe.stage.name == "encoder":
        return EncoderStage(model, teacher)
    options = {field.name: getattr(recipe.stage, field.name) for field in fields(PromptOptions)}
    return PromptStage(model, teacher, PromptOptions(**options))


def _loader(recipe: Recipe, world: World, stage: Stage, teacher: Teacher | None) -> Loader:
    origin = teacher.model.provenance if teacher else None
    return Loader(
        recipe.data,
        image_size=recipe.model.image_size,
        batch_size=recipe.run.batch_size,
        rank=world.rank,
        world=world.size,
        seed=recipe.run.seed,
        box_probability=recipe.stage.box_probability,
        rounds=recipe.stage.rounds,
        needs_prompts=stage.needs_prompts,
        every_box=stage.every_box,
        teacher_sha256=origin.weights_sha256 if origin else None,
    )


def _shown(recipe: Recipe, stage: Stage, teacher: Teacher | None) -> Batch:
    """The first pictures of the run, as they are published."""
    data = replace(recipe.data, workers=0, augment=AugmentRecipe())
    small = replace(
        recipe, data=data, run=replace(recipe.run, batch_size=min(4, recipe.run.batch_size), accumulate=1)
    )
    with _loader(small, World(), stage, teacher) as loader:
        return next(iter(loader.epoch(0)))
