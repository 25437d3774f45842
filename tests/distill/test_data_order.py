"""The order of an epoch: everything once, shuffled near where it is stored, the same whoever asks."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.order import EpochOrder, Mix
from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.data.samples import Sample


class Lengths:
    """A source that only says how many samples it has, and in which shards."""

    def __init__(self, *shard_sizes: int, spec: str = "images:here") -> None:
        self.shard_sizes: Sequence[int] = shard_sizes
        self.spec = spec

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("an order is made without reading")


def mix(
    *sources: Lengths, weights: Sequence[float] = (), size: int = 0, seed: int = 0, published: bool = False
) -> Mix:
    return Mix(sources, weights or [1.0] * len(sources), epoch_size=size, seed=seed, published=published)


def pairs(order: EpochOrder) -> list[tuple[int, int]]:
    sources, indices = order.pictures(0, len(order))
    return list(zip(sources.tolist(), indices.tolist(), strict=True))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), min_size=1, max_size=3), st.data())
def test_an_epoch_of_equal_sources_has_every_picture_once(shards: list[list[int]], data: st.DataObject) -> None:
    sources = [Lengths(*sizes) for sizes in shards]
    order = mix(*sources, seed=data.draw(st.integers(0, 2**32 - 1))).epoch(data.draw(st.integers(0, 20)))
    assert sorted(pairs(order)) == [(s, i) for s, source in enumerate(sources) for i in range(len(source))]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.integers(1, 40), st.integers(0, 9))
def test_epochs_of_any_size_continue_one_another(shards: list[int], size: int, seed: int) -> None:
    """However an endless sequence is cut into epochs, it has every picture before any comes again."""
    source = Lengths(*shards)
    cut = mix(source, size=size, seed=seed)
    drawn = [index for epoch in range(5) for _, index in pairs(cut.epoch(epoch))]
    assert len(drawn) == 5 * size
    for start in range(0, len(drawn), len(source)):
        turn = drawn[start : start + len(source)]
        assert len(set(turn)) == len(turn)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    source = Lengths(50, 50, 50)
    orders = [tuple(pairs(mix(source, seed=seed).epoch(epoch))) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 6
    assert orders == [tuple(pairs(mix(source, seed=seed).epoch(epoch))) for seed in (0, 1) for epoch in (0, 1, 2)]


@pytest.mark.parametrize("size", [0, 40])
def test_the_published_order_is_the_same_every_epoch(size: int) -> None:
    published = mix(Lengths(50, 50), Lengths(9), size=size, published=True)
    assert pairs(published.epoch(0)) == pairs(published.epoch(7)) != sorted(pairs(published.epoch(0)))


def test_a_window_of_few_shards_is_read_at_a_time() -> None:
    shards, size = 40, 3000
    _, indices = mix(Lengths(*[size] * shards)).epoch(0).pictures(0, shards * size)
    windows = indices.reshape(-1, 4 * size) // size
    assert [len(np.unique(window)) for window in windows] == [4] * 10
    first = windows[:, :size]
    assert all(len(np.unique(window)) == 4 for window in first), "shuffled within the window"
    assert np.unique(windows[:, 0]).tolist() != windows[:, 0].tolist(), "shards are shuffled"


def test_small_shards_share_a_window() -> None:
    _, indices = mix(Lengths(*[1] * 9000)).epoch(0).pictures(0, 8192)
    assert np.ptp(indices) > 8000


def test_weights_are_shares_of_an_epoch() -> None:
    sources = Lengths(60, 40), Lengths(300, 700)
    mixed = mix(*sources, weights=(3.0, 1.0), size=400)
    order = pairs(mixed.epoch(0))
    assert Counter(source for source, _ in order) == {0: 300, 1: 100}
    assert set(Counter(index for source, index in order if source == 0).values()) == {3}
    thirds = [Counter(source for source, _ in order[start : start + 100]) for start in (0, 100, 200, 300)]
    assert all(60 <= third[0] <= 90 for third in thirds), "mixed throughout"
    later = [index for epoch in range(10) for source, index in pairs(mixed.epoch(epoch)) if source == 1]
    assert sorted(later) == list(range(1000)), "ten epochs of a tenth are the whole"


def test_equal_weights_other_than_one_are_equal_shares() -> None:
    order = pairs(mix(Lengths(10), Lengths(90), weights=(0.5, 0.5)).epoch(0))
    assert Counter(source for source, _ in order) == {0: 50, 1: 50}


@given(st.lists(st.floats(0.5, 10), min_size=2, max_size=5), st.integers(200, 1000))
def test_shares_add_up_and_are_right_to_a_picture(weights: list[float], size: int) -> None:
    order = mix(*[Lengths(7)] * len(weights), weights=weights, size=size).epoch(0)
    counts = np.bincount(order.pictures(0, size)[0], minlength=len(weights))
    assert counts.sum() == size
    if set(weights) != {1.0}:
        assert np.abs(counts - np.array(weights) / sum(weights) * size).max() < 1


def test_ten_million_pictures_take_four_bytes_each() -> None:
    count = 10_000_000
    big = mix(Lengths(*[11_000] * 909, 1_000))
    tracemalloc.start()
    order = big.epoch(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(order) == count
    assert order.numbers.nbytes == 4 * count
    assert peak < 12 * count
    assert (np.bincount(order.numbers, minlength=count) == 1).all()


def test_what_cannot_be_drawn_from_is_refused() -> None:
    with pytest.raises(UsageError, match="no pictures"):
        mix()
    with pytest.raises(UsageError, match="images:there has no pictures"):
        mix(Lengths(3), Lengths(0, spec="images:there"))
    with pytest.raises(UsageError, match="images:there has no picture in an epoch of 10"):
        mix(Lengths(3), Lengths(9, spec="images:there"), weights=(99.0, 1.0), size=10)
