"""Whether a case meets a target: pass, missed, or inconclusive with every reason why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgesam_mobile.evaluate.metrics import LEAST_IOU
from edgesam_mobile.lab.records import CaseRecord, LaunchRecord
from edgesam_mobile.lab.statistics import Estimate
from edgesam_mobile.lab.summary import PARTS, THERMAL, CaseSummary, Thermal, paired, thermal_of, told
from edgesam_mobile.lab.targets import Evidence, Target

Outcome = Literal["pass", "missed", "inconclusive"]

_HALVINGS = 40  # of a share between 0 and 1: beyond a nanosecond of any frame


@dataclass(frozen=True)
class Spent:
    """Where a frame's time goes.

    Attributes:
        stage: ``pre``, ``encode``, ``decode``, ``post``, or ``other`` for what lies between them.
        ms: mean over all frames, so that stages add up to the frame.
        share: of the mean frame, 0 to 1.
        shrink: share of this stage's time that would have to go for the p90 to be within the limit, all else
            unchanged; ``None`` if the stage alone cannot do it.
    """

    stage: str
    ms: float
    share: float
    shrink: float | None = None

    @property
    def text(self) -> str:
        """One line for people; for a missed target, says what shrinking this stage alone would do."""
        line = f"{self.stage} takes {self.ms:.2f} ms, {self.share:.0%} of the frame"
        if self.stage == "other":
            return line
        if self.shrink is None:
            return f"{line}; without it the target would still be missed"
        return f"{line}; alone it would have to shrink by {self.shrink:.0%}, to {self.ms * (1 - self.shrink):.2f} ms"


@dataclass(frozen=True)
class Verdict:
    """One case held against a target.

    Attributes:
        p90: of the whole frame in milliseconds; ``None`` if nothing was timed.
        refused: measured on another class or model of device than the target's, so not compared at all.
        reasons: why it is inconclusive; empty otherwise.
        spent: where the time goes, if the target is missed.
    """

    outcome: Outcome
    figures: CaseSummary
    p90: Estimate | None
    refused: bool
    reasons: tuple[str, ...]
    spent: tuple[Spent, ...] = ()

    @property
    def word(self) -> str:
        """The outcome for people, which tells a refusal from a doubt."""
        return "not compared" if self.refused else self.outcome


def judge(figures: CaseSummary, target: Target) -> Verdict:
    """Hold a case against a target.

    The p90's interval decides: all of it within the limit is a pass, all of it beyond is a miss. Anything that
    makes the measurement doubtful makes the verdict inconclusive, whichever way the numbers lean.
    """
    p90 = figures.frame.p90 if figures.frame else None
    other_device = _other_device(figures, target)
    reasons = [*other_device, *doubts(figures, target.evidence)]
    outcome: Outcome = "inconclusive"
    if not reasons and p90 is not None:
        outcome, undecided = _decide(p90, target.p90_ms)
        reasons += undecided
    spent = time_spent(figures, target.p90_ms) if outcome == "missed" else ()
    return Verdict(outcome, figures, p90, bool(other_device), tuple(reasons), spent)


def overall(verdicts: Sequence[Verdict]) -> Outcome:
    """The verdict of several: missed if one is, else inconclusive if one is, or if there is none at all."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "missed" in outcomes:
        return "missed"
    return "pass" if outcomes == {"pass"} else "inconclusive"


def doubts(figures: CaseSummary, needed: Evidence) -> list[str]:
    """Everything but the numbers themselves that keeps a measurement from being evidence, whatever the limit."""
    launches = figures.counted
    frames = figures.frame.summary.count if figures.frame else 0
    few = [
        f"{count} {what} measured, {least} needed"
        for count, what, least in ((frames, "frames", needed.frames), (len(launches), "launches", needed.launches))
        if count < least
    ]
    untrained = [] if figures.run.trained else ["the weights are untrained: their masks mean nothing"]
    return [
        *_unfinished(figures),
        *few,
        *untrained,
        *_masks(figures, needed),
        *_heat(figures, needed.thermal),
        *_conditions(launches, needed),
    ]


def time_spent(figures: CaseSummary, limit_ms: float | None = None) -> tuple[Spent, ...]:
    """Where the frame's time goes: its measured parts, then what lies between them.

    Args:
        limit_ms: find for each part how much of it alone would have to go for the p90 to be within this.
    """
    pairs = {part: found for part in PARTS if (found := paired(figures.counted, part))}
    frame = figures.frame
    if frame is None or not pairs:
        return ()
    spent = []
    for part, found in pairs.items():
        mine, whole = np.asarray(found).T
        share = float(mine.sum() / whole.sum())
        shrink = None if limit_ms is None else _shrink(mine, whole, limit_ms)
        spent.append(Spent(part, share * frame.summary.mean, share, shrink))
    rest = 1 - sum(part.share for part in spent)
    # Clocks are read one after the other: parts may add up to a hair more than the frame.
    return (*spent, Spent("other", rest * frame.summary.mean, rest)) if rest > 0 else tuple(spent)


