"""One of two processes of a small run; the test starts it with torchrun's variables."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_runs import feed, recipe, trainer

from distill.data.batch import Batch
from distill.distributed import World, processes


def main(output: Path, mode: str) -> None:
    with processes() as world:
        run(output, mode, world)
    # The group's threads would abort the process now and then, had something kept it.
    left = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert not [name for name in left if "gloo" in name or "tcpstore" in name], left


def run(output: Path, mode: str, world: World) -> None:
    # Of four pictures the first process gets three and the second one; of eight, six and two.
    rows = slice(0, 3) if world.rank == 0 else slice(3, 4)

    def change(number: int, batch: Batch) -> Batch:
        if mode == "one has nothing" and number == 1 and world.rank == 1:
            return Batch([], batch.frames[:0], batch.sizes[:0], corrupt=[("x.jpg", "cut short")])
        return batch

    plan = recipe(batch_size=4, accumulate=2 if mode == "portions" else 1, ema=0.5, steps=5)
    built = trainer(output, plan, feed(4, change, rows), world=world, report=print)
    outcome = built.train()
    (output.parent / f"corrupt {world.rank}").write_text(outcome.corrupt)
    torch.save(outcome.weights, output.parent / f"weights {world.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
