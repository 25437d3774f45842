"""What the launches of one case on one device say together: times, heat, masks, and how both went over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, get_args

from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord, LaunchStatus, RunRecord
from edgesam_mobile.lab.statistics import Drift, Estimate, Summary, drift, launch_interval, percentile_intervals
from edgesam_mobile.lab.statistics import summarise as summarise_samples

Thermal = Literal["nominal", "fair", "serious", "critical"]
THERMAL: tuple[Thermal, ...] = get_args(Thermal)

PARTS = ("pre", "encode", "decode", "post")
_WINDOWS = 30  # at most, of a launch's sustained curve
_FIRST = ("first-pre", "first-encode", "first-decode", "first-post")


@dataclass(frozen=True)
class FrameFigures:
    """The whole frame in milliseconds, with intervals over launches."""

    summary: Summary
    p50: Estimate
    p90: Estimate
    p99: Estimate


@dataclass(frozen=True)
class Window:
    """A piece of one launch.

    Attributes:
        start: seconds since its first measured frame.
        fps: frames over the time that they took, without what lies between them.
        thermal: the worst state told in it; ``None`` if none was.
    """

    start: float
    fps: float
    thermal: Thermal | None


@dataclass(frozen=True)
class CaseSummary:
    """One case on one device in one run.

    Attributes:
        launches: all of them, in the order they ran.
        counted: those whose frames count: all but the failed ones and those that tell a frame of no time at all; what
            was cut off keeps what it measured.
        frame: ``None`` if none was timed.
        parts: by stage, those that were timed.
        load_cold, load_cached, first: medians over launches in milliseconds; the first is a whole frame.
        kernel: the same of the reference kernel, to compare the device with itself on another day.
        mask_iou: lowest agreement with PyTorch of any golden prompt in any launch; ``None`` if none was checked.
        checked: every launch passed its check; ``None`` if one told none and none failed.
        thermal: the worst state told; ``None`` if none was.
        drift: of each launch's frames in order of time.
        curve: windows of each counted launch.
    """

    run: RunRecord
    device: DeviceRecord
    case: CaseRecord
    launches: tuple[LaunchRecord, ...]
    counted: tuple[LaunchRecord, ...]
    frame: FrameFigures | None
    parts: dict[str, Summary]
    load_cold: Estimate | None
    load_cached: Estimate | None
    first: Estimate | None
    kernel: Estimate | None
    mask_iou: float | None
    checked: bool | None
    thermal: Thermal | None
    drift: Drift | None
    curve: tuple[tuple[Window, ...], ...]

    @property
    def label(self) -> str:
        """The case with what tells it from others of the run, such as ``tflite-fp16, gpu, 4 threads``."""
        return ", ".join(case_key(self.case))

    @property
    def where(self) -> str:
        """The device for people, such as ``iPhone15,3 (ios)``."""
        return device_name(self.device)

    @property
    def fps(self) -> Estimate | None:
        """Frames a second at the median frame."""
        if self.frame is None:
            return None
        p50 = self.frame.p50
        return Estimate(
            1000 / p50.value,
            None if p50.high is None else 1000 / p50.high,
            None if p50.low is None else 1000 / p50.low,
        )

    @property
    def short_run(self) -> str:
        """The run for people: its first tag, or the start of its id."""
        return run_name(self.run)

    def to_json(self) -> dict[str, Any]:
        """Everything but the samples, which the store has."""
        return {
            "run": {"id": self.run.id, "tags": list(self.run.tags), "created": self.run.created},
            "device": asdict(self.device),
            "case": asdict(self.case),
            "launches": {"all": len(self.launches), "counted": len(self.counted)},
            "frame": asdict(self.frame) if self.frame else None,
            "parts": {stage: asdict(summary) for stage, summary in self.parts.items()},
            **{name: asdict(value) if value else None for name, value in self._estimates().items()},
            "mask_iou": self.mask_iou,
            "checked": self.checked,
            "thermal": self.thermal,
            "drift": asdict(self.drift) if self.drift else None,
            "curve": [[asdict(window) for window in launch] for launch in self.curve],
        }

    def _estimates(self) -> dict[str, Estimate | None]:
        return {
            "fps": self.fps,
            "load_cold": self.load_cold,
            "load_cached": self.load_cached,
            "first": self.first,
            "kernel": self.kernel,
        }


def summarise(runs: Iterable[RunRecord]) -> list[CaseSummary]:
    """Every case of every device of every run, in the order in which their first launches stand there."""
    return [_summary(run, launches) for run in runs for launches in _by_case(run).values()]


def complete_only(figures: CaseSummary) -> CaseSummary:
    """The same case, of launches that were cut off or cancelled no frame counted."""
    if all(launch.status == "complete" for launch in figures.counted):
        return figures
    return _summary(figures.run, figures.launches, counting=("complete",))


def case_key(case: CaseRecord) -> tuple[str, ...]:
    """What tells a case from others on the same device and stays the same from run to run."""
    threads = f"{case.threads} thread{'s' if case.threads != 1 else ''}" if case.threads is not None else None
    return tuple(part for part in (case.id, case.delegate, threads) if part is not None)


def device_name(device: DeviceRecord) -> str:
    """Maker, model and class, as far as the device told them."""
    told = [str(device.info[key]) for key in ("maker", "model") if device.info.get(key)]
    return f"{' '.join(told) or device.key} ({device.kind})"


def run_name(run: RunRecord) -> str:
    """A run's first tag, or the start of its id."""
    return run.tags[0] if run.tags else run.id[:8]