def _shrink(part: np.ndarray, frame: np.ndarray, limit_ms: float) -> float | None:
    """Least share of ``part`` to take away from each frame, so that the frames' p90 is within the limit."""

    def within(share: float) -> bool:
        return bool(np.percentile(frame - share * part, 90, method="linear") <= limit_ms)

    if not within(1):
        return None
    if within(0):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def _decide(p90: Estimate, limit: float) -> tuple[Outcome, list[str]]:
    if p90.low is None or p90.high is None:
        return "inconclusive", ["one launch cannot tell how launches differ: no interval"]
    if p90.high <= limit:
        return "pass", []
    if p90.low > limit:
        return "missed", []
    return "inconclusive", [
        f"the limit of {limit:g} ms lies within the interval of the p90, {p90.low:.2f} to {p90.high:.2f} ms: "
        "measure longer, or more launches"
    ]


def _other_device(figures: CaseSummary, target: Target) -> list[str]:
    device, wanted = figures.device, target.device
    whose = f"the target is for {wanted.name} ({wanted.kind} {', '.join(wanted.models)})"
    if device.kind != wanted.kind:
        kind = {"host": "a host", "simulated": "a simulated device", "emulator": "an emulator"}.get(
            device.kind, f"another kind of device ({device.kind})"
        )
        return [f"not compared: {whose}; {kind} says nothing about it"]
    model = device.info.get("model")
    if model is None:
        return [f"not compared: {whose}; this device did not say what model it is"]
    if model not in wanted.models:
        return [f"not compared: {whose}; this is {model}"]
    return []


def _unfinished(figures: CaseSummary) -> Iterator[str]:
    """Launches that did not get to their end: who leaves them out picks the lucky ones."""
    for status, words in (("failed", "failed"), ("cancelled", "cancelled"), ("truncated", "cut off")):
        found = [launch for launch in figures.launches if launch.status == status]
        if found:
            why = next((f": {launch.error}" for launch in found if launch.error), "")
            yield f"{_of(len(found), len(figures.launches), words)}{why}"
    impossible = sum(0 in launch.times("frame") for launch in figures.launches)
    if impossible:
        yield _of(impossible, len(figures.launches), "told frames that took no time")


def _masks(figures: CaseSummary, needed: Evidence) -> Iterator[str]:
    if figures.checked is False:
        yield "the masks are wrong: a check failed"
    elif figures.checked is None:
        yield "the masks were not checked in every launch"
    if figures.mask_iou is None and figures.checked:
        yield "no mask's agreement with PyTorch was told"
    if figures.case.precision not in LEAST_IOU:
        yield from _lost(figures.case, needed.miou_drop)
    elif figures.mask_iou is not None and figures.mask_iou < needed.mask_iou:
        yield f"a mask agrees with PyTorch by {figures.mask_iou:.4f} only, {needed.mask_iou:g} needed"


def _lost(case: CaseRecord, allowed: float) -> Iterator[str]:
    """Compression changes masks at their edges, which a few prompts cannot tell from harm: many objects can."""
    prompt = next((name for name in case.reference if name in case.accuracy), None)
    if prompt is None:
        yield f"no measured mIoU of its {case.precision} masks: `edgesam-mobile eval DIR --record`, then measure"
    elif (lost := case.reference[prompt] - case.accuracy[prompt]) > allowed:
        yield f"the masks lose {lost:.2f} points of mIoU ({prompt}) against PyTorch, at most {allowed:g} allowed"


def _heat(figures: CaseSummary, allowed: Thermal) -> Iterator[str]:
    untold = sum(thermal_of(launch) is None for launch in figures.counted)
    if untold:
        yield _of(untold, len(figures.counted), "told no thermal state")
    if figures.thermal is not None and THERMAL.index(figures.thermal) > THERMAL.index(allowed):
        yield f"the device was too hot: {figures.thermal}, at most {allowed} allowed"


def _conditions(launches: Sequence[LaunchRecord], needed: Evidence) -> Iterator[str]:
    """How the harness and the device were set, launch by launch; what was not told counts as not so.

    The delegate alone may be taken on trust, where the target says so: some runtimes never tell it.
    """
    builds = [told(launch.hello, "harness", "build") for launch in launches]
    if others := sorted({str(build or "unknown") for build in builds if build != "release"}):
        yield f"no release build of the harness: {', '.join(others)}"
    for count, words in (
        (sum(told(launch.hello, "harness", "debugger") is not False for launch in launches), "under a debugger"),
        (sum(_low_power(launch) is not False for launch in launches), "in low-power mode"),
    ):
        if count:
            yield f"{_of(count, len(launches), words)}, or it was not told"
    unstable = sum(told(launch.result, "warm_up", "stable") is not True for launch in launches)
    if unstable:
        yield _of(unstable, len(launches), "measured before the warm-up was stable")
    swapped = {
        (str(asked), "one that it does not tell" if got is None else str(got))
        for launch in launches
        if (asked := told(launch.result, "requested")) != (got := told(launch.result, "applied"))
        and not (got is None and needed.delegate == "asked")
    }
    for asked, got in sorted(swapped):
        yield f"asked for delegate {asked}, ran on {got}"


def _low_power(launch: LaunchRecord) -> bool | None:
    """Whether any state was in low-power mode; ``None`` if no state says."""
    seen = [state.body.get("low_power") for state in launch.states]
    return True if True in seen else False if False in seen else None


def _of(count: int, total: int, words: str) -> str:
    return f"{count} of {total} launches {words}"
