"""What a training step gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from edgesam_mobile.model.sam import Sam


@dataclass
class Prompts:
    """P prompts over a batch's pictures; coordinates are (x, y) in pixels of the S x S input frame.

    Attributes:
        image: int64 P, the row of :attr:`Batch.frames` that each belongs to.
        boxes: float32 P x 4, as x1, y1, x2, y2.
        points: float32 P x 2, a point on the object.
        uniform: float32 P x R in [0, 1): the random numbers of R rounds of correction points. They belong to
            the sample (seed, epoch, place in the epoch), so a result depends neither on the number of
            processes nor on where a run was interrupted.
        kind: which of boxes and points this batch prompts with.
        crowd: bool P, boxes of groups, which are neither objects nor background; None where none is one.
    """

    image: Tensor
    boxes: Tensor
    points: Tensor
    uniform: Tensor
    kind: Literal["box", "point"]
    crowd: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device) -> Prompts:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Prompts:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prompts:
        image, boxes, points, uniform = map(change, (self.image, self.boxes, self.points, self.uniform))
        return Prompts(image, boxes, points, uniform, self.kind, None if self.crowd is None else change(self.crowd))


@dataclass
class Batch:
    """B pictures.

    Attributes:
        names: of the samples, as the sources name them.
        frames: uint8 B x 3 x S x S, RGB, each picture resized into the top left, zeros elsewhere.
        sizes: int64 B x 2, (height, width) of each picture inside its frame.
        prompts: None where the stage needs none.
        corrupt: samples of this batch that could not be used: (name, reason).
        originals: int64 B x 2, (height, width) of each picture as published; stays on the CPU.
        empty: annotated objects of these pictures that were passed over because nothing is in them.
    """

    names: list[str]
    frames: Tensor
    sizes: Tensor
    prompts: Prompts | None = None
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    originals: Tensor | None = None
    empty: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> Batch:
        prompts = self.prompts.to(device) if self.prompts is not None else None
        frames, sizes = self.frames.to(device, non_blocking=True), self.sizes.to(device, non_blocking=True)
        return Batch(self.names, frames, sizes, prompts, self.corrupt, self.originals, self.empty)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from where copies to a GPU do not wait; DataLoader calls it."""
        prompts = self.prompts.pin_memory() if self.prompts is not None else None
        frames, sizes = self.frames.pin_memory(), self.sizes.pin_memory()
        return Batch(self.names, frames, sizes, prompts, self.corrupt, self.originals, self.empty)


def valid_pixels(sizes: Tensor, side: int) -> Tensor:
    """Where a frame of ``side`` x ``side`` shows the picture: bool B x side x side, from sizes B x 2."""
    every = torch.arange(side, device=sizes.device)
    return (every[:, None] < sizes[:, 0, None, None]) & (every[None, :] < sizes[:, 1, None, None])


def normalise(model: Sam, batch: Batch) -> Tensor:
    """Frames as the encoder takes them: float32 B x 3 x S x S, padding exactly zero after normalisation."""
    colours = (batch.frames.float() - model.pixel_mean) / model.pixel_std
    return colours * valid_pixels(batch.sizes, batch.frames.shape[-1])[:, None]
