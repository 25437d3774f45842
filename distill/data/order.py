"""Which picture stands where in an epoch.

Nothing here depends on the number of processes: an epoch is one sequence of pictures, and whoever trains takes the
parts of it that are theirs.

Reading goes shard after shard: shards come in random order, and a window of a few of them is shuffled at a time. A
window of SA-1B's tars holds some 44,000 pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.data.samples import Source

Integers = npt.NDArray[np.int64]

# A window has at least so many shards and at least so many pictures, if its source has.
_SHARDS, _PICTURES = 4, 8192


class Purpose(IntEnum):
    """What random numbers are for; each purpose has its own, so that using one more changes no other."""

    SHARDS, WINDOW, MIX, KIND, PROMPTS, AUGMENT = range(1, 7)


def generator(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """Random numbers that belong to a place, such as (epoch, position), whoever asks for them and whenever."""
    return np.random.default_rng([purpose, seed, *place])


@dataclass(frozen=True)
class EpochOrder:
    """One epoch's pictures in order, at most 4 bytes each below 4 milliards of pictures.

    Attributes:
        numbers: of the pictures, counted through all sources; an integer array.
        offsets: int64, the number of the first picture of each source.
    """

    numbers: npt.NDArray[Any]
    offsets: Integers

    def __len__(self) -> int:
        return len(self.numbers)

    def pictures(self, start: int, stop: int) -> tuple[Integers, Integers]:
        """For positions ``start`` to ``stop`` (exclusive): the sources, and the pictures' indices in them."""
        numbers = self.numbers[start:stop].astype(np.int64)
        sources = np.searchsorted(self.offsets, numbers, side="right").astype(np.int64) - 1
        return sources, numbers - self.offsets[sources]


class Mix:
    """Sources put together, from which epochs are drawn.

    Where every weight is 1, all pictures count alike, as if there were one source. Otherwise each source gives
    weight / (sum of weights) of an epoch. Either way, every picture of what is drawn from comes once before any comes
    again, also across epochs that are shorter than it.

    Args:
        sources: one or more, none of them empty.
        weights: one a source, above 0.
        epoch_size: pictures of an epoch; 0 for as many as there are.
        published: draw the same pictures in the same order every epoch, as EdgeSAM's published training does.

    Raises:
        UsageError: there is no source, one is empty, or one is too light to have a picture in an epoch.
    """

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], *, epoch_size: int, seed: int, published: bool
    ) -> None:
        if not sources:
            raise UsageError("there are no pictures to train on", hint="name a source under data.sources")
        for source in sources:
            if len(source) == 0:
                raise UsageError(f"{source.spec} has no pictures", hint="take it out of data.sources")
        lengths = np.array([len(source) for source in sources], dtype=np.int64)
        self._offsets = np.cumsum(lengths) - lengths
        self._seed, self._published = seed, published
        self._type = np.min_scalar_type(int(lengths.sum()))
        size = epoch_size or int(lengths.sum())
        sizes = [np.asarray(source.shard_sizes, dtype=np.int64) for source in sources]
        if all(weight == 1.0 for weight in weights):
            sizes, self._counts = [np.concatenate(sizes)], np.array([size])
            first = self._offsets[:1]
        else:
            self._counts = _shares(np.array(weights, dtype=np.float64), size)
            first = self._offsets
            for source, count in zip(sources, self._counts, strict=True):
                if count == 0:
                    hint = "raise its weight or data.epoch_size, or take it out"
                    raise UsageError(f"{source.spec} has no picture in an epoch of {size}", hint=hint)
        self._streams = [
            _Stream(start + np.cumsum(size) - size, size, seed, number)
            for number, (start, size) in enumerate(zip(first, sizes, strict=True))
        ]

    def __len__(self) -> int:
        """Pictures of an epoch."""
        return int(self._counts.sum())

    def epoch(self, epoch: int) -> EpochOrder:
        """The order of an epoch, counted from 0."""
        if self._published:
            epoch = 0
        chosen = np.repeat(np.arange(len(self._streams), dtype=np.min_scalar_type(len(self._streams))), self._counts)
        generator(self._seed, Purpose.MIX, epoch).shuffle(chosen)
        numbers = np.empty(len(self), dtype=self._type)
        for index, (stream, count) in enumerate(zip(self._streams, self._counts.tolist(), strict=True)):
            numbers[chosen == index] = stream.draw(epoch * count, np.empty(count, dtype=self._type))
        return EpochOrder(numbers, self._offsets)


@dataclass(frozen=True)
class _Stream:
    """Pictures without end: turn after turn, each with every picture once.

    Attributes:
        starts: the number of the first picture of each shard.
        sizes: pictures of each shard.
        index: of this stream among the others.
    """

    starts: Integers
    sizes: Integers
    seed: int
    index: int

    def draw(self, first: int, into: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Fill an array with the numbers of the pictures from the ``first`` on."""
        length, filled = int(self.sizes.sum()), 0
        while filled < len(into):
            turn, begin = divmod(first + filled, length)
            filled += self._continue(turn, begin, into[filled:])
        return into

    def _continue(self, turn: int, begin: int, into: npt.NDArray[Any]) -> int:
        """Fill an array from a turn, less its ``begin`` first pictures; tells how far that went."""
        shards = generator(self.seed, Purpose.SHARDS, self.index, turn).permutation(len(self.sizes))
        ends = np.cumsum(self.sizes[shards])
        filled = first = start = 0
        while first < len(shards) and filled < len(into):
            enough = int(np.searchsorted(ends, start + _PICTURES)) + 1
            last = min(max(first + _SHARDS, enough), len(shards))
            end = int(ends[last - 1])
            if end > begin:
                window = self._numbers(shards[first:last])
                generator(self.seed, Purpose.WINDOW, self.index, turn, first).shuffle(window)
                piece = window[max(begin - start, 0) :][: len(into) - filled]
                into[filled : filled + len(piece)] = piece
                filled += len(piece)
            first, start = last, end
        return filled

    def _numbers(self, shards: Integers) -> Integers:
        """The numbers of all pictures of some shards."""
        sizes = self.sizes[shards]
        skipped = self.starts[shards] - (np.cumsum(sizes) - sizes)
        numbers: Integers = np.repeat(skipped, sizes) + np.arange(int(sizes.sum()))
        return numbers


def _shares(weights: npt.NDArray[np.float64], size: int) -> Integers:
    """``size`` split by weight into whole numbers; what rounding leaves goes to the largest remainders."""
    exact = weights / weights.sum() * size
    counts: Integers = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: size - int(counts.sum())]] += 1
    return counts
