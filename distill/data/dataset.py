"""From places in an epoch to a batch: reading, decoding, resizing, prompts.

Every random number belongs to (seed, epoch, position), so a picture's prompts and changes depend neither on the
number of processes nor on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from distill.data.augment import Prompt, View, jitter, random_view
from distill.data.batch import Batch, Prompts
from distill.data.order import Purpose, generator
from distill.data.prompt_book import PromptBook
from distill.embeddings import alike, fingerprints
from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.evaluate.data.samples import CorruptSample, Instance, Sample, Source
from edgesam_mobile.model.geometry import ResizeLongestSide

if TYPE_CHECKING:
    from distill.recipe import DataRecipe


@dataclass(frozen=True, slots=True)
class Place:
    """One picture of an epoch.

    Attributes:
        position: in the epoch's order.
        source: number of its source.
        index: in that source.
    """

    position: int
    source: int
    index: int


@dataclass(frozen=True, slots=True)
class Request:
    """The part of one batch that one process trains on."""

    epoch: int
    kind: Literal["box", "point"]
    places: tuple[Place, ...]


@dataclass
class _Shown:
    """What of a picture's objects a view shows; crowds are boxes of stage 3, and empty counts what is passed over."""

    prompts: list[Prompt] = field(default_factory=list)
    crowds: list[Prompt] = field(default_factory=list)
    empty: int = 0


@dataclass(frozen=True)
class _Item:
    """One picture as it enters a batch.

    Boxes N x 4, points N x 2, crowd N and uniform N x R where there are prompts.
    """

    name: str
    picture: npt.NDArray[np.uint8]
    original: tuple[int, int]
    boxes: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    uniform: npt.NDArray[np.float32]
    empty: int


