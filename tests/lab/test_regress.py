"""Slower, faster, no difference shown, cannot tell: two runs, or two cases of one, held against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import HOST, IPHONE, PHONE, TFLITE, launch, launches_around, run, times

from edgesam_mobile.lab import statistics
from edgesam_mobile.lab.records import LaunchRecord, LaunchStatus, StateRecord
from edgesam_mobile.lab.regress import Comparison, compare, same_cases
from edgesam_mobile.lab.summary import CaseSummary, summarise

THEN = "0" * 32


@pytest.fixture(scope="module", autouse=True)
def quick_intervals() -> Iterator[None]:
    """What is checked here holds for any number of resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        yield


def figures(launches: Sequence[LaunchRecord], **changes: Any) -> CaseSummary:
    (found,) = summarise([run(launches, **changes)])
    return found


def between(now: Sequence[LaunchRecord], then: Sequence[LaunchRecord], **options: float) -> Comparison:
    """Of two runs."""
    return compare(figures(now), figures(then, id=THEN), **options)


def without_kernel(launches: Sequence[LaunchRecord]) -> list[LaunchRecord]:
    return [dataclasses.replace(at, samples=tuple(s for s in at.samples if s.stage != "kernel")) for at in launches]


def kernel_times(launches: Sequence[LaunchRecord], factor: float) -> list[LaunchRecord]:
    """The same launches, their reference kernel that many times as long."""
    return [
        dataclasses.replace(
            at,
            samples=tuple(
                dataclasses.replace(s, ns=round(s.ns * factor)) if s.stage == "kernel" else s for s in at.samples
            ),
        )
        for at in launches
    ]


@pytest.mark.parametrize(
    ("now", "change"), [(36, "slower"), (30, "no difference shown"), (25, "faster"), (30.3, "no difference shown")]
)
@pytest.mark.parametrize("kernel", [True, False])
def test_a_run_is_told_from_an_earlier_one(now: float, change: str, kernel: bool) -> None:
    new, old = launches_around(now), launches_around(30, seed=20)
    found = between(new, old) if kernel else between(without_kernel(new), without_kernel(old))
    assert (found.change, found.reasons, found.paired) == (change, (), False)
    assert found.ratio is not None and found.ratio.value == pytest.approx(now / 30, rel=0.02)
    assert (found.kernel is not None, found.raw is not None) == (kernel, kernel)
    assert found.effect is not None and (found.effect > 0.5) == (change == "slower")


def test_a_day_on_which_the_whole_device_was_slower_is_taken_out() -> None:
    then, now = launches_around(30, seed=20), kernel_times(launches_around(36), 1.2)
    found = between(now, then)
    assert found.change == "no difference shown"
    assert found.kernel == pytest.approx(1.2, rel=1e-6)
    assert found.raw is not None and found.raw.value == pytest.approx(1.2, rel=0.02)
    assert between(without_kernel(now), without_kernel(then)).change == "slower"
    assert between(now, without_kernel(then)).raw is None, "both must have it"


@pytest.mark.parametrize(("tolerance", "change"), [(0.05, "slower"), (0.30, "no difference shown")])
def test_the_tolerance_decides_what_matters(tolerance: float, change: str) -> None:
    assert between(launches_around(33), launches_around(30, seed=20), tolerance=tolerance).change == change


def test_a_difference_that_is_shown_but_may_not_matter_cannot_be_told() -> None:
    spread = (30, 30, 31, 32, 33)
    found = between([launch(times(ms, seed=i), i) for i, ms in enumerate(spread)], launches_around(30, seed=20))
    assert found.change == "cannot tell"
    assert len(found.reasons) == 1 and "measure more launches" in found.reasons[0]


def test_cases_of_one_run_are_compared_round_by_round() -> None:
    machine = (1.0, 2.0, 4.0, 1.5, 3.0)  # the machine's mood in each round
    first = [launch([30 * mood] * 9, i) for i, mood in enumerate(machine)]
    second = [launch([33 * mood] * 9, i, case=TFLITE) for i, mood in enumerate(machine)]
    old, new = summarise([run([*first, *second])])
    found = compare(new, old)
    assert (found.change, found.paired, found.raw) == ("slower", True, None)
    assert found.ratio is not None and found.ratio.low == pytest.approx(1.1) == found.ratio.high
    apart = compare(figures(second), figures(first, id=THEN))
    assert apart.change == "cannot tell", "the same launches of two runs have no rounds in common"


