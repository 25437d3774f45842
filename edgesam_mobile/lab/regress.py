"""Whether a case became slower since another run: how many times as long its frame takes, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.statistics import EFFECT, Estimate, dominance, ratio, ratio_between
from edgesam_mobile.lab.summary import THERMAL, CaseSummary, case_key, complete_only

Change = Literal["slower", "faster", "no difference shown", "cannot tell"]

LEAST_LAUNCHES = 3  # of two, resamples show nothing but the two


@dataclass(frozen=True)
class Comparison:
    """A case now against then.

    Attributes:
        ratio: of median frames, now over then: 1.1 is a tenth slower. ``None`` if one of them timed nothing.
        raw: the same without the reference kernel, where ``ratio`` is normalised by it; ``None`` elsewhere.
        kernel: the reference kernel's time now over then, where both have one.
        effect: Cliff's delta of the samples compared, -1 (every frame is faster now) to 1.
        paired: the launches took turns in one run, and were compared round by round.
        reasons: why it cannot be told; empty otherwise.
    """

    new: CaseSummary
    old: CaseSummary
    ratio: Estimate | None
    raw: Estimate | None
    kernel: float | None
    effect: float | None
    paired: bool
    change: Change
    reasons: tuple[str, ...]


def same_cases(new: Sequence[CaseSummary], old: Sequence[CaseSummary]) -> list[tuple[CaseSummary, CaseSummary]]:
    """Cases that both have of the same model on the same device, with the same delegate and threads."""
    before = {(s.run.model, s.device.key, *case_key(s.case)): s for s in old}
    keys = [(s.run.model, s.device.key, *case_key(s.case)) for s in new]
    return [(now, before[key]) for now, key in zip(new, keys, strict=True) if key in before]


def compare(new: CaseSummary, old: CaseSummary, *, tolerance: float = EFFECT) -> Comparison:
    """Hold a case against an earlier one.

    It is slower if the ratio is beyond ``1 + tolerance`` and its interval beyond 1, faster likewise on the other
    side; no difference is shown if the whole interval lies within the tolerance. Anything else cannot be told.

    Launches of one run took turns, so that each round gives a ratio. Those of two runs did not: there both sides
    are resampled on their own, and each launch is measured in its reference kernel's time where all launches have
    one, which takes out a device that as a whole was slower that day.

    Launches that were cut off or cancelled are left out: they may hold the cool beginning only.

    Args:
        tolerance: 0.05 is 5 %; positive.
    """
    new, old = complete_only(new), complete_only(old)
    now, then = new.counted, old.counted
    if not now or not then:
        return Comparison(
            new, old, None, None, None, None, False, "cannot tell", ("no complete launch in one of them",)
        )
    paired = new.run.id == old.run.id
    raw, estimate = None, _paired(now, then) if paired else None
    kernel = median(_kernels(now)) / median(_kernels(then)) if _has_kernels([*now, *then]) else None
    above, below = _frames(now), _frames(then)
    if estimate is None:
        paired = False
        estimate = ratio_between(above, below)
        if kernel is not None:
            raw, above, below = estimate, _in_kernels(now), _in_kernels(then)
            estimate = ratio_between(above, below)
    change, undecided = _decide(estimate, tolerance)
    reasons = [*_doubts(new, old), *undecided]
    return Comparison(
        new=new,
        old=old,
        ratio=estimate,
        raw=raw,
        kernel=kernel,
        effect=dominance([t for times in above for t in times], [t for times in below for t in times]),
        paired=paired,
        change="cannot tell" if reasons else change,
        reasons=tuple(reasons),
    )


def _decide(estimate: Estimate, tolerance: float) -> tuple[Change, list[str]]:
    value, low, high = estimate.value, estimate.low, estimate.high
    if low is None or high is None:
        return "cannot tell", ["one launch cannot tell how launches differ: no interval"]
    if low > 1 and value > 1 + tolerance:
        return "slower", []
    if high < 1 and value < 1 / (1 + tolerance):
        return "faster", []
    if 1 / (1 + tolerance) <= low and high <= 1 + tolerance:
        return "no difference shown", []
    return "cannot tell", [
        f"the interval, {low:.3f} to {high:.3f}, holds both a difference that matters and none: measure more launches"
    ]


def _doubts(new: CaseSummary, old: CaseSummary) -> Iterator[str]:
    for side, figures in (("now", new), ("then", old)):
        count = len(figures.counted)
        if count < LEAST_LAUNCHES:
            yield f"{count} launch{'es' if count > 1 else ''} {side}, {LEAST_LAUNCHES} needed"
        if figures.thermal is not None and THERMAL.index(figures.thermal) > THERMAL.index("fair"):
            yield f"the device was too hot {side}: {figures.thermal}"
    models = [figures.device.info.get("model") for figures in (new, old)]
    if models[0] != models[1]:
        yield f"another device: {models[0]} now, {models[1]} then"


def _paired(now: Sequence[LaunchRecord], then: Sequence[LaunchRecord]) -> Estimate | None:
    return ratio({at.index: at.times("frame") for at in now}, {at.index: at.times("frame") for at in then})


def _frames(launches: Sequence[LaunchRecord]) -> list[list[float]]:
    return [launch.times("frame") for launch in launches]


def _has_kernels(launches: Sequence[LaunchRecord]) -> bool:
    return all(min(launch.times("kernel"), default=0) > 0 for launch in launches)


def _kernels(launches: Sequence[LaunchRecord]) -> list[float]:
    return [median(launch.times("kernel")) for launch in launches]


def _in_kernels(launches: Sequence[LaunchRecord]) -> list[list[float]]:
    """Frames in multiples of their launch's reference kernel."""
    return [
        [time / kernel for time in launch.times("frame")]
        for launch, kernel in zip(launches, _kernels(launches), strict=True)
    ]
