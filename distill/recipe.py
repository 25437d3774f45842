"""A training recipe: a TOML file as frozen dataclasses, refused where it cannot work.

The published recipes (arXiv 2312.06660 and its published settings) are in the folder ``recipes`` beside this file.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

from distill.tables import from_table, override, to_table, to_toml
from edgesam_mobile.errors import UsageError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """``[model]``: the student.

    Attributes:
        architecture: a name of the architecture registry.
        init: registered weights, or a checkpoint of a whole model or of parts, to start from; empty = a random
            encoder.
        decoder_init: where prompt encoder and mask decoder come from: ``"teacher"``, or ``"init"`` to go on with
            those of ``init``, which are not used otherwise.
        neck_init: ``"teacher"`` starts the neck's last three layers from the teacher's, which have the same shapes in
            every SAM: embeddings have their scale and channels from the first step. ``"random"``, as published.
        image_size: side of the square input in pixels.
        upsample: interpolation inside the encoder; ``"bicubic"`` is the published one, ``"bilinear"`` what
            exported models compute.
        int8: train the encoder with the rounding of 8-bit artefacts, to get back what that costs; a fine-tuning.
        float_layers: groups of its layers that are not rounded, by the names of a plan of ``quantize``.
    """

    architecture: str = "edge-sam"
    init: str = ""
    decoder_init: Literal["teacher", "init"] = "teacher"
    neck_init: Literal["random", "teacher"] = "random"
    image_size: int = 512
    upsample: Literal["bilinear", "bicubic"] = "bilinear"
    int8: bool = False
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(self.architecture != "", "model.architecture", "a name", self.architecture)
        _need(0 < self.image_size <= 4096, "model.image_size", "from 1 to 4096", self.image_size)
        if self.decoder_init == "init" and not self.init:
            raise UsageError('model.decoder_init is "init" but model.init names no checkpoint', hint="set model.init")
        if self.int8 and not self.init:
            raise UsageError(
                "model.int8 fine-tunes a trained student, but model.init is empty", hint="set model.init"
            )
        if self.float_layers and not self.int8:
            raise UsageError("model.float_layers without model.int8", hint="set model.int8 = true, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """``[teacher]``.

    Attributes:
        weights: a name that ``edgesam-mobile weights list`` shows, or a file.
        cache: folder of embeddings that ``edgesam-mobile teach`` wrote; empty = the teacher runs on the fly.
    """

    weights: str = "mobile-sam"
    cache: str = ""

    def __post_init__(self) -> None:
        _need(self.weights != "", "teacher.weights", "a name or a file", self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe:
    """One of ``data.sources``.

    Attributes:
        spec: as :func:`edgesam_mobile.evaluate.data.open.open_source` takes it.
        weight: how often its pictures are drawn, relative to the other sources'.
    """

    spec: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        _need(self.spec != "", "data.sources spec", "one such as images:FOLDER", self.spec)
        _need(0 < self.weight < inf, "data.sources weight", "above 0", self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentRecipe:
    """``[data.augment]``; all off by default, as published. Any of it makes the teacher run on the fly.

    Attributes:
        flip: probability of a mirrored picture.
        scale: smallest and largest factor of a random resize; what exceeds the frame is cropped.
        colour: strength of random brightness, contrast and saturation, 0 to 1.
    """

    flip: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0

    def __post_init__(self) -> None:
        _need(0 <= self.flip <= 1, "data.augment.flip", "from 0 to 1", self.flip)
        low, high = self.scale
        _need(0.1 <= low <= high <= 10, "data.augment.scale", "[smallest, largest], 0.1 to 10", list(self.scale))
        _need(0 <= self.colour <= 1, "data.augment.colour", "from 0 to 1", self.colour)

    @property
    def active(self) -> bool:
        """Whether pictures differ from epoch to epoch."""
        return self != AugmentRecipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsRecipe:
    """``[data.prompts]``.

    Attributes:
        source: ``"annotations"`` of the data set, or ``"teacher"``: a file made from the teacher's own masks.
        file: that file.
        per_image: prompts drawn from a picture; stage ``"proposals"`` takes every annotated box, whatever this says.
    """

    source: Literal["annotations", "teacher"] = "annotations"
    file: str = ""
    per_image: int = 16

    def __post_init__(self) -> None:
        _need(0 < self.per_image <= 1024, "data.prompts.per_image", "from 1 to 1024", self.per_image)
        if self.source == "teacher" and not self.file:
            hint = "make one: edgesam-mobile teach RECIPE --prompts FILE"
            raise UsageError('data.prompts.source is "teacher" but data.prompts.file is empty', hint=hint)
        if self.source == "annotations" and self.file:
            hint = 'set data.prompts.source = "teacher", or leave the file out'
            raise UsageError("data.prompts.file would not be used", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """``[data]``.

    Attributes:
        sources: the pictures; with all weights 1.0 they are concatenated.
        epoch_size: pictures in an epoch; 0 = all there are.
        order: ``"shuffle"`` anew every epoch, or ``"published"``: one random order for all epochs.
        workers: loader processes of each training process; 0 = load in the training process.
    """

    sources: tuple[SourceRecipe, ...]
    epoch_size: int = 0
    order: Literal["shuffle", "published"] = "shuffle"
    workers: int = 1
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    prompts: PromptsRecipe = field(default_factory=PromptsRecipe)

    def __post_init__(self) -> None:
        _need(len(self.sources) > 0, "data.sources", "at least one source", list(self.sources))
        _need(self.epoch_size >= 0, "data.epoch_size", "0 (all) or more", self.epoch_size)
        _need(0 <= self.workers <= 64, "data.workers", "from 0 to 64", self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecipe:
    """``[stage]``: what is trained and by which loss; options are of stage ``"prompts"`` where nothing else is said.

    Attributes:
        name: ``"encoder"`` (features), ``"prompts"`` (prompt in the loop) or ``"proposals"`` (granularity prior).
        rounds: correction points after the first prompt.
        train_tokens: train the mask and IoU tokens, as the published code does; the paper freezes them.
        freeze_decoder: train the encoder only.
        freeze_encoder: train the mask decoder only.
        iou_loss: weight of distilling the IoU head; 0 = off, as published.
        mask_prompts: probability that a correction round also gets the previous round's mask.
        bce: weight of the binary cross-entropy.
        dice: weight of the Dice loss.
        box_probability: how often a batch is prompted with boxes rather than points.
        head_init: of stage ``"proposals"``: a checkpoint with a head to go on with; empty = a new head.
    """

    name: Literal["encoder", "prompts", "proposals"] = "encoder"
    rounds: int = 1
    train_tokens: bool = True
    freeze_decoder: bool = False
    freeze_encoder: bool = False
    iou_loss: float = 0.0
    mask_prompts: float = 0.0
    bce: float = 5.0
    dice: float = 5.0
    box_probability: float = 0.5
    head_init: str = ""

    def __post_init__(self) -> None:
        _need(0 <= self.rounds <= 16, "stage.rounds", "from 0 to 16", self.rounds)
        for name in ("iou_loss", "bce", "dice"):
            _need(0 <= getattr(self, name) < inf, f"stage.{name}", "0 or more", getattr(self, name))
        _need(self.bce + self.dice > 0, "stage.bce or stage.dice", "above 0", 0)
        for name in ("mask_prompts", "box_probability"):
            _need(0 <= getattr(self, name) <= 1, f"stage.{name}", "from 0 to 1", getattr(self, name))
        if self.mask_prompts and not self.rounds:
            raise UsageError("stage.mask_prompts needs correction rounds", hint="set stage.rounds to 1 or more")
        if self.head_init and self.name != "proposals":
            raise UsageError(f"stage {self.name} trains no head to begin with", hint="leave stage.head_init out")
        if self.freeze_decoder and self.freeze_encoder:
            raise UsageError("stage.freeze_decoder and stage.freeze_encoder: nothing to train", hint="choose one")
        if self.iou_loss and self.freeze_decoder:
            raise UsageError("stage.iou_loss trains the decoder, but stage.freeze_decoder is true", hint="choose one")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimRecipe:
    """``[optim]``: AdamW under a linear warm-up and a cosine, both per step.

    Attributes:
        lr: peak learning rate, for a whole ``run.batch_size``.
        min_lr: where the cosine ends.
        warmup_lr: where the warm-up begins.
        warmup_epochs: its length; 0 = none.
        weight_decay: none is applied to biases and other one-dimensional parameters.
        clip: largest norm of the gradient; 0 = no clipping.
        drop_after_warmup: the published schedule counts the cosine from the start of training, so that the
            rate drops at once when the warm-up ends; false = the cosine begins at the peak.
    """

    lr: float
    min_lr: float = 0.0
    warmup_lr: float = 0.0
    warmup_epochs: float = 0.0
    weight_decay: float = 0.01
    clip: float = 0.0
    drop_after_warmup: bool = True

    def __post_init__(self) -> None:
        _need(0 < self.lr < inf, "optim.lr", "above 0", self.lr)
        for name in ("min_lr", "warmup_lr"):
            rule = f"from 0 to optim.lr ({self.lr:g})"
            _need(0 <= getattr(self, name) <= self.lr, f"optim.{name}", rule, getattr(self, name))
        for name in ("warmup_epochs", "weight_decay", "clip"):
            _need(0 <= getattr(self, name) < inf, f"optim.{name}", "0 or more", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    """``[run]``: how long, in which portions, and what is written down.

    Attributes:
        epochs: length of the run, unless ``steps`` is above 0.
        steps: length of the run in steps; 0 = take ``epochs``.
        batch_size: pictures in a step, over all processes.
        accumulate: portions that each process's share of a step is computed in.
        precision: of the student's computation, and of a teacher's on the fly; weights, loss and updates are
            always float32.
        channels_last: memory layout of the student.
        compile: run the student's encoder through torch.compile.
        sync_batch_norm: batch statistics over all processes (CUDA only).
        ema: decay of the running average of the weights, which is then what is exported; 0 = off.
        checkpoint_every: steps between checkpoints.
        keep: newest checkpoints that are kept.
        max_bad_steps: consecutive steps with a NaN or infinite loss or gradient, all skipped, that end the run.
        log_every: steps between lines of the log.
        picture_every: steps between pictures of masks; 0 = only at the end.
    """

    epochs: int = 10
    steps: int = 0
    batch_size: int = 8
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    sync_batch_norm: bool = False
    ema: float = 0.0
    seed: int = 0
    checkpoint_every: int = 500
    keep: int = 3
    max_bad_steps: int = 10
    log_every: int = 10
    picture_every: int = 500

    def __post_init__(self) -> None:
        _need(self.epochs >= 1, "run.epochs", "1 or more", self.epochs)
        _need(self.steps >= 0, "run.steps", "0 (take run.epochs) or more", self.steps)
        for name in ("batch_size", "accumulate", "checkpoint_every", "keep", "max_bad_steps", "log_every"):
            _need(getattr(self, name) >= 1, f"run.{name}", "1 or more", getattr(self, name))
        _need(self.picture_every >= 0, "run.picture_every", "0 (only at the end) or more", self.picture_every)
        _need(0 <= self.ema < 1, "run.ema", "at least 0 and below 1", self.ema)
        _need(0 <= self.seed < 2**32, "run.seed", "from 0 to 2^32 - 1", self.seed)
        if self.batch_size % self.accumulate:
            hint = "choose run.accumulate so that it divides run.batch_size"
            raise UsageError(f"run.batch_size {self.batch_size} is no multiple of {self.accumulate}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe: everything that a run's numbers depend on, besides the files that it names."""

    data: DataRecipe
    optim: OptimRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    stage: StageRecipe = field(default_factory=StageRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)

    def __post_init__(self) -> None:
        if self.teacher.cache and self.data.augment.active:
            hint = "leave teacher.cache out, or data.augment"
            raise UsageError("teacher.cache holds plain pictures, but data.augment changes them", hint=hint)
        if self.stage.name == "proposals" and not self.model.init:
            raise UsageError("stage proposals trains a head on a finished encoder", hint="set model.init")
        if self.model.int8 and (self.stage.freeze_encoder or self.stage.name == "proposals"):
            raise UsageError("model.int8 is about an encoder that is not trained here", hint="leave model.int8 out")
        if self.stage.name == "proposals" and self.data.prompts.source == "teacher":
            hint = "leave data.prompts.source and data.prompts.file out"
            raise UsageError("stage proposals trains on annotated boxes, not on the teacher's prompts", hint=hint)
        unlabelled = [s.spec for s in self.data.sources if s.spec.startswith("images:")]
        if unlabelled and self.stage.name == "proposals":
            raise UsageError(f"stage proposals needs boxes; {unlabelled[0]} has none", hint="use labelled sources")
        if unlabelled and self.stage.name == "prompts" and self.data.prompts.source == "annotations":
            hint = 'set data.prompts.source = "teacher" and data.prompts.file'
            raise UsageError(f"{unlabelled[0]} has no annotations to prompt with", hint=hint)

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe: a file, or one of :func:`shipped` by its bare name.

        Args:
            overrides: settings such as ``"run.steps=2"``, applied over what the file says. Relative paths
                inside a recipe start from the working folder.

        Raises:
            UsageError: there is no such file, it is no TOML, or an option is unknown, of the wrong type or
                impossible; the message names it.
        """
        path = recipe_path(name_or_path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"cannot read the recipe {path}: {reason}", hint="check the path") from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is no TOML: {error}", hint="see the recipes that are shipped") from error
        for assignment in overrides:
            override(table, assignment)
        return from_table(cls, table)

    def to_table(self) -> dict[str, Any]:
        """Every option, in plain dicts, lists and scalars."""
        return to_table(self)

    def to_toml(self) -> str:
        """The recipe as a file that :meth:`load` reads back to an equal one."""
        return to_toml(self.to_table())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        text = json.dumps(self.to_table(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def recipe_path(name_or_path: str | Path) -> Path:
    """A file, or the shipped recipe of that name where there is no such file."""
    path = Path(name_or_path)
    if not path.exists() and (found := shipped().get(str(name_or_path))):
        return found
    if not path.exists() and not path.suffix:
        raise UsageError(f"no recipe named {name_or_path}", hint=f"shipped: {', '.join(shipped()) or 'none'}")
    return path


def _need(ok: bool, option: str, rule: str, value: object) -> None:
    if not ok:
        told = f"{value:g}" if isinstance(value, float) else str(value) or "empty"
        raise UsageError(f"{option} must be {rule}, not {told}", hint="correct the recipe")