def test_cases_of_one_run_without_a_common_round_are_compared_as_of_two() -> None:
    old, new = summarise(
        [run([launch([30.0] * 9, i) for i in range(3)] + [launch([30.0] * 9, 5 + i, case=TFLITE) for i in range(3)])]
    )
    found = compare(new, old)
    assert (found.paired, found.change) == (False, "no difference shown")


@pytest.mark.parametrize(
    ("now", "then", "reason"),
    [
        (launches_around(30)[:2], launches_around(30), "2 launches now, 3 needed"),
        (launches_around(30), launches_around(30)[:1], "1 launch then, 3 needed"),
        (launches_around(30), [launch([], status="failed")], "no complete launch in one of them"),
        (launches_around(30), launches_around(30, status="truncated"), "no complete launch in one of them"),
        (
            launches_around(30, states=(StateRecord(0, 0, {"thermal": "critical"}),)),
            launches_around(30),
            "the device was too hot now: critical",
        ),
        (
            launches_around(30, device=HOST),
            launches_around(30, device=dataclasses.replace(HOST, info={"model": "Another CPU"})),
            "another device: Some CPU now, Another CPU then",
        ),
    ],
)
def test_what_cannot_be_told_says_why(now: list[LaunchRecord], then: list[LaunchRecord], reason: str) -> None:
    found = between(now, then)
    assert found.change == "cannot tell"
    assert reason in found.reasons


def test_one_launch_gives_a_ratio_without_interval() -> None:
    found = between(launches_around(30)[:1], launches_around(15))
    assert found.ratio is not None and found.ratio.value == pytest.approx(2, rel=0.05) and found.ratio.low is None
    assert "one launch cannot tell how launches differ: no interval" in found.reasons


def test_only_the_same_case_on_the_same_device_is_matched() -> None:
    one_thread = dataclasses.replace(TFLITE, threads=1)
    new = summarise([run([launch([1.0]), launch([1.0], case=TFLITE), launch([1.0], device=PHONE)])])
    old = summarise(
        [run([launch([1.0], case=one_thread), launch([1.0]), launch([1.0], case=TFLITE, device=PHONE)], id=THEN)]
    )
    assert [(now.label, then.label, now.device.key) for now, then in same_cases(new, old)] == [
        ("coreml-fp16, all", "coreml-fp16, all", IPHONE.key)
    ]


def test_another_model_is_another_case() -> None:
    new, old = summarise([run([launch([1.0])])]), summarise([run([launch([1.0])], id=THEN, model="mobile-sam")])
    assert same_cases(new, old) == []
    assert len(same_cases(new, summarise([run([launch([1.0])], id=THEN)]))) == 1


@pytest.mark.parametrize("status", ["truncated", "cancelled"])
def test_launches_that_did_not_end_by_themselves_are_left_out(status: LaunchStatus) -> None:
    cut = [launch(times(90, seed=i), 5 + i, status=status) for i in range(5)]
    found = between([*launches_around(30), *cut], launches_around(30, seed=20))
    assert (found.change, found.reasons) == ("no difference shown", ())
    assert len(found.new.counted) == 5 and len(found.new.launches) == 10
    assert found.new.frame is not None and found.new.frame.p50.value < 40, "the median shown is of the same launches"


series = st.lists(st.lists(st.floats(1, 100), min_size=2, max_size=8), min_size=3, max_size=5)


@settings(max_examples=8)
@given(series, series)
def test_swapping_the_runs_gives_the_reciprocal_and_the_opposite(
    now: list[list[float]], then: list[list[float]]
) -> None:
    there, back = (
        between([launch(ms, i) for i, ms in enumerate(a)], [launch(ms, i) for i, ms in enumerate(b)])
        for a, b in ((now, then), (then, now))
    )
    assert there.ratio is not None and back.ratio is not None and there.effect is not None
    assert there.ratio.value * back.ratio.value == pytest.approx(1)
    assert there.effect == pytest.approx(-(back.effect or 0))
    # Resamples differ, so that one side may see what the other just does not; never the contrary.
    assert {there.change, back.change} not in ({"slower"}, {"faster"})


@settings(max_examples=8)
@given(series, st.floats(1, 3))
def test_slower_frames_never_look_faster(base: list[list[float]], factor: float) -> None:
    then = [launch(ms, i) for i, ms in enumerate(base)]
    same, slower = (between([launch([f * t for t in ms], i) for i, ms in enumerate(base)], then) for f in (1, factor))
    assert same.ratio is not None and same.ratio.value == pytest.approx(1)
    assert same.change in ("no difference shown", "cannot tell") and slower.change != "faster"
    assert same.effect is not None and slower.effect is not None and slower.effect >= same.effect - 1e-9
