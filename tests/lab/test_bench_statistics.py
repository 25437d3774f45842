"""The numbers a benchmark reports, on samples whose answer is known."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgesam_mobile.lab import statistics
from edgesam_mobile.lab.statistics import (
    Estimate,
    _rank_sum_p,
    dominance,
    drift,
    launch_interval,
    median_interval,
    percentile_intervals,
    ratio,
    ratio_between,
    stable,
    summarise,
)

times = st.floats(0.001, 1e5, allow_nan=False)
samples = st.lists(times, min_size=1, max_size=40)
launches = st.lists(samples, min_size=1, max_size=4)
few = settings(max_examples=10)  # each draws a thousand resamples


@given(samples, st.randoms(use_true_random=False))
def test_a_summary_does_not_depend_on_the_order(values: list[float], shuffler: random.Random) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert summarise(shuffled) == summarise(values)


@given(samples)
def test_percentiles_rise_from_the_least_sample(values: list[float]) -> None:
    s = summarise(values)
    assert s.count == len(values)
    assert min(values) == s.min <= s.p50 <= s.p90 <= s.p99 <= max(values)
    assert s.min <= s.mean * (1 + 1e-12) and s.mean <= max(values) * (1 + 1e-12)


def test_percentiles_interpolate_linearly() -> None:
    s = summarise([float(n) for n in range(101)])
    assert (s.p50, s.p90, s.p99, s.mean) == (50, 90, 99, 50)
    assert summarise([1.0, 2.0]).p90 == pytest.approx(1.9)


@few
@given(times, st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_the_interval_of_constant_samples_is_that_constant(value: float, counts: list[int]) -> None:
    estimate = median_interval([[value] * count for count in counts])
    assert (estimate.low, estimate.value, estimate.high) == (value, value, value)


@few
@given(launches)
def test_an_interval_lies_within_the_samples_and_repeats(series: list[list[float]]) -> None:
    estimate = median_interval(series, seed=3)
    pooled = [value for launch in series for value in launch]
    assert min(pooled) <= estimate.value <= max(pooled)
    assert estimate == median_interval(series, seed=3)
    if len(series) == 1:
        assert estimate.low is None and estimate.high is None
    else:
        assert estimate.low is not None and estimate.high is not None
        assert min(pooled) <= estimate.low <= estimate.high <= max(pooled)


def test_the_interval_shows_how_launches_differ_not_only_samples() -> None:
    """Many samples of few launches are not many independent samples."""
    generator = np.random.default_rng(0)
    alike = [generator.normal(100, 1, 200).tolist() for _ in range(5)]
    apart = [generator.normal(centre, 1, 200).tolist() for centre in (90, 95, 100, 105, 110)]
    narrow, wide = median_interval(alike), median_interval(apart)
    assert narrow.low is not None and narrow.high is not None and wide.low is not None and wide.high is not None
    assert narrow.high - narrow.low < 1
    assert wide.high - wide.low > 5


@few
@given(launches)
def test_a_case_takes_as_long_as_itself(series: list[list[float]]) -> None:
    rounds = dict(enumerate(series))
    estimate = ratio(rounds, rounds)
    assert estimate is not None and estimate.value == 1
    if estimate.low is not None and estimate.high is not None:
        assert estimate.low <= 1 <= estimate.high


@few
@given(launches, st.floats(0.1, 10))
def test_a_ratio_finds_the_factor_and_its_reciprocal(series: list[list[float]], factor: float) -> None:
    slower = {i: [factor * value for value in launch] for i, launch in enumerate(series)}
    faster = dict(enumerate(series))
    there, back = ratio(slower, faster), ratio(faster, slower)
    assert there is not None and back is not None
    assert there.value == pytest.approx(factor)
    assert there.value * back.value == pytest.approx(1)


def test_a_ratio_pairs_launches_so_that_a_common_slowdown_cancels() -> None:
    slow_machine = {0: [100.0, 101.0], 1: [200.0, 202.0], 2: [400.0, 404.0]}
    half = {i: [value / 2 for value in launch] for i, launch in slow_machine.items()}
    estimate = ratio(slow_machine, half)
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert estimate.value == pytest.approx(2)
    assert estimate.high - estimate.low < 0.1


def test_only_rounds_that_both_have_are_compared() -> None:
    estimate = ratio({0: [2.0], 1: [50.0]}, {0: [1.0], 2: [1.0]})
    assert estimate is not None and estimate.value == pytest.approx(2) and estimate.low is None
    assert ratio({0: [1.0]}, {1: [1.0]}) is None


def test_a_warm_up_ends_when_two_windows_agree() -> None:
    assert not stable([])
    assert not stable([10.0] * 5)
    assert stable([10.0] * 6)
    assert not stable([20, 20, 20, 10, 10, 10])
    assert stable([90, 30, 12, 10, 10, 10.2, 10, 10.1, 10])
    assert stable([10, 10, 10, 10, 500, 10]), "one disturbed sample does not count"
    assert not stable([100, 95, 90, 85, 80, 75])


def test_drift_needs_a_change_that_is_large_and_not_chance() -> None:
    generator = np.random.default_rng(0)
    steady = generator.normal(100, 3, 300).tolist()
    rising = [value * (1 + 0.3 * i / 300) for i, value in enumerate(steady)]
    small = [value * (1 + 0.03 * i / 300) for i, value in enumerate(steady)]
    found, none, little = drift([rising]), drift([steady]), drift([small])
    assert found is not None and found.flagged and math.isclose(found.ratio, 1.2, rel_tol=0.05)
    assert none is not None and not none.flagged
    assert little is not None and not little.flagged, "3 % is less than what matters"
    assert drift([[1.0] * 8]) is None and drift([]) is None
    constant = drift([[1.0] * 9, [5.0] * 8])
    assert constant is not None and constant.ratio == 1 and not constant.flagged


@given(st.lists(times, min_size=9, max_size=9))
def test_three_samples_a_third_are_too_few_to_flag_anything(values: list[float]) -> None:
    found = drift([values])
    assert found is not None and not found.flagged


def test_launches_that_all_heat_alike_drift_as_one_of_them_does() -> None:
    random = np.random.default_rng(0)
    hot = [(np.linspace(20, 26, 90) + random.normal(0, 0.2, 90)).tolist() for _ in range(5)]
    one, five = drift(hot[:1]), drift(hot)
    assert one is not None and five is not None and one.flagged and five.flagged
    assert five.ratio == pytest.approx(one.ratio, rel=0.02)


def test_launches_that_differ_without_a_change_in_time_do_not_drift() -> None:
    random = np.random.default_rng(0)
    found = drift([random.normal(around, 0.2, 90).tolist() for around in (20, 22, 24, 26, 28)])
    assert found is not None and not found.flagged and found.ratio == pytest.approx(1, rel=0.01)
    odd = drift([*[[20.0] * 30] * 4, np.linspace(20, 30, 30).tolist()])
    assert odd is not None and not odd.flagged, "one launch of five does not speak for them"


@few
@given(launches, st.lists(st.floats(0, 100), min_size=1, max_size=3))
def test_percentiles_of_one_call_share_their_resamples(series: list[list[float]], percents: list[float]) -> None:
    together = percentile_intervals(series, percents)
    assert together == tuple(percentile_intervals(series, [percent])[0] for percent in percents)
    assert median_interval(series) == percentile_intervals(series, (50,))[0]
    pooled = [value for launch in series for value in launch]
    for percent, estimate in zip(percents, together, strict=True):
        assert estimate.value == pytest.approx(np.percentile(pooled, percent))
        if estimate.low is not None and estimate.high is not None:
            assert min(pooled) <= estimate.low <= estimate.value <= estimate.high <= max(pooled)


def test_the_interval_of_a_percentile_is_that_of_resamples_done_by_hand() -> None:
    """The same bootstrap in plain Python, with other random numbers: both ends agree within its own noise."""
    generator = random.Random(5)
    series = [[centre + generator.gauss(0, 2) for _ in range(40)] for centre in (28, 30, 31, 33)]
    drawn = []
    for _ in range(4000):
        pooled = sorted(
            value for launch in generator.choices(series, k=len(series)) for value in generator.choices(launch, k=40)
        )
        place = 0.9 * (len(pooled) - 1)
        below = math.floor(place)
        drawn.append(pooled[below] + (place - below) * (pooled[below + 1] - pooled[below]))
    drawn.sort()
    (estimate,) = percentile_intervals(series, (90,))
    assert estimate.low == pytest.approx(drawn[100], abs=0.35)
    assert estimate.high == pytest.approx(drawn[3900], abs=0.35)


def test_about_95_of_100_intervals_hold_the_truth_when_launches_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 100)
    generator = np.random.default_rng(1)
    truth = float(stats.norm.ppf(0.9, 100, math.hypot(4, 1)))
    held = 0
    for _ in range(60):
        series = [generator.normal(centre, 1, 10).tolist() for centre in generator.normal(100, 4, 25)]
        (estimate,) = percentile_intervals(series, (90,))
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= truth <= estimate.high
    assert 50 <= held <= 60


@few
@given(st.lists(times, min_size=1, max_size=8))
def test_one_value_a_launch_has_an_interval_over_launches(values: list[float]) -> None:
    estimate = launch_interval(values)
    assert estimate.value == pytest.approx(np.median(values))
    assert (estimate.low is None) == (len(values) == 1)
    if estimate.low is not None and estimate.high is not None:
        assert min(values) <= estimate.low <= estimate.value <= estimate.high <= max(values)


@few
@given(launches, st.floats(0.1, 10))
def test_the_ratio_of_two_runs_finds_the_factor_and_its_reciprocal(series: list[list[float]], factor: float) -> None:
    scaled = [[factor * value for value in launch] for launch in series]
    there, back = ratio_between(scaled, series), ratio_between(series, scaled)
    assert there.value == pytest.approx(factor) and back.value == pytest.approx(1 / factor)
    assert (there.low is None) == (len(series) == 1)
    if there.low is not None and there.high is not None:
        assert there.low <= there.value <= there.high


def test_the_ratio_of_two_runs_does_not_pair_their_launches() -> None:
    slow_machine = [[100.0, 101.0], [200.0, 202.0], [400.0, 404.0]]
    half = [[value / 2 for value in launch] for launch in slow_machine]
    apart, by_round = ratio_between(slow_machine, half), ratio(*(dict(enumerate(s)) for s in (slow_machine, half)))
    assert apart.low is not None and apart.high is not None and apart.high / apart.low > 3
    assert by_round is not None and by_round.low == pytest.approx(2, rel=0.01) == by_round.high


numbers = st.lists(st.integers(0, 12).map(float), min_size=1, max_size=25)


@given(numbers, numbers)
def test_dominance_is_the_share_of_pairs_that_it_wins_less_those_that_it_loses(
    a: list[float], b: list[float]
) -> None:
    pairs = [(x > y) - (x < y) for x in a for y in b]
    assert dominance(a, b) == pytest.approx(sum(pairs) / len(pairs))
    assert dominance(a, b) == pytest.approx(-dominance(b, a))


@given(numbers, numbers)
def test_the_rank_sum_test_is_scipys(a: list[float], b: list[float]) -> None:
    ours = _rank_sum_p([(np.array(a), np.array(b))])
    if len(set(a + b)) == 1:
        assert ours == 1
        return
    theirs = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic", alternative="two-sided").pvalue
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-300)


def test_the_rank_sum_test_needs_no_table_of_all_pairs() -> None:
    """A table of these would take 320 GB."""
    generator = np.random.default_rng(2)
    first, last = generator.normal(100, 5, 200_000), generator.normal(100.2, 5, 200_000)
    assert _rank_sum_p([(first, last)]) < 1e-6
    assert _rank_sum_p([(first, first)]) == 1


def test_an_estimate_is_written_with_its_interval() -> None:
    assert f"{Estimate(26.877, 26.551, 27.2247):.2f}" == "26.88 [26.55, 27.22]"
    assert f"{Estimate(26.877):.1f}" == "26.9"
