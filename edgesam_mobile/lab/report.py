"""From a benchmark's samples to rows of a table and one JSON object. Prints nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edgesam_mobile.evaluate.metrics import mask_iou
from edgesam_mobile.lab.cases import MOBILE_SAM, PYTORCH, Case
from edgesam_mobile.lab.host import BenchResult
from edgesam_mobile.lab.launch import Launch
from edgesam_mobile.lab.statistics import Drift, Estimate, Summary, drift, median_interval, ratio, summarise

STAGES = ("pre", "encode", "decode", "post", "frame")
# What a published figure wants of each case; shorter runs are called quick.
CLAIM_FRAMES, CLAIM_SECONDS, CLAIM_LAUNCHES = 1024, 60.0, 5


@dataclass(frozen=True)
class StageReport:
    """One step of the frame.

    Attributes:
        median: p50 with its interval over launches.
        cpu_p50: median processor time of all threads in milliseconds.
    """

    summary: Summary
    median: Estimate
    cpu_p50: float


@dataclass(frozen=True)
class CaseReport:
    """What the launches of one case say together; of an interpreted one, its mask and nothing else.

    Attributes:
        load_ms: median over launches: files (in the page cache) to a model that is ready, without importing the
            runtime but with the integrity check of the package's files.
        first_ms: median of the first encode and decode of a process.
        peak_bytes: median of the processes' largest resident memory, Python and torch included.
        growth_bytes: the same, less what was resident before the model was loaded.
        vs_pytorch: how many times as long PyTorch's frame takes, with the same number of threads.
        mask_iou: lowest agreement of a launch's mask with PyTorch's; ``None`` without a PyTorch case, and for
            another model.
        waited: largest share of a launch's measured time that it stood in a queue for a processor; the median of
            its times may be off by as much, and more with several threads, which then wait for each other.
        unstable: launches whose warm-up hit its limit.
        quick: too few frames or launches to publish a figure.
    """

    case: Case
    launches: int
    load_ms: float | None
    first_ms: float | None
    stages: dict[str, StageReport]
    peak_bytes: int | None
    growth_bytes: int | None
    vs_pytorch: Estimate | None
    mask_iou: float | None
    drift: Drift | None
    waited: float | None
    unstable: int
    quick: bool


def report(result: BenchResult) -> list[CaseReport]:
    """One report a case, in the order of the plan."""
    return [_case_report(result, case) for case in result.prepared.jobs]


def speed_up(result: BenchResult, case: Case, baseline_id: str, stage: str, *, cpu: bool = False) -> Estimate | None:
    """How many times as long a baseline takes for ``stage`` as ``case``, with the same number of threads.

    Args:
        cpu: compare processor time, which other processes disturb less; threads that spin while they wait count.
    """
    baseline = _find(result, baseline_id, case.threads)
    if baseline is None:
        return None
    return ratio(result.series(baseline, stage, cpu=cpu), result.series(case, stage, cpu=cpu))


def as_record(result: BenchResult, reports: list[CaseReport]) -> dict[str, Any]:
    """Everything as JSON values, raw samples included: the body of ``edgesam.bench/1``."""
    prepared, weights = result.prepared, result.prepared.manifest.weights
    return {
        "package": str(prepared.package),
        "model": prepared.manifest.model,
        "weights": {"name": weights.name, "sha256": weights.sha256, "trained": weights.trained},
        "device": "host",
        "machine": asdict(result.machine),
        "settings": result.settings,
        "image": prepared.image.name,
        "point": list(prepared.point),
        "partial": result.partial,
        "seconds": result.seconds,
        "cases": [{"key": r.case.key, **asdict(r)} for r in reports],
        "not_timed": [asdict(skipped) for skipped in prepared.skipped],
        "launches": [_launch_record(launch) for launch in result.launches],
    }


def _case_report(result: BenchResult, case: Case) -> CaseReport:
    launches = result.of(case)
    timed = case.kind != "interpreted"
    ended = [launch.end for launch in launches if timed and launch.end]
    stages = {stage: s for stage in STAGES if (s := _stage_report(launches, stage)) is not None}
    frames = [time for launch in launches for time in launch.times("frame")]
    long_enough = len(frames) >= CLAIM_FRAMES or sum(frames) >= 1000 * CLAIM_SECONDS
    return CaseReport(
        case=case,
        launches=len(launches),
        load_ms=_median(time for launch in launches for time in launch.times("load")),
        first_ms=_median(
            a + b
            for launch in launches
            for a, b in zip(launch.times("first-encode"), launch.times("first-decode"), strict=False)
        ),
        stages=stages,
        peak_bytes=_whole_median(end["peak_bytes"] for end in ended),
        growth_bytes=_whole_median(end["peak_bytes"] - end["before_load_bytes"] for end in ended),
        vs_pytorch=None if case.id == PYTORCH else speed_up(result, case, PYTORCH, "frame"),
        mask_iou=_agreement(result, case),
        drift=drift([launch.times("frame") for launch in launches]),
        waited=max((end["waited"] for end in ended if end["waited"] is not None), default=None),
        unstable=sum(not end["stable"] for end in ended),
        quick=timed and (not long_enough or len(launches) < CLAIM_LAUNCHES),
    )


def _stage_report(launches: list[Launch], stage: str) -> StageReport | None:
    series = [times for launch in launches if (times := launch.times(stage))]
    if not series:
        return None
    pooled = [time for times in series for time in times]
    used = [time for launch in launches for time in launch.times(stage, cpu=True)]
    return StageReport(summarise(pooled), median_interval(series), median(used))


def _agreement(result: BenchResult, case: Case) -> float | None:
    reference = _find(result, PYTORCH, case.threads)
    expected = [launch.mask for launch in result.of(reference) if launch.mask is not None] if reference else []
    if case.id == MOBILE_SAM or not expected:
        return None
    found = [launch.mask for launch in result.of(case) if launch.mask is not None]
    return min((mask_iou(mask, expected[0]) for mask in found), default=None)


def _find(result: BenchResult, case_id: str, threads: int) -> Case | None:
    return next((c for c in result.prepared.jobs if c.id == case_id and c.threads == threads), None)


def _launch_record(launch: Launch) -> dict[str, Any]:
    return {
        "case": launch.case.key,
        "index": launch.index,
        "status": launch.status,
        "error": launch.error,
        **launch.hello,
        **launch.end,
        "samples": [asdict(sample) for sample in launch.samples],
    }


def _median(values: Any) -> float | None:
    found = list(values)
    return median(found) if found else None


def _whole_median(values: Any) -> int | None:
    middle = _median(values)
    return None if middle is None else round(middle)
