"""What the engine expects of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from distill.data.batch import Batch
from edgesam_mobile.model.sam import Sam


class Stage(nn.Module):
    """A student with its loss; the engine wraps it for many processes, calls it, and saves :attr:`model`.

    The teacher is no submodule: it is neither trained, moved with the student, nor saved.

    Attributes:
        model: the student; frozen parts have ``requires_grad`` False.
        needs_prompts: whether batches must carry prompts.
        every_box: whether these are all annotated boxes, crowds among them, rather than some prompts.
    """

    model: Sam
    needs_prompts = False
    every_box = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch, a mean over its pictures, under ``"loss"``, and detached scalars to log."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Stage:
        """Frozen parts stay in evaluation mode: their batch norms must not drift."""
        raise NotImplementedError

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that get gradients."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def comparison(self, batch: Batch) -> list[tuple[Any, Any, Any]]:
        """Up to four (picture H x W x 3 uint8, teacher's mask, student's mask) to look at; may be empty."""
        raise NotImplementedError
