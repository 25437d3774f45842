"""What hypothesis draws for the tests of operations: tensors, axes, shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from mil_programs import Array

few = settings(max_examples=7)
seeds = st.integers(0, 2**32 - 1)
flags = st.booleans()
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def numbers(seed: int, *shape: int, low: float = -3, high: float = 3) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(seed: int, *shape: int, low: int = -5, high: int = 5) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.int32, endpoint=True)


def each(data: st.DataObject, count: int, low: int, high: int) -> list[int]:
    return data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


def some_axes(data: st.DataObject, rank: int) -> list[int]:
    """A few sides, some of them counted from the end."""
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
    return [axis - rank if data.draw(flags) else axis for axis in axes]


def along(values: Array, rank: int, axis: int) -> Array:
    return values.reshape([-1 if side == axis % rank else 1 for side in range(rank)])
