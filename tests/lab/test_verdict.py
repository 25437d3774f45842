"""Pass, missed or inconclusive: each way there, each reason, and what must never turn one into another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import COREML, HOST, IPHONE, PHONE, frames, harness, launch, launches_around, run, times

from edgesam_mobile.lab import statistics
from edgesam_mobile.lab.records import DeviceRecord, LaunchRecord, RunRecord, StateRecord
from edgesam_mobile.lab.statistics import percentile_intervals
from edgesam_mobile.lab.summary import summarise
from edgesam_mobile.lab.targets import Evidence, Target, load_target
from edgesam_mobile.lab.verdict import Verdict, judge, overall, time_spent

TARGET = load_target("iphone14-30fps")
EASY = dataclasses.replace(TARGET, evidence=Evidence(frames=1, launches=2))
few = settings(max_examples=15)  # each draws thousands of resamples


@pytest.fixture(scope="module", autouse=True)
def quick_intervals() -> Iterator[None]:
    """What is checked here holds for any number of resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        yield


def verdict(record: RunRecord | Sequence[LaunchRecord], target: Target = TARGET) -> Verdict:
    (figures,) = summarise([record if isinstance(record, RunRecord) else run(record)])
    return judge(figures, target)


def flawed(**changes: Any) -> list[LaunchRecord]:
    """Launches fast enough to pass, with the same changes to each."""
    return launches_around(25, **changes)


def stated(**told: Any) -> tuple[StateRecord, ...]:
    return (StateRecord(0, 0, {"thermal": "nominal", "low_power": False} | told),)


def test_fast_enough_with_all_evidence_passes() -> None:
    found = verdict(launches_around(25))
    assert (found.outcome, found.word, found.reasons, found.spent) == ("pass", "pass", (), ())
    assert found.p90 is not None and found.p90.high is not None and found.p90.high <= 33.3


def test_too_slow_with_all_evidence_is_missed_and_says_where_the_time_goes() -> None:
    found = verdict(launches_around(36))
    assert (found.outcome, found.reasons) == ("missed", ())
    assert [part.stage for part in found.spent] == ["pre", "encode", "decode", "post", "other"]
    assert sum(part.share for part in found.spent) == pytest.approx(1)
    assert "encode takes" in found.spent[1].text and "alone it would have to shrink by" in found.spent[1].text
    assert found.spent[0].text.endswith("without it the target would still be missed")
    assert found.spent[-1].text.endswith("2% of the frame")


def test_a_limit_inside_the_interval_is_neither() -> None:
    found = verdict([launch(times(around, seed=i), i) for i, around in enumerate((24, 26, 28, 30, 34))])
    assert found.outcome == found.word == "inconclusive"
    assert len(found.reasons) == 1 and "the limit of 33.3 ms lies within the interval" in found.reasons[0]


@pytest.mark.parametrize(("ms", "outcome"), [(33.3, "pass"), (33.300001, "missed")])
def test_exactly_the_limit_is_within_it(ms: float, outcome: str) -> None:
    assert verdict([launch([ms] * 20, i) for i in range(5)]).outcome == outcome


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (flawed()[:4], "4 launches measured, 5 needed"),
        ([launch([25.0] * 19, i) for i in range(5)], "95 frames measured, 100 needed"),
        (run(flawed(), trained=False), "the weights are untrained: their masks mean nothing"),
        (flawed(states=stated(thermal="serious")), "the device was too hot: serious, at most fair allowed"),
        (flawed(states=stated(thermal=None)), "5 of 5 launches told no thermal state"),
        (flawed(states=()), "5 of 5 launches told no thermal state"),
        (flawed(hello=harness(build="debug")), "no release build of the harness: debug"),
        (flawed(hello={}), "no release build of the harness: unknown"),
        (flawed(hello=harness(debugger=True)), "5 of 5 launches under a debugger, or it was not told"),
        (flawed(hello=harness(debugger=None)), "5 of 5 launches under a debugger, or it was not told"),
        (flawed(states=stated(low_power=True)), "5 of 5 launches in low-power mode, or it was not told"),
        (flawed(states=stated(low_power=None)), "5 of 5 launches in low-power mode, or it was not told"),
        (
            flawed(result={"requested": "all", "applied": "all", "warm_up": {"rounds": 50, "stable": False}}),
            "5 of 5 launches measured before the warm-up was stable",
        ),
        (flawed(result=None), "5 of 5 launches measured before the warm-up was stable"),
        (
            flawed(result={"requested": "all", "applied": "cpuOnly", "warm_up": {"stable": True}}),
            "asked for delegate all, ran on cpuOnly",
        ),
        (flawed(check={"passed": False, "masks": [{"iou": 0.99}]}), "the masks are wrong: a check failed"),
        (flawed(check=None), "the masks were not checked in every launch"),
        (flawed(check={"passed": True, "masks": []}), "no mask's agreement with PyTorch was told"),
        (
            flawed(check={"passed": True, "masks": [{"iou": 0.999}, {"iou": 0.9499}]}),
            "a mask agrees with PyTorch by 0.9499 only, 0.95 needed",
        ),
        (
            [*flawed(), launch([25.0], 5, status="failed", error="load-failed: no memory")],
            "1 of 6 launches failed: load-failed: no memory",
        ),
        ([*flawed(), launch(times(25), 5, status="truncated")], "1 of 6 launches cut off"),
        ([*flawed(), launch(times(25), 5, status="cancelled")], "1 of 6 launches cancelled"),
        ([*flawed(), launch([25.0, 0.0], 5)], "1 of 6 launches told frames that took no time"),
    ],
)
def test_each_flaw_alone_makes_it_inconclusive(record: RunRecord | list[LaunchRecord], reason: str) -> None:
    found = verdict(record)
    assert found.outcome == "inconclusive" and not found.refused
    assert reason in found.reasons


