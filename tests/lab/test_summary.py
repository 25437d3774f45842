"""Figures of a case from its launches, on runs made up for it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from made_up import COREML, HOST, IPHONE, TFLITE, frames, launch, launches_around, run, times

from edgesam_mobile.lab.records import SampleRecord, StateRecord
from edgesam_mobile.lab.summary import case_key, paired, run_name, summarise


def test_percentiles_are_those_of_all_frames_and_lie_in_their_intervals() -> None:
    launches = launches_around(30)
    (figures,) = summarise([run(launches)])
    pooled = [time for each in launches for time in each.times("frame")]
    assert figures.frame is not None and figures.frame.summary.count == len(pooled)
    for estimate, percent in ((figures.frame.p50, 50), (figures.frame.p90, 90), (figures.frame.p99, 99)):
        assert estimate.value == pytest.approx(np.percentile(pooled, percent))
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
    assert figures.fps is not None and figures.fps.low is not None
    assert figures.fps.value == pytest.approx(1000 / np.median(pooled))
    assert figures.frame.p50.high is not None
    assert figures.fps.low == pytest.approx(1000 / figures.frame.p50.high), "the longest frame is the least rate"


def test_each_device_case_and_run_stands_for_itself() -> None:
    launches = [
        *launches_around(30, 2),
        *launches_around(60, 2, case=TFLITE),
        *launches_around(60, 2, case=dataclasses.replace(TFLITE, threads=1)),
        *launches_around(90, 2, device=HOST),
    ]
    found = summarise([run(launches), run(launches[:2], id="2" * 32)])
    labels = [(each.run.id[:1], each.device.key, each.label) for each in found]
    assert labels == [
        ("5", IPHONE.key, "coreml-fp16, all"),
        ("5", IPHONE.key, "tflite-fp16, gpu, 4 threads"),
        ("5", IPHONE.key, "tflite-fp16, gpu, 1 thread"),
        ("5", HOST.key, "coreml-fp16, all"),
        ("2", IPHONE.key, "coreml-fp16, all"),
    ]
    assert all(len(each.launches) == 2 for each in found)
    assert case_key(dataclasses.replace(COREML, delegate=None)) == ("coreml-fp16",)


def test_loads_first_frame_and_kernel_stay_apart_from_frames() -> None:
    (figures,) = summarise([run(launches_around(30))])
    assert figures.load_cold is not None and figures.load_cold.value == 900
    assert figures.load_cached is not None and figures.load_cached.value == 90
    assert figures.kernel is not None and figures.kernel.value == 5
    assert figures.first is not None and figures.first.value == pytest.approx(90, rel=0.2)
    assert figures.frame is not None and figures.frame.summary.count == 300


def test_a_first_frame_told_in_parts_is_their_sum() -> None:
    parts = [SampleRecord(i, f"first-{stage}", 0, 10**6 * (i + 1), 0) for i, stage in enumerate(("pre", "encode"))]
    (figures,) = summarise([run([launch([], samples=tuple(parts))])])
    assert figures.first is not None and figures.first.value == 3
    assert figures.frame is None and figures.fps is None and figures.counted == ()


def test_failed_launches_count_neither_their_frames_nor_as_checked() -> None:
    good, bad = launch(times(30), 0), launch(times(300), 1, status="failed", check={"passed": False, "masks": []})
    (figures,) = summarise([run([good, bad])])
    assert figures.counted == (good,)
    assert figures.checked is False
    assert figures.frame is not None and figures.frame.summary.count == 60 and figures.frame.p50.low is None
    (untold,) = summarise([run([good, dataclasses.replace(good, index=1, check=None)])])
    assert untold.checked is None


def test_the_lowest_mask_agreement_of_any_launch_counts() -> None:
    worse = {"passed": True, "masks": [{"iou": 0.99}, {"iou": 0.91}, {"iou": None}, "nonsense"]}
    (figures,) = summarise([run([launch(times(30), 0), launch(times(30), 1, check=worse)])])
    assert figures.mask_iou == 0.91


@pytest.mark.parametrize(
    ("told", "worst"),
    [
        (["nominal", "serious", "fair"], "serious"),
        (["fair", "nominal"], "fair"),
        ([None, "nominal"], "nominal"),
        ([None, "molten", {"a": 1}], None),
    ],
)
def test_the_worst_thermal_state_counts_wherever_it_stands(told: list[object], worst: str | None) -> None:
    states = tuple(StateRecord(i, 10**9 * i, {"thermal": state}) for i, state in enumerate(told))
    (figures,) = summarise([run([launch(times(30), states=states)])])
    assert figures.thermal == worst


def test_the_curve_counts_each_frame_once_and_tells_the_heat_of_its_windows() -> None:
    slow_end = launch([20.0] * 100 + [40.0] * 100)
    begin = min(sample.at_ns - sample.ns for sample in slow_end.samples if sample.stage == "frame")
    hot = StateRecord(5000, begin + 4_500_000_000, {"thermal": "serious"})
    (figures,) = summarise([run([dataclasses.replace(slow_end, states=(hot,))])])
    (curve,) = figures.curve
    assert [window.start for window in curve] == [0, 1, 2, 3, 4, 5, 6]
    assert curve[0].fps == pytest.approx(50) and curve[-1].fps == pytest.approx(25)
    assert [window.thermal for window in curve] == [None] * 4 + ["serious"] + [None] * 2


def test_a_long_launch_has_a_bounded_curve() -> None:
    (figures,) = summarise([run([launch([1000.0] * 400)])])
    assert len(figures.curve[0]) <= 30


def test_parts_are_paired_with_the_frame_of_their_round() -> None:
    samples = [sample for sample in frames([10.0, 20.0]) if (sample.stage, sample.round) != ("encode", 0)]
    found = paired([launch([], samples=tuple(samples))], "encode")
    assert found == [(pytest.approx(12), pytest.approx(20))]


def test_drift_is_found_where_the_device_slows_down() -> None:
    rising = np.linspace(20, 30, 200) + np.random.default_rng(0).normal(0, 0.2, 200)
    (figures,) = summarise([run([launch(rising.tolist())])])
    assert figures.drift is not None and figures.drift.flagged and figures.drift.ratio > 1.2


def test_json_holds_everything_but_the_samples() -> None:
    (figures,) = summarise([run(launches_around(30))])
    record = json.loads(json.dumps(figures.to_json()))
    assert figures.frame is not None and record["frame"]["p90"]["value"] == figures.frame.p90.value
    assert set(record["parts"]) == {"pre", "encode", "decode", "post"}
    assert record["launches"] == {"all": 5, "counted": 5}
    assert "samples" not in json.dumps(record)


def test_runs_are_called_by_their_first_tag_or_the_start_of_their_id() -> None:
    assert run_name(run([])) == "5eed5eed"
    assert run_name(run([], tags=("v1", "v2"))) == "v1"
    assert summarise([run([])]) == []
