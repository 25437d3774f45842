"""One step: a batch's gradient, computed in portions and over many processes, applied to the student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill.data.batch import Batch, Prompts
from distill.distributed import World
from distill.recipe import Recipe
from distill.stages.base import Stage
from edgesam_mobile.errors import UsageError


@dataclass(frozen=True)
class Update:
    """What a step did.

    Attributes:
        loss: mean over the pictures of all processes.
        norm: of the gradient before clipping.
        parts: what the stage told, means over this process's pictures.
        problem: why the step was skipped; empty where it was not.
    """

    loss: float
    norm: float
    parts: dict[str, float]
    problem: str = ""


class Updater:
    """Owns all that training changes: the student, the optimiser and the average of the weights.

    Args:
        stage: on ``world.device`` already; switched to training mode.

    Raises:
        UsageError: the recipe asks for what this machine cannot do.
    """

    def __init__(self, stage: Stage, recipe: Recipe, world: World) -> None:
        self.stage, self.recipe, self.world = stage, recipe, world
        run = recipe.run
        if run.channels_last:
            stage.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if run.sync_batch_norm and world.size > 1:
            if world.device.type != "cuda":
                raise UsageError("run.sync_batch_norm works on CUDA only", hint="set run.sync_batch_norm = false")
            nn.SyncBatchNorm.convert_sync_batchnorm(stage.model)  # type: ignore[no-untyped-call]
        if run.compile:
            stage.model.image_encoder.compile()  # in place: the names of the weights stay
        stage.train()
        self.parameters = [parameter for _, parameter in stage.trainable()]
        self.optimiser = _optimiser(self.parameters, recipe.optim.weight_decay)
        self.average = Average(stage, run.ema) if run.ema else None
        self._buffers = [b for b in stage.buffers() if b.is_floating_point()]
        self._module: nn.Module = stage
        if world.size > 1:
            # Every stage gives every parameter a gradient, zero where a batch has nothing for it.
            self._module = DistributedDataParallel(stage)

    def step(self, batch: Batch, lr: float, pictures: int) -> Update:
        """Train on a batch; a step with a NaN or an infinity leaves no trace.

        Args:
            batch: this process's share, at least one picture, on ``world.device``.
            pictures: in all processes' shares together.
        """
        before = [buffer.clone() for buffer in self._buffers]
        self.optimiser.zero_grad(set_to_none=True)
        parts = self._backward(batch, pictures)
        clip = self.recipe.optim.clip
        norm = nn.utils.clip_grad_norm_(self.parameters, clip or inf)
        mine = torch.tensor([parts["loss"] * len(batch)], dtype=torch.float64, device=self.world.device)
        update = Update(float(self.world.total(mine)) / pictures, float(norm), parts)
        if not (isfinite(update.loss) and isfinite(update.norm)):
            # A NaN that passed through the batch norms is in their averages.
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)
            problem = "the loss" if not isfinite(update.loss) else "the gradient"
            return Update(update.loss, update.norm, parts, f"{problem} is NaN or infinite")
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        if self.average:
            self.average.update()
        return update

    def _backward(self, batch: Batch, pictures: int) -> dict[str, float]:
        """Add up the portions' gradients; each picture weighs the same, in whatever portion or process it is."""
        told: dict[str, Tensor] = {}
        portions = list(split(batch, self.recipe.run.accumulate))
        for number, portion in enumerate(portions, 1):
            with self._module.no_sync() if self._waits(number, portions) else nullcontext():  # type: ignore[operator]
                with torch.autocast(
                    self.world.device.type, torch.bfloat16, enabled=self.recipe.run.precision == "bfloat16"
                ):
                    answer = self._module(portion)
                # DDP averages the processes' gradients, hence the factor of their number.
                (answer["loss"].float() * (len(portion) * self.world.size / pictures)).backward()
            for key, value in answer.items():
                part = value.detach().float() * (len(portion) / len(batch))
                told[key] = told[key] + part if key in told else part
        return dict(zip(told, torch.stack(list(told.values())).tolist(), strict=True))

    def _waits(self, number: int, portions: list[Batch]) -> bool:
        """Whether the processes' gradients are not to be added up yet."""
        return self.world.size > 1 and number < len(portions)

    def trained(self) -> dict[str, Tensor]:
        """The student's state to use: the average where there is one. Names are the model's own."""
        state = self.average.state if self.average else self.stage.state_dict()
        prefix = "model."
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the batch."""
        average = self.average.state_dict() if self.average else None
        return {"stage": self.stage.state_dict(), "optimiser": self.optimiser.state_dict(), "average": average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, for an updater of the same recipe."""
        self.stage.load_state_dict(state["stage"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])


class Average:
    """A running average of a module's weights and batch statistics.

    The decay rises from 0.1 to the one asked for, as (1 + n) / (10 + n) after n updates, so that a short run is
    not dominated by the weights that it began with.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = module, decay, 0
        self.state = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the module's present state."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "state": self.state}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.updates = content["updates"]
        for key, value in content["state"].items():
            self.state[key].copy_(value)


def split(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into ``count`` runs of pictures with their prompts, as even as can be; fewer if it is smaller."""
    bounds = [len(batch) * number // count for number in range(count + 1)]
    for start, stop in pairwise(bounds):
        if start < stop:
            yield _rows(batch, start, stop)


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    prompts = batch.prompts
    if prompts is not None:
        own = (prompts.image >= start) & (prompts.image < stop)
        image, boxes, points = prompts.image[own] - start, prompts.boxes[own], prompts.points[own]
        crowd = None if prompts.crowd is None else prompts.crowd[own]
        prompts = Prompts(image, boxes, points, prompts.uniform[own], prompts.kind, crowd)
    originals = None if batch.originals is None else batch.originals[start:stop]
    return Batch(
        batch.names[start:stop], batch.frames[start:stop], batch.sizes[start:stop], prompts, originals=originals
    )


def _optimiser(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; biases, norms and tokens of one dimension are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