@pytest.mark.parametrize(
    ("needed", "applied", "reason"),
    [
        ("told", None, "asked for delegate all, ran on one that it does not tell"),
        ("asked", None, None),
        ("asked", "cpuOnly", "asked for delegate all, ran on cpuOnly"),
    ],
)
def test_a_target_may_trust_a_runtime_that_does_not_tell_its_delegate_but_none_that_tells_another(
    needed: Literal["told", "asked"], applied: str | None, reason: str | None
) -> None:
    target = dataclasses.replace(TARGET, evidence=Evidence(delegate=needed))
    found = verdict(flawed(result={"requested": "all", "applied": applied, "warm_up": {"stable": True}}), target)
    assert (found.outcome, found.reasons) == (("inconclusive", (reason,)) if reason else ("pass", ()))


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"accuracy": {"box": 63.4}, "reference": {"box": 64.33}}, None),
        (
            {"accuracy": {"box": 63.2}, "reference": {"box": 64.33}},
            "the masks lose 1.13 points of mIoU (box) against PyTorch, at most 1 allowed",
        ),
        (
            {"accuracy": {}, "reference": {}},
            "no measured mIoU of its int8 masks: `edgesam-mobile eval DIR --record`, then measure",
        ),
    ],
)
def test_a_compressed_artefact_is_judged_by_what_it_loses_on_many_objects(
    measured: dict[str, Any], reason: str | None
) -> None:
    case = dataclasses.replace(COREML, precision="int8", **measured)
    found = verdict(flawed(case=case, check={"passed": True, "masks": [{"iou": 0.8}]}))
    assert (found.outcome, found.reasons) == (("inconclusive", (reason,)) if reason else ("pass", ()))


@pytest.mark.parametrize("change", [{"thermal": "fair"}, {"thermal": "nominal"}])
def test_fair_heat_is_allowed(change: dict[str, Any]) -> None:
    assert verdict(flawed(states=stated(**change))).outcome == "pass"


def test_one_flawed_launch_of_five_is_enough_and_is_counted() -> None:
    found = verdict([*flawed()[:4], launch(times(25), 4, hello=harness(build="debug", debugger=True))])
    assert found.reasons == (
        "no release build of the harness: debug",
        "1 of 5 launches under a debugger, or it was not told",
    )


def test_every_reason_is_listed_not_only_the_first() -> None:
    found = verdict(run(flawed(states=(), hello={}, check=None)[:2], trained=False))
    assert len(found.reasons) == 7
    assert len(set(found.reasons)) == len(found.reasons)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (HOST, "a host says nothing about it"),
        (dataclasses.replace(IPHONE, kind="simulated"), "a simulated device says nothing about it"),
        (dataclasses.replace(IPHONE, kind="emulator"), "an emulator says nothing about it"),
        (PHONE, "another kind of device (android) says nothing about it"),
        (dataclasses.replace(IPHONE, info={"model": "iPhone15,2"}), "this is iPhone15,2"),
        (dataclasses.replace(IPHONE, info={}), "this device did not say what model it is"),
    ],
)
@pytest.mark.parametrize("ms", [10, 100])
def test_another_device_is_refused_whatever_its_numbers(device: DeviceRecord, why: str, ms: float) -> None:
    found = verdict(launches_around(ms, device=device))
    assert (found.outcome, found.refused, found.word) == ("inconclusive", True, "not compared")
    assert found.reasons[0].startswith("not compared: the target is for iPhone 14 ")
    assert found.reasons[0].endswith(why)
    assert found.p90 is not None, "its numbers are shown all the same"
    assert found.spent == ()


def test_the_plus_is_an_iphone_14_too() -> None:
    plus = dataclasses.replace(IPHONE, info={"model": "iPhone14,8"})
    assert verdict(launches_around(25, device=plus)).outcome == "pass"


