"""Benchmarks on this machine: every case in processes of its own, launches of all cases interleaved."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesam_mobile.errors import EnvironmentMissing, UsageError
from edgesam_mobile.evaluate.probes import builtin_pictures
from edgesam_mobile.lab.baselines import Baselines
from edgesam_mobile.lab.cases import PYTORCH, Case, Skipped, plan, schedule
from edgesam_mobile.lab.launch import Launch, OnSample, run_launch
from edgesam_mobile.package.manifest import Manifest, check_file, read_manifest
from edgesam_mobile.picture import read_picture
from edgesam_mobile.runtime.session import RUNTIMES

Report = Callable[[str], None]

_UNCOMPARABLE = (
    f"only interpreted here, which gives no times, and without {PYTORCH} its mask has nothing to be held to"
)


@dataclass(frozen=True)
class Machine:
    """Where the numbers come from; ``load`` is the system's average over a minute, before and after."""

    cpu: str
    cores: int
    system: str
    load_before: float
    load_after: float


@dataclass(frozen=True)
class Prepared:
    """A benchmark that can start: cases with their workers' jobs, and what gets no number and why."""

    package: Path
    manifest: Manifest
    image: Path
    point: tuple[float, float]
    jobs: dict[Case, dict[str, Any]]
    skipped: tuple[Skipped, ...]

    def processes(self, launches: int) -> int:
        """How many will run, with ``launches`` for each case that is timed."""
        return len(schedule(tuple(self.jobs), launches))


@dataclass
class BenchResult:
    """Everything that was measured.

    Attributes:
        launches: in the order they ran, failed and interrupted ones too.
        partial: the run was interrupted.
        seconds: wall time of the whole run.
    """

    prepared: Prepared
    machine: Machine
    settings: dict[str, Any]
    launches: list[Launch] = field(default_factory=list)
    partial: bool = False
    seconds: float = 0.0

    def of(self, case: Case) -> list[Launch]:
        """The launches of a case that count: those that ran to their end, and what an interrupt left."""
        return [launch for launch in self.launches if launch.case == case and launch.status != "failed"]

    def series(self, case: Case, stage: str, *, cpu: bool = False) -> dict[int, list[float]]:
        """Samples of a stage in milliseconds (wall or processor time) by round, without empty rounds."""
        return {launch.index: times for launch in self.of(case) if (times := launch.times(stage, cpu=cpu))}


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(
    package: Path,
    *,
    threads: Sequence[int] = (),
    only: Sequence[str] = (),
    baselines: bool = True,
    interpreted: bool = True,
    weights: str | None = None,
    image: Path | None = None,
    offline: bool = False,
    note: Report = lambda text: None,
) -> Prepared:
    """Check everything, hash every file that will run, and make the baselines ready.

    Args:
        threads: numbers of threads to time; all processors if empty.
        only: ids of cases to keep.
        interpreted: ask what is only interpreted here for one mask, to hold it against PyTorch's.
        weights: the package's weights, if neither the registry nor the cache knows them.
        image: the picture to segment, by a point at its centre; the built-in one by default.
        note: called with what takes a while.

    Raises:
        UsageError: no such case, or more threads than processors.
        PackageError: the package is damaged.
        PictureError: the picture cannot be read.
        WeightsError: ``weights`` are not those of the package.
        EnvironmentMissing: nothing is left that could be executed here.
    """
    manifest = read_manifest(package)
    wanted = tuple(dict.fromkeys(threads)) or (processors(),)
    if not all(1 <= n <= processors() for n in wanted):
        raise UsageError(f"no {max(wanted)} threads here", hint=f"choose 1 to {processors()}")
    chosen = plan(manifest, threads=wanted, baselines=baselines, interpreted=interpreted, only=only)
    picture = image or builtin_pictures()[0]
    height, width = read_picture(picture).shape[:2]
    point = (width / 2, height / 2)
    common = {"package": str(package.resolve()), "image": str(picture.resolve()), "point": point}
    source = Baselines(manifest, weights=weights, offline=offline, note=note)
    jobs: dict[Case, dict[str, Any]] = {}
    skipped = list(chosen.skipped)
    for case in chosen.cases:
        extra: dict[str, Any] | Skipped
        if case.kind in ("pytorch", "onnx-published"):
            extra = source.needs(case)
        elif case.kind == "interpreted" and not any(other.id == PYTORCH for other in jobs):
            extra = Skipped(case.id, _UNCOMPARABLE)
        else:
            extra = _artifact(package, manifest, case)
        if isinstance(extra, Skipped):
            skipped.append(extra)
        else:
            jobs[case] = {**common, "id": case.id, "kind": case.kind, "threads": case.threads, **extra}
    if not jobs:
        reasons = "; ".join(f"{s.id}: {s.reason}" for s in skipped)
        raise EnvironmentMissing(f"nothing to measure on this machine ({reasons})", hint="build for host or android")
    # A baseline that cannot be had is skipped once for every number of threads: one line tells it.
    return Prepared(package, manifest, picture, point, jobs, tuple(dict.fromkeys(skipped)))


