"""The processes of a run: none but this one, or as many as torchrun started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # see processes()
from torch import Tensor

from edgesam_mobile.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among ``size``; all of them call the same collective methods in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes; ``values`` itself where there is only one."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in every process. The values are pickled: small things only."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def share(self, value: T) -> T:
        """The main process's value, in every process; the others' own is ignored."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def processes() -> Iterator[World]:
    """Join the processes that torchrun's environment variables tell of; a context, which ends by leaving them.

    Whoever enters it must not hold what trained in it when it ends: call a function inside.

    Each process takes the GPU of its local rank; without any GPU they train on the CPU.

    Raises:
        UsageError: the variables are incomplete, or there are more processes than GPUs.
    """
    size = _whole("WORLD_SIZE", 1)
    if size == 1:
        yield World(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UsageError(f"WORLD_SIZE is {size} but {name} is not set", hint="start the run with torchrun")
    rank, local = _whole("RANK", 0), _whole("LOCAL_RANK", 0)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            hint = f"start at most {torch.cuda.device_count()} processes a machine"
            raise UsageError(f"there is no GPU for local rank {local}", hint=hint)
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield World(rank, size, device)
    finally:
        # While anything holds the group its threads run on into the interpreter's end, which aborts the process now
        # and then. DistributedDataParallel is garbage in cycles; and had it been what imports torch.distributed.nn,
        # default arguments there would be this very group.
        gc.collect()
        dist.destroy_process_group()


def _whole(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UsageError(f"{variable} is {text!r}, not a whole number", hint="start the run with torchrun")
    return int(text)
