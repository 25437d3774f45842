"""Batches for one training process, epoch after epoch.

A batch of B pictures is positions b * B to (b + 1) * B of the epoch's order, and each of W processes takes its share
of B / W, in order: together they train on the same pictures whatever W is. What is left of an epoch after its last
whole batch is not used; epochs shorter than their sources continue where the one before would have ended, so
shuffled training comes to those pictures too.

Processes may get different numbers of prompts, and of pictures where some are corrupt. The engine knows how many
pictures of a batch all processes have together, and each of them counts the same in the step, however many prompts
it has and whoever got it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from distill.data.batch import Batch
from distill.data.dataset import PictureDataset, Place, Request
from distill.data.order import Mix, Purpose, generator
from edgesam_mobile.errors import EdgeSamError, UsageError
from edgesam_mobile.evaluate.data.open import open_source

if TYPE_CHECKING:
    from distill.recipe import DataRecipe

_PREFETCHED = 2  # batches a loader process


class Loader:
    """Reads what a recipe names; loader processes start with the first epoch and stay until :meth:`close`.

    They are forked from a server process that has only imported what loading needs (``forkserver``): a copy of the
    training process, with its threads and perhaps a GPU, may hang.

    Args:
        image_size: side of the frames.
        batch_size: pictures of a batch over all processes.
        rank: of this process among ``world``.
        box_probability: how often a batch is prompted with boxes rather than points.
        rounds: of correction points that random numbers are needed for.
        needs_prompts: whether batches carry prompts; pictures without an object are then corrupt.
        every_box, teacher_sha256: as :class:`~distill.data.dataset.PictureDataset`.

    Raises:
        UsageError: the batch cannot be split, an epoch is smaller than a batch, or the recipe's sources or prompts
            cannot be used.
        PictureError: a source is missing, damaged or empty.
    """

    def __init__(
        self,
        data: DataRecipe,
        *,
        image_size: int,
        batch_size: int,
        rank: int,
        world: int,
        seed: int,
        box_probability: float,
        rounds: int,
        needs_prompts: bool,
        every_box: bool = False,
        teacher_sha256: str | None = None,
    ) -> None:
        if batch_size % world:
            hint = f"choose run.batch_size as a multiple of {world}"
            raise UsageError(f"a batch of {batch_size} cannot be split over {world} processes", hint=hint)
        self._batch_size, self._seed, self._box_probability = batch_size, seed, box_probability
        self._share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        sources = self._sources = [open_source(source.spec) for source in data.sources]
        weights = [source.weight for source in data.sources]
        published = data.order == "published"
        self._mix = Mix(sources, weights, epoch_size=data.epoch_size, seed=seed, published=published)
        if len(self._mix) < batch_size:
            raise UsageError(
                f"an epoch has {len(self._mix)} pictures, fewer than a batch of {batch_size}",
                hint="choose a smaller run.batch_size or a larger data.epoch_size, or add sources",
            )
        dataset = PictureDataset(
            sources,
            data,
            image_size=image_size,
            seed=seed,
            rounds=rounds,
            needs_prompts=needs_prompts,
            every_box=every_box,
            teacher_sha256=teacher_sha256,
        )
        self._processes = data.workers
        self._plan = _Plan()
        self._batches = _batches(dataset, self._plan, data.workers)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._mix) // self._batch_size

    def digests(self) -> dict[str, str]:
        """What the files of each source are, by its spec; see :meth:`Source.digest`.

        Raises:
            PictureError: they cannot be looked at.
        """
        return {source.spec: source.digest() for source in self._sources}

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from one of them on; those before are not read.

        A batch may have no pictures, where all of its are corrupt. End one epoch before starting another.

        Raises:
            EdgeSamError: a source can no longer be read, or a loader process was killed.
        """
        self._plan.requests = self._requests(epoch, start_batch)
        batches = iter(self._batches)
        try:
            while (batch := self._next(batches)) is not None:
                if isinstance(batch, EdgeSamError):
                    raise batch
                yield batch
        finally:
            del batches  # whoever keeps the error keeps this frame, but not the processes

    def _next(self, batches: Iterator[Batch | EdgeSamError]) -> Batch | EdgeSamError | None:
        """The next batch, or why there is none; None after the last."""
        try:
            return next(batches, None)
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            # The absence of a process is noticed by and by, or as its last batch cannot be taken over.
            gone = not isinstance(error, RuntimeError) or "exited unexpectedly" in str(error)
            if not self._processes or not gone or str(error).startswith("Caught"):  # raised in a process alive
                raise
        hint = "if memory ran out, choose a smaller data.workers"
        return EdgeSamError("a loader process was killed", hint=hint)

    def _requests(self, epoch: int, start_batch: int) -> Iterator[Request]:
        order = self._mix.epoch(epoch)
        for batch in range(start_batch, self.batches_per_epoch):
            coin = generator(self._seed, Purpose.KIND, epoch, batch).random()
            begin = batch * self._batch_size
            start, stop = begin + self._share.start, begin + self._share.stop
            sources, indices = (part.tolist() for part in order.pictures(start, stop))
            places = tuple(map(Place, range(start, stop), sources, indices))
            yield Request(epoch, "box" if coin < self._box_probability else "point", places)

    def close(self) -> None:
        """End the loader processes."""
        del self._batches

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Plan:
    """What a DataLoader takes for its sampler: the requests of the epoch that comes next."""

    requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def _batches(dataset: PictureDataset, plan: _Plan, workers: int) -> DataLoader[Any]:
    """Batches in the order of the plan, a bounded number of them ahead of time."""
    options: dict[str, Any] = {}
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PictureDataset.__module__])
        options = {
            "multiprocessing_context": context,
            "prefetch_factor": _PREFETCHED,
            "persistent_workers": True,
            "worker_init_fn": _start_worker,
        }
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # indexed by requests, not by numbers
        sampler=plan,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # for seeds that nothing uses: torch's own stays as it is
        **options,
    )


def _start_worker(_: int) -> None:
    """An interrupt goes to all processes; the training process alone answers it, and all end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, killing the training process would leave its loader processes and their memory behind: torch
    has them watch the process that forked them, which in turn stays for as long as they do.
    """
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _as_it_is(batch: Any) -> Any:
    return batch
