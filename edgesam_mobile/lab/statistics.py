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

    def __format__(self, form: str) -> str:
        """All three numbers in the same format, such as ``26.88 [26.55, 27.22]``."""
        if self.low is None or self.high is None:
            return format(self.value, form)
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True)
class Drift:
    """Median frame of a launch's last third over that of its first third; of several, the median over launches.

    Attributes:
        flagged: the change is larger than 5 % and than chance explains.
    """

    ratio: float
    flagged: bool


def summarise(samples: Sequence[float]) -> Summary:
    """Summary of at least one sample; their order does not matter."""
    series = np.sort(_series(samples))
    p50, p90, p99 = map(float, _percentiles(series, (50, 90, 99)))
    return Summary(len(series), float(series[0]), p50, p90, p99, math.fsum(series) / len(series))


def median_interval(launches: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate:
    """Median of all samples of at least one launch, with its interval over launches."""
    return percentile_intervals(launches, (50,), seed=seed)[0]


def launch_interval(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median of one value a launch (a load, say), with its interval over at least one launch."""
    series = _series(values)
    value = float(np.median(series))
    if len(series) < 2:
        return Estimate(value)
    random = np.random.default_rng(seed)
    chosen = random.integers(len(series), size=(RESAMPLES, len(series)))
    return _with_interval(value, np.median(series[chosen], axis=1))


def percentile_intervals(
    launches: Sequence[Sequence[float]], percents: Sequence[float], *, seed: int = 0
) -> tuple[Estimate, ...]:
    """Percentiles of all samples of at least one launch, each with its interval over launches.

    Args:
        percents: each 0 to 100; all are taken from the same resamples.
    """
    groups = [_series(launch) for launch in launches]
    values = _percentiles(np.concatenate(groups), percents)
    if len(groups) < 2:
        return tuple(Estimate(float(value)) for value in values)
    random = np.random.default_rng(seed)
    draws = [_percentiles(_redraw(groups, random), percents) for _ in range(RESAMPLES)]
    return tuple(
        _with_interval(float(value), drawn) for value, drawn in zip(values, np.transpose(draws), strict=True)
    )


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


def ratio_between(new: Sequence[Sequence[float]], old: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate:
    """Median of one run over that of another, whose launches did not take turns.

    Nothing pairs their launches, so both sides are resampled on their own; what changed on the device between the
    runs is in the ratio. Swapping the runs gives the reciprocal value.

    Args:
        new, old: samples of at least one launch each.

    Returns:
        Without interval where either side has one launch only.
    """
    above, below = [_series(launch) for launch in new], [_series(launch) for launch in old]
    value = float(np.median(np.concatenate(above)) / np.median(np.concatenate(below)))
    if min(len(above), len(below)) < 2:
        return Estimate(value)
    random = np.random.default_rng(seed)
    draws = [float(np.median(_redraw(above, random)) / np.median(_redraw(below, random))) for _ in range(RESAMPLES)]
    return _with_interval(value, draws)


def dominance(first: Sequence[float], last: Sequence[float]) -> float:
    """Cliff's delta: how much more often a sample of ``first`` is the longer one than of ``last``; -1 to 1."""
    n, m = len(first), len(last)
    wins, _ = _wins_and_ties(_series(first), _series(last))
    return 2 * wins / (n * m) - 1


def stable(samples: Sequence[float], *, window: int = 3, tolerance: float = EFFECT) -> bool:
    """Whether a warm-up may end: the median of the last ``window`` samples is within ``tolerance`` of that before.

    Medians of three ignore one disturbed sample on either side. The caller bounds count and time, since a
    machine that is busy with something else may never become stable.
    """
    if len(samples) < 2 * window:
        return False
    before, last = np.median(samples[-2 * window : -window]), np.median(samples[-window:])
    return bool(abs(last - before) <= tolerance * before)


def drift(launches: Sequence[Sequence[float]]) -> Drift | None:
    """Compare the first and the last third of each launch, in order of time: heat, throttling, another job.

    Each launch is held against itself. In the thirds of all launches together, what every one of them shows would
    be lost, and what differs between two launches would look like a change in time.

    Args:
        launches: samples of each; those with fewer than nine are left out.

    Returns:
        ``None`` if none is left.
    """
    long = [_series(times) for times in launches if len(times) >= 9]
    thirds = [(series[: len(series) // 3], series[-(len(series) // 3) :]) for series in long]
    if not thirds:
        return None
    change = float(np.median([np.median(last) / np.median(first) for first, last in thirds]))
    return Drift(change, abs(change - 1) > EFFECT and _rank_sum_p(thirds) < 0.01)


def _rank_sum_p(pairs: Sequence[tuple[Series, Series]]) -> float:
    """Two-sided p of Wilcoxon, Mann and Whitney's test, by the normal approximation with ties at mid-rank.

    Of several pairs, their statistics and variances add up, as they are independent of each other.
    """
    excess = variance = 0.0
    for first, last in pairs:
        n, m = len(first), len(last)
        wins, ties = _wins_and_ties(first, last)
        total = n + m
        excess += wins - n * m / 2
        variance += n * m / 12 * (total + 1 - float(np.sum(ties**3 - ties)) / (total * (total - 1)))
    return math.erfc(abs(excess) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _wins_and_ties(first: Series, last: Series) -> tuple[float, Series]:
    """In how many pairs ``first`` is larger (a tie is half a pair), and how often each value occurs in both."""
    _, place, counts = np.unique(np.concatenate([first, last]), return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    n = len(first)
    return float(np.sum(mid_ranks[place[:n]])) - n * (n + 1) / 2, counts.astype(np.float64)


def _typical_ratio(pairs: Sequence[tuple[Series, Series]]) -> float:
    return float(np.exp(np.median([np.log(np.median(a) / np.median(b)) for a, b in pairs])))


def _with_interval(value: float, draws: Sequence[float] | Series) -> Estimate:
    tail = 50 * (1 - LEVEL)
    low, high = map(float, _percentiles(_series(draws), (tail, 100 - tail)))
    # Resamples of few launches may all lie on one side of the value; an interval without its value misleads.
    return Estimate(value, min(low, value), max(high, value))


def _percentiles(samples: Series, percents: Sequence[float]) -> Series:
    return np.asarray(np.percentile(samples, percents, method="linear"), dtype=np.float64)


def _redraw(groups: Sequence[Series], random: np.random.Generator) -> Series:
    """As many launches, drawn with repetition, and within each as many samples."""
    return np.concatenate([_again(groups[i], random) for i in random.integers(len(groups), size=len(groups))])


def _again(samples: Series, random: np.random.Generator) -> Series:
    return samples[random.integers(len(samples), size=len(samples))]


def _series(samples: Sequence[float] | Series) -> Series:
    return np.asarray(samples, dtype=np.float64)
