"""What samples of time say: percentiles, intervals, ratios, and whether they can be trusted. All in milliseconds.

Samples of one process resemble each other more than those of two: memory layout, chosen kernels and the
machine's mood are fixed at launch. So intervals come from a hierarchical bootstrap, which draws launches first
and samples within them second, and cases are compared launch by launch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
# Smallest difference worth calling one; benchmark services for mobile runtimes use the same.
EFFECT = 0.05

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Samples in milliseconds. Percentiles interpolate linearly between neighbours (Hyndman and Fan's type 7)."""

    count: int
    min: float
    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; no interval where one launch cannot tell how launches differ."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Drift:
    """Median of the last third of a run over that of the first third.

    Attributes:
        flagged: the change is larger than 5 % and than chance explains.
    """

    ratio: float
    flagged: bool


def summarise(samples: Sequence[float]) -> Summary:
    """Summary of at least one sample; their order does not matter."""
    series = np.sort(_series(samples))
    p50, p90, p99 = (float(p) for p in np.percentile(series, (50, 90, 99), method="linear"))
    return Summary(len(series), float(series[0]), p50, p90, p99, math.fsum(series) / len(series))


def median_interval(launches: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate:
    """Median of all samples of at least one launch, with its interval over launches."""
    groups = [_series(launch) for launch in launches]
    value = float(np.median(np.concatenate(groups)))
    if len(groups) < 2:
        return Estimate(value)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        chosen = random.integers(len(groups), size=len(groups))
        draws.append(np.median(np.concatenate([_again(groups[i], random) for i in chosen])))
    return _with_interval(value, draws)


def ratio(
    slower: Mapping[int, Sequence[float]], faster: Mapping[int, Sequence[float]], *, seed: int = 0
) -> Estimate | None:
    """How many times as long one case takes as another, launch by launch of an interleaved run.

    Launches of one round ran within minutes of each other, so what slowed the machine then slowed both: each
    round gives one ratio of medians, and the estimate is the (geometric) median of these. Swapping the two cases
    gives the reciprocal.

    Args:
        slower: samples by round.
        faster: the same of the other case; rounds that only one of them has are left out.

    Returns:
        ``None`` if the two share no round.
    """
    pairs = [(_series(slower[i]), _series(faster[i])) for i in sorted(slower.keys() & faster.keys())]
    if not pairs:
        return None
    value = _typical_ratio(pairs)
    if len(pairs) < 2:
        return Estimate(value)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        chosen = random.integers(len(pairs), size=len(pairs))
        draws.append(_typical_ratio([(_again(pairs[i][0], random), _again(pairs[i][1], random)) for i in chosen]))
    return _with_interval(value, draws)


def stable(samples: Sequence[float], *, window: int = 3, tolerance: float = EFFECT) -> bool:
    """Whether a warm-up may end: the median of the last ``window`` samples is within ``tolerance`` of that before.

    Medians of three ignore one disturbed sample on either side. The caller bounds count and time, since a
    machine that is busy with something else may never become stable.
    """
    if len(samples) < 2 * window:
        return False
    before, last = np.median(samples[-2 * window : -window]), np.median(samples[-window:])
    return bool(abs(last - before) <= tolerance * before)


def drift(samples: Sequence[float]) -> Drift | None:
    """Compare the first and the last third of a run, in order of time: heat, throttling, another job.

    Returns:
        ``None`` for fewer than nine samples.
    """
    third = len(samples) // 3
    if third < 3:
        return None
    first, last = _series(samples[:third]), _series(samples[-third:])
    change = float(np.median(last) / np.median(first))
    return Drift(change, abs(change - 1) > EFFECT and _rank_sum_p(first, last) < 0.01)


def _rank_sum_p(first: Series, last: Series) -> float:
    """Two-sided p of Wilcoxon, Mann and Whitney's test, by the normal approximation with ties at mid-rank."""
    n, m = len(first), len(last)
    wins = np.sum(first[:, None] > last[None, :]) + 0.5 * np.sum(first[:, None] == last[None, :])
    _, ties = np.unique(np.concatenate([first, last]), return_counts=True)
    total = n + m
    variance = n * m / 12 * (total + 1 - np.sum(ties**3 - ties) / (total * (total - 1)))
    return math.erfc(abs(wins - n * m / 2) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _typical_ratio(pairs: Sequence[tuple[Series, Series]]) -> float:
    return float(np.exp(np.median([np.log(np.median(a) / np.median(b)) for a, b in pairs])))


def _with_interval(value: float, draws: Sequence[float]) -> Estimate:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws, (tail, 100 - tail), method="linear")
    return Estimate(value, float(low), float(high))


def _again(samples: Series, random: np.random.Generator) -> Series:
    return samples[random.integers(len(samples), size=len(samples))]


def _series(samples: Sequence[float]) -> Series:
    return np.asarray(samples, dtype=np.float64)