def test_nothing_measured_is_inconclusive() -> None:
    found = verdict([launch([], i, status="failed") for i in range(5)])
    assert (found.outcome, found.p90) == ("inconclusive", None)
    assert "0 frames measured, 100 needed" in found.reasons


@pytest.mark.parametrize(
    ("groups", "together"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["pass", "missed", "inconclusive"], "missed"),
        ([], "inconclusive"),
    ],
)
def test_the_worst_of_several_decides(groups: list[str], together: str) -> None:
    whole = verdict(launches_around(25))
    assert overall([dataclasses.replace(whole, outcome=outcome) for outcome in groups]) == together  # type: ignore[arg-type]


positive = st.floats(5, 80)
launch_times = st.lists(st.lists(positive, min_size=3, max_size=12), min_size=2, max_size=5)


@few
@given(launch_times, st.lists(st.floats(0, 50), min_size=1, max_size=20), st.data())
def test_more_slow_frames_never_turn_missed_into_pass(
    series: list[list[float]], extra: list[float], data: st.DataObject
) -> None:
    before = verdict([launch(ms, i) for i, ms in enumerate(series)], EASY)
    which = data.draw(st.integers(0, len(series) - 1))
    slowest = max(max(ms) for ms in series)
    more = [ms + [slowest + e for e in extra] if i == which else ms for i, ms in enumerate(series)]
    after = verdict([launch(ms, i) for i, ms in enumerate(more)], EASY)
    assert before.p90 is not None and after.p90 is not None
    assert after.p90.value >= before.p90.value
    assert (before.outcome, after.outcome) != ("missed", "pass")


@few
@given(launch_times, st.floats(1, 3))
def test_the_same_frames_slowed_down_are_judged_no_better(series: list[list[float]], factor: float) -> None:
    order = ("pass", "inconclusive", "missed")
    before = verdict([launch(ms, i) for i, ms in enumerate(series)], EASY).outcome
    after = verdict([launch([factor * t for t in ms], i) for i, ms in enumerate(series)], EASY).outcome
    assert order.index(after) >= order.index(before)


@few
@given(launch_times)
def test_the_outcome_is_what_the_interval_says(series: list[list[float]]) -> None:
    rounded = [[round(t * 1e6) / 1e6 for t in ms] for ms in series]
    (expected,) = percentile_intervals(rounded, (90,))
    found = verdict([launch(ms, i) for i, ms in enumerate(rounded)], EASY)
    assert found.p90 == expected and expected.low is not None and expected.high is not None
    says = "pass" if expected.high <= 33.3 else "missed" if expected.low > 33.3 else "inconclusive"
    assert found.outcome == says


@given(
    st.lists(st.tuples(st.floats(1, 60), st.floats(0.05, 0.6)), min_size=5, max_size=30),
    st.floats(5, 60),
)
def test_a_stage_shrunk_as_told_meets_the_limit_and_a_little_less_does_not(
    drawn: list[tuple[float, float]], limit: float
) -> None:
    samples = []
    for number, (ms, encode) in enumerate(drawn):
        alone = frames([ms], {"encode": encode})
        samples += [dataclasses.replace(s, round=number) for s in alone if s.stage in ("encode", "frame")]
    (figures,) = summarise([run([launch([], samples=tuple(samples))])])
    encode_ms, frame_ms = (np.asarray(figures.counted[0].times(stage)) for stage in ("encode", "frame"))
    part, *rest = time_spent(figures, limit)
    assert (part.stage, [other.stage for other in rest]) == ("encode", ["other"])
    assert part.ms == pytest.approx(encode_ms.mean())
    assert part.share + rest[0].share == pytest.approx(1)

    def p90(share: float) -> float:
        return float(np.percentile(frame_ms - share * encode_ms, 90))

    if part.shrink is None:
        assert p90(1) > limit
    else:
        assert p90(part.shrink) <= limit + 1e-9
        assert part.shrink == 0 or p90(part.shrink - 1e-6) > limit


def test_time_spent_needs_parts() -> None:
    bare = tuple(s for s in launch([30.0]).samples if s.stage == "frame")
    (figures,) = summarise([run([launch([], samples=bare)])])
    assert time_spent(figures) == ()
    (empty,) = summarise([run([launch([], status="failed")])])
    assert time_spent(empty) == ()
    assert all(part.shrink is None for part in time_spent(summarise([run([launch([30.0])])])[0]))


def test_parts_that_add_up_to_a_hair_more_than_the_frame_leave_nothing_over() -> None:
    (figures,) = summarise([run([launch([], samples=tuple(frames([30.0] * 3, {"encode": 0.7, "decode": 0.3001})))])])
    assert [part.stage for part in time_spent(figures)] == ["encode", "decode"]


def test_a_verdict_repeats() -> None:
    assert verdict(launches_around(32.5)) == verdict(launches_around(32.5))