class PictureDataset:
    """Answers requests with batches; it is copied to the loader processes.

    With fewer objects than ``per_image`` a picture is prompted with all of them; with more, that many are drawn
    without replacement, anew every epoch. (The published training draws them with replacement, which prompts some
    twice.) Crowds and empty objects are no prompts; the latter are counted. An annotation's point is its own (SA-1B)
    or a random pixel of its mask.

    With ``every_box`` a picture has all of its annotated boxes instead, clipped to what is shown, however many there
    are and whatever their masks: stage 3 teaches what has no box as background. Crowds come last and are marked.

    Args:
        image_size: side S of the frame.
        rounds: random numbers a prompt, at least 1.
        needs_prompts: without, annotations are not looked at.
        every_box: of the annotations; points are then the boxes' middles.
        teacher_sha256: whose prompts a file of prompts must hold; None for anybody's.

    Raises:
        UsageError, EdgeSamError: the file of prompts cannot be used.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        data: DataRecipe,
        *,
        image_size: int,
        seed: int,
        rounds: int,
        needs_prompts: bool,
        every_box: bool = False,
        teacher_sha256: str | None = None,
    ) -> None:
        self._sources, self._augment, self._per_image = sources, data.augment, data.prompts.per_image
        self._side, self._seed, self._rounds, self._needs_prompts = image_size, seed, max(1, rounds), needs_prompts
        self._every_box = every_box
        from_book = needs_prompts and data.prompts.source == "teacher"
        self._book = PromptBook.open(data.prompts.file, teacher_sha256=teacher_sha256) if from_book else None

    def __getitem__(self, request: Request) -> Batch | EdgeSamError:
        """A batch of the pictures that can be used.

        The others are in :attr:`Batch.corrupt` with the reason, and the batch is that much smaller, down to none.
        What makes going on pointless (a disk that fails) is returned, not raised: it has to get to another process
        whole.
        """
        items, corrupt = [], []
        for place in request.places:
            try:
                items.append(self._item(request.epoch, place))
            except CorruptSample as error:
                corrupt.append((error.name, error.reason))
            except EdgeSamError as error:
                return error
        return self._batch(items, corrupt, request.kind)

    def _item(self, epoch: int, place: Place) -> _Item:
        sample = self._sources[place.source][place.index]
        picture = sample.picture()
        original = (picture.shape[0], picture.shape[1])
        rng = generator(self._seed, Purpose.AUGMENT, epoch, place.position)
        view = random_view(original, self._side, self._augment, rng)
        uniform = np.zeros((0, self._rounds), dtype=np.float32)
        found = _Shown()
        if self._needs_prompts:
            noted = self._noted(sample.name, picture) if self._book else None
            draws = generator(self._seed, Purpose.PROMPTS, epoch, place.position)
            found = self._shown(sample, noted, view, draws)
            if not found.prompts:  # all were cropped away, perhaps
                view = view.whole(self._side)
                found = self._shown(sample, noted, view, draws)
            if not found.prompts:
                raise CorruptSample(sample.name, "no object to prompt with")
            uniform = draws.random((len(found.prompts) + len(found.crowds), self._rounds), dtype=np.float32)
        shown = jitter(view.picture(picture), self._augment.colour, rng)
        every = found.prompts + found.crowds
        boxes = np.array([box for box, _ in every]).reshape(-1, 4)
        points = np.array([point for _, point in every]).reshape(-1, 2)
        crowd = np.arange(len(every)) >= len(found.prompts)
        return _Item(sample.name, shown, original, boxes, points, crowd, uniform, found.empty)

    def _shown(self, sample: Sample, noted: list[Prompt] | None, view: View, rng: np.random.Generator) -> _Shown:
        """Up to ``per_image`` prompts that a view shows, or all boxes."""
        if self._every_box:
            return _boxes(sample, view)
        found = _Shown()
        for candidate in _drawn(noted, rng) if noted is not None else _annotated(sample, view.original, rng):
            if candidate is None:
                found.empty += 1
            elif (prompt := view.prompt(*candidate)) is not None:
                found.prompts.append(prompt)
                if len(found.prompts) == self._per_image:
                    break
        return found

    def _noted(self, name: str, picture: npt.NDArray[np.uint8]) -> list[Prompt]:
        """What the file of prompts has for a picture."""
        assert self._book
        noted = self._book.get(name)
        if noted is None:
            raise CorruptSample(name, f"not in {self._book.path}")
        boxes, points, seen = noted
        side = self._book.header["image_size"]
        frame = ResizeLongestSide(side).pad_image(ResizeLongestSide(side).apply_image(picture), (0, 0, 0))
        (mark,) = fingerprints(torch.from_numpy(frame.transpose(2, 0, 1)[None]))
        if not alike(mark, seen):
            raise CorruptSample(name, f"not the picture whose prompts are in {self._book.path}")
        return list(zip(boxes.astype(np.float64), points.astype(np.float64), strict=True))

    def _batch(self, items: list[_Item], corrupt: list[tuple[str, str]], kind: Literal["box", "point"]) -> Batch:
        frames = torch.zeros(len(items), 3, self._side, self._side, dtype=torch.uint8)
        for frame, item in zip(frames, items, strict=True):
            height, width, _ = item.picture.shape
            frame[:, :height, :width] = torch.from_numpy(np.ascontiguousarray(item.picture.transpose(2, 0, 1)))
        sizes = torch.tensor([item.picture.shape[:2] for item in items], dtype=torch.int64).reshape(-1, 2)
        originals = torch.tensor([item.original for item in items], dtype=torch.int64).reshape(-1, 2)
        prompts = self._joined(items, kind) if self._needs_prompts else None
        empty = sum(item.empty for item in items)
        return Batch([item.name for item in items], frames, sizes, prompts, corrupt, originals, empty)

    def _joined(self, items: list[_Item], kind: Literal["box", "point"]) -> Prompts:
        counts = torch.tensor([len(item.points) for item in items], dtype=torch.int64)
        return Prompts(
            torch.repeat_interleave(torch.arange(len(items)), counts),
            torch.from_numpy(np.concatenate([np.zeros((0, 4)), *(item.boxes for item in items)])).float(),
            torch.from_numpy(np.concatenate([np.zeros((0, 2)), *(item.points for item in items)])).float(),
            torch.cat([torch.zeros(0, self._rounds), *(torch.from_numpy(item.uniform) for item in items)]),
            kind,
            torch.from_numpy(np.concatenate([np.zeros(0, bool), *(item.crowd for item in items)])),
        )


def _boxes(sample: Sample, view: View) -> _Shown:
    """Every annotated box that a view shows, with its middle."""
    found = _Shown()
    for instance in sample.instances:
        x1, y1, x2, y2 = instance.box
        if not (x2 > x1 and y2 > y1):
            found.empty += not instance.crowd
        elif (box := view.box(instance.box)) is not None:
            (found.crowds if instance.crowd else found.prompts).append((box, 0.5 * (box[:2] + box[2:])))
    return found


def _drawn(prompts: list[Prompt], rng: np.random.Generator) -> Iterator[Prompt]:
    """Prompts in random order."""
    yield from (prompts[index] for index in rng.permutation(len(prompts)).tolist())


def _annotated(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Iterator[Prompt | None]:
    """The annotated objects of a picture in random order, None for empty ones.

    Masks are decoded as they are asked for.
    """
    objects = [instance for instance in sample.instances if not instance.crowd]
    for index in rng.permutation(len(objects)).tolist():
        instance = objects[index]
        point = instance.point or _random_pixel(sample.name, instance, size, rng)
        yield None if point is None else (np.array(instance.box), np.array(point))


def _random_pixel(
    name: str, instance: Instance, size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float] | None:
    """The middle of a random pixel of an object, (x, y); None where the object is empty."""
    try:
        pixels = np.flatnonzero(instance.mask(size))
    except ValueError as error:
        raise CorruptSample(name, f"annotation {instance.identifier}: {error}") from error
    if not len(pixels):
        return None
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), size[1])
    return x + 0.5, y + 0.5
