"""The charts of the report, from figures to SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from edgesam_mobile.lab.page.svg import Axis, Plot, bar
from edgesam_mobile.lab.statistics import Estimate
from edgesam_mobile.lab.summary import CaseSummary, run_name
from edgesam_mobile.lab.verdict import Spent

_SHARES = Axis("share of frames", 0, 1, tuple((n / 4, f"{n * 25}%") for n in range(5)))
_POINTS = 2.0  # mIoU points that an axis spans at least
_SHOWN = 99.5  # percent of a launch's frames; one straggler must not press the rest together


def distribution(figures: CaseSummary, limit_ms: float | None) -> Markup | None:
    """Share of frames done within a time, a line a launch; ``None`` if nothing was timed.

    Args:
        limit_ms: a target's, if it applies to this device.
    """
    launches = [np.percentile(launch.times("frame"), np.linspace(0, 100, 101)) for launch in figures.counted]
    frame = figures.frame
    if frame is None:
        return None
    pooled = [time for launch in figures.counted for time in launch.times("frame")]
    shown = [frame.summary.min, float(np.percentile(pooled, _SHOWN))]
    if limit_ms is not None and limit_ms < 2 * shown[1]:
        shown.append(limit_ms)
    plot = Plot(
        f"Distribution of the frame's time of {figures.label} on {figures.where}: p50 {frame.p50.value:.2f} ms, "
        f"p90 {frame.p90.value:.2f} ms",
        Axis.over("ms a frame", shown),
        _SHARES,
    )
    for launch, times in zip(figures.counted, launches, strict=True):
        points = [(float(time), n / 100) for n, time in enumerate(times)]
        plot.curve(points, "line", f"launch {launch.index + 1}: median {times[50]:.2f} ms")
    if limit_ms is not None:
        plot.limit(limit_ms, f"{limit_ms:g} ms")
    for share, estimate in ((0.5, frame.p50), (0.9, frame.p90)):
        plot.dot((estimate.value, share), "dot", f"p{share * 100:.0f} {_with_interval(estimate)} ms")
    return plot.markup()


def sustained(figures: CaseSummary) -> Markup | None:
    """Frames a second over time, a line a launch, below a row for each launch's thermal state."""
    curves = [curve for curve in figures.curve if curve]
    if not curves:
        return None
    width = min((b.start - a.start for curve in curves for a, b in pairwise(curve)), default=1.0)
    ends = [window.start + width for curve in curves for window in curve]
    plot = Plot(
        f"Frames a second over time of {figures.label} on {figures.where}",
        Axis.over("seconds since the launch's first frame", [0.0, *ends], zero=True),
        Axis.over("FPS", [window.fps for curve in curves for window in curve], zero=True),
        strips=len(curves),
    )
    for row, curve in enumerate(curves):
        state = "unknown"
        for window in curve:
            # Told every few seconds only; it holds until the next one.
            state = window.thermal or state
            tip = f"launch {row + 1}, from {window.start:.0f} s: {state}, {window.fps:.1f} FPS"
            plot.strip(row, window.start, window.start + width, f"thermal-{state}", tip)
        points = [(window.start + width / 2, window.fps) for window in curve]
        if len(points) > 1:
            plot.curve(points, "line", f"launch {row + 1}")
        else:
            plot.dot(points[0], "dot small", f"launch {row + 1}: {points[0][1]:.1f} FPS")
    return plot.markup()


def accuracy(prompt: str, cases: Sequence[tuple[str, CaseSummary]]) -> Markup:
    """mIoU against the median frame of at least one case that has both, each under its mark."""
    points = [(mark, each, each.frame.p50, each.case.accuracy[prompt]) for mark, each in cases if each.frame]
    plot = Plot(
        f"Mean IoU from prompt {prompt} against the median frame's time",
        Axis.over("median frame, ms", [p50.value for _, _, p50, _ in points], zero=True),
        Axis.over(f"mIoU, {prompt}, %", _apart([miou for *_, miou in points], _POINTS)),
        height=260,
    )
    for mark, each, p50, miou in points:
        tip = f"{each.label} on {each.where}: {p50.value:.2f} ms, mIoU {miou:.2f} %"
        plot.dot((p50.value, miou), "disc", tip, mark=mark)
    return plot.markup()


def over_runs(history: Sequence[CaseSummary], here: frozenset[str]) -> Markup:
    """Median frame of one case in at least one run, the oldest first, with intervals.

    Args:
        here: ids of the report's own runs, which stand out.
    """
    found = [(each, each.frame.p50) for each in history if each.frame]
    ends = [value for _, p50 in found for value in (p50.low, p50.value, p50.high) if value is not None]
    last = len(found) - 1
    ticks = {number: found[number][0] for number in dict.fromkeys((0, last))}
    plot = Plot(
        f"Median frame of {found[0][0].label} on {found[0][0].where} over {len(found)} runs",
        Axis("run", -0.7, last + 0.7, tuple((n, run_name(each.run)[:16]) for n, each in ticks.items())),
        Axis.over("median frame, ms", _apart(ends, 0.2 * found[-1][1].value)),
    )
    plot.curve([(n, p50.value) for n, (_, p50) in enumerate(found)], "line")
    for number, (each, p50) in enumerate(found):
        if p50.low is not None and p50.high is not None:
            plot.whisker(number, p50.low, p50.high, "whisker")
        tip = f"{run_name(each.run)}, {each.run.created[:10]}: {_with_interval(p50)} ms"
        plot.dot((number, p50.value), "dot" if each.run.id in here else "dot old", tip)
    return plot.markup()


def stages(spent: Sequence[Spent], whole_ms: float) -> Markup:
    """Where a frame's time goes, beside others on the same scale."""
    return bar(
        [(f"stage-{part.stage}", part.ms, f"{part.stage} {part.ms:.2f} ms, {part.share:.0%}") for part in spent],
        whole_ms,
    )


def _apart(values: Sequence[float], least: float) -> list[float]:
    """Values with ends for an axis that spans at least so much: a hair's difference must not look like a cliff."""
    middle = (min(values) + max(values)) / 2
    return [*values, middle - least / 2, middle + least / 2]


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