def measure(
    prepared: Prepared,
    *,
    launches: int = 5,
    seconds: float = 5.0,
    seed: int = 0,
    timeout: float | None = None,
    report: Report = lambda text: None,
    on_sample: OnSample = lambda case, sample: None,
    on_launch: Callable[[Launch], None] = lambda launch: None,
) -> BenchResult:
    """Run every launch, one process at a time. An interrupt ends the run early and keeps what there is.

    Args:
        launches: processes for each case that is timed; intervals need at least 2, claims 5.
        seconds: measured time in each, after the warm-up.
        seed: of the order of cases within each round.
        timeout: seconds until a launch counts as failed; 10 minutes more than ``seconds`` by default.
        report: called once a launch.
        on_sample: called with each sample as it arrives.
        on_launch: called with each launch as it ends, an interrupted one too.

    Raises:
        UsageError: ``launches`` or ``seconds`` is not positive.
    """
    if launches < 1 or not (math.isfinite(seconds) and seconds > 0):
        raise UsageError("launches and seconds must be positive")
    limit = timeout if timeout is not None else seconds + 600
    settings = {"launches": launches, "seconds": seconds, "seed": seed, "timeout": limit}
    started, load = time.monotonic(), os.getloadavg()[0]
    result = BenchResult(prepared, _machine(load), settings)
    try:
        for index, case in schedule(list(prepared.jobs), launches, seed):
            launch = Launch(case, index)
            result.launches.append(launch)
            try:
                run_launch(launch, {**prepared.jobs[case], "seconds": seconds}, timeout=limit, on_sample=on_sample)
            finally:
                on_launch(launch)
            number = "" if case.kind == "interpreted" else f" launch {index + 1}/{launches}"
            report(f"{case.key}{number}: {_outcome(launch)}")
    except KeyboardInterrupt:
        result.partial = True
    result.machine, result.seconds = _machine(load), time.monotonic() - started
    return result


def bench(
    package: Path,
    *,
    threads: Sequence[int] = (),
    only: Sequence[str] = (),
    baselines: bool = True,
    interpreted: bool = True,
    weights: str | None = None,
    image: Path | None = None,
    offline: bool = False,
    launches: int = 5,
    seconds: float = 5.0,
    seed: int = 0,
    report: Report = lambda text: None,
    on_sample: OnSample = lambda case, sample: None,
) -> BenchResult:
    """:func:`prepare` and :func:`measure` in one call."""
    prepared = prepare(
        package,
        threads=threads,
        only=only,
        baselines=baselines,
        interpreted=interpreted,
        weights=weights,
        image=image,
        offline=offline,
        note=report,
    )
    return measure(prepared, launches=launches, seconds=seconds, seed=seed, report=report, on_sample=on_sample)


def _artifact(package: Path, manifest: Manifest, case: Case) -> dict[str, Any]:
    artifact = manifest.artifact(case.id)
    for graph in (artifact.encoder, artifact.decoder):
        check_file(package, graph.file)
    module = RUNTIMES[artifact.format].session.partition(":")[0]
    return {"module": f"edgesam_mobile.runtime.{module}"}


def _outcome(launch: Launch) -> str:
    if launch.status != "ok":
        return f"FAILED: {launch.error}"
    if launch.case.kind == "interpreted":
        return "interpreted, for its mask alone"
    times = sorted(launch.times("frame"))
    return f"{len(times)} frames, median {times[len(times) // 2]:.1f} ms"


def _machine(load_before: float) -> Machine:
    system = f"{platform.system()} {platform.machine()}"
    return Machine(cpu_name(), processors(), system, load_before, os.getloadavg()[0])


def cpu_name() -> str:
    """The processor as the system names it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