def paired(launches: Sequence[LaunchRecord], stage: str) -> list[tuple[float, float]]:
    """Milliseconds of a stage and of the frame that it was part of, for every frame that has both."""
    found = []
    for launch in launches:
        parts = {sample.round: sample.ns / 1e6 for sample in launch.samples if sample.stage == stage}
        found += [
            (parts[sample.round], sample.ns / 1e6)
            for sample in launch.samples
            if sample.stage == "frame" and sample.round in parts
        ]
    return found


def thermal_of(launch: LaunchRecord) -> Thermal | None:
    """The worst thermal state that a launch told, if any."""
    return _worst(state.body.get("thermal") for state in launch.states)


def told(body: Mapping[str, Any] | None, *path: str) -> Any:
    """What a device's event says at a path of keys; ``None`` where it says nothing."""
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _by_case(run: RunRecord) -> dict[tuple[str, ...], list[LaunchRecord]]:
    found: dict[tuple[str, ...], list[LaunchRecord]] = {}
    for launch in sorted(run.launches, key=lambda launch: launch.index):
        found.setdefault((launch.device.key, *case_key(launch.case)), []).append(launch)
    return found


def _summary(
    run: RunRecord,
    launches: Sequence[LaunchRecord],
    counting: tuple[LaunchStatus, ...] = ("complete", "cancelled", "truncated"),
) -> CaseSummary:
    counted = [
        launch for launch in launches if launch.status in counting and min(launch.times("frame"), default=0) > 0
    ]
    ious, passed = _checks(launches)
    return CaseSummary(
        run=run,
        device=launches[0].device,
        case=launches[0].case,
        launches=tuple(launches),
        counted=tuple(counted),
        frame=_frame([launch.times("frame") for launch in counted]),
        parts={part: summarise_samples(pooled) for part in PARTS if (pooled := _pooled(counted, part))},
        load_cold=_median([launch.times("load-cold") for launch in launches]),
        load_cached=_median([launch.times("load-cached") for launch in launches]),
        first=_median([_first_frame(launch) for launch in launches]),
        kernel=_median([launch.times("kernel") for launch in counted]),
        mask_iou=min(ious, default=None),
        checked=passed,
        thermal=_worst(state.body.get("thermal") for launch in launches for state in launch.states),
        drift=drift([launch.times("frame") for launch in counted]),
        curve=tuple(_curve(launch) for launch in counted),
    )


def _frame(series: Sequence[Sequence[float]]) -> FrameFigures | None:
    if not series:
        return None
    pooled = [time for times in series for time in times]
    return FrameFigures(summarise_samples(pooled), *percentile_intervals(series, (50, 90, 99)))


def _pooled(launches: Sequence[LaunchRecord], stage: str) -> list[float]:
    return [time for launch in launches for time in launch.times(stage)]


def _median(series: Sequence[Sequence[float]]) -> Estimate | None:
    """Of each launch's median."""
    values = [median(times) for times in series if times]
    return launch_interval(values) if values else None


def _first_frame(launch: LaunchRecord) -> list[float]:
    """The first frame of a process: as such, or as the sum of its parts."""
    return launch.times("first-frame") or [sum(part) for part in zip(*_first_parts(launch), strict=False)]


def _first_parts(launch: LaunchRecord) -> list[list[float]]:
    return [times for stage in _FIRST if (times := launch.times(stage))]


def _checks(launches: Sequence[LaunchRecord]) -> tuple[list[float], bool | None]:
    """Agreement of every mask checked, and whether all launches passed."""
    ious = [
        float(mask["iou"])
        for launch in launches
        for mask in told(launch.check, "masks") or []
        if isinstance(told(mask, "iou"), int | float)
    ]
    passed = [told(launch.check, "passed") for launch in launches]
    if False in passed:
        return ious, False
    return ious, True if passed and all(value is True for value in passed) else None


def _worst(states: Iterable[object]) -> Thermal | None:
    seen = list(states)
    return next((state for state in reversed(THERMAL) if state in seen), None)


def _curve(launch: LaunchRecord) -> tuple[Window, ...]:
    """Frames by when they ended, in windows of a second or more; empty windows are left out."""
    frames = [sample for sample in launch.samples if sample.stage == "frame"]
    begin = min(sample.at_ns - sample.ns for sample in frames)
    span = max(sample.at_ns for sample in frames) - begin
    width = max(1_000_000_000, -(-span // _WINDOWS))
    inside: dict[int, list[int]] = {}
    for sample in frames:
        # What ends where a window ends was measured within it.
        inside.setdefault((sample.at_ns - begin - 1) // width, []).append(sample.ns)
    return tuple(
        Window(
            index * width / 1e9,
            1e9 * len(times) / sum(times),
            _worst(s.body.get("thermal") for s in launch.states if (s.at_ns - begin) // width == index),
        )
        for index, times in sorted(inside.items())
    )
