"""The exports of a build: planned by content, taken from the cache, or run in worker processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgesam_mobile import errors
from edgesam_mobile.deploy import cache
from edgesam_mobile.deploy.calibration import Calibration
from edgesam_mobile.deploy.formats import FORMATS, Format
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.errors import EdgeSamError, EnvironmentMissing, StorageError
from edgesam_mobile.files import storage_errors
from edgesam_mobile.model.registry import Architecture
from edgesam_mobile.model.sam import Provenance
from edgesam_mobile.weights.checkpoint import read_checkpoint

_LAST_LINES = 200  # of what an exporter says, to find the reason of a failure in
_LEAST_FREE = 8 << 20  # bytes; less than any export takes
CALIBRATION = "calibration.npz"
PARTS = ("encoder", "decoder")
_USED = {
    "encoder": ("image_dtype",),
    "decoder": ("slots", "prompts", "mask_input", "score"),
    "proposals": ("image_dtype", "proposals_sha256"),
}
EXPORTED_UPSAMPLE: Literal["bilinear"] = (
    "bilinear"  # Core ML has no bicubic interpolation, and elsewhere it is several times slower
)
Report = Callable[[str], None]


@dataclass
class Stage:
    """One graph in one format, once for each way to compress it.

    Attributes:
        plans: by :attr:`Plan.key`.
        keys: places in the cache, by the same.
    """

    form: Format
    part: str
    plans: dict[str, Plan]
    keys: dict[str, str]
    seconds: float = 0.0
    peak_bytes: int = 0
    cached: bool = False

    @property
    def name(self) -> str:
        return f"{self.form.name} {self.part}"


def plan(options: BuildOptions, provenance: Provenance, spec: Architecture) -> list[Stage]:
    """Every export that the options ask for."""
    common = common_key(provenance, spec, options)
    stages = []
    for name, precisions in options.chosen().items():
        for part in parts(options):
            plans = [options.plan(FORMATS[name], precision, part, spec.name) for precision in precisions]
            stages.append(_stage(FORMATS[name], part, {plan.key: plan for plan in plans}, common))
    return stages


def parts(options: BuildOptions) -> tuple[str, ...]:
    """The graphs that every artefact has."""
    return (*PARTS, "proposals") if options.proposals else PARTS


def common_key(provenance: Provenance, spec: Architecture, options: BuildOptions) -> dict[str, Any]:
    """What decides every export's bytes, whatever the format."""
    return {
        "weights": provenance.weights_sha256,
        "upsample": EXPORTED_UPSAMPLE if spec.upsample else None,
        "image_size": options.input_size,
        "calibration": options.calibration and options.calibration.sha256,
        "options": {
            "slots": options.slots,
            "prompts": options.prompts,
            "mask_input": options.mask_input,
            "score": options.score or spec.score,
            "image_dtype": options.image_dtype,
            "proposals": options.proposals and str(options.proposals.resolve()),
            "proposals_sha256": options.proposals and read_checkpoint(options.proposals).sha256,
        },
    }


def _stage(form: Format, part: str, plans: dict[str, Plan], common: dict[str, Any]) -> Stage:
    identity = {**common, "format": form.name, "part": part}
    identity["options"] = {name: common["options"][name] for name in _USED[part]}
    keys = {}
    for name, plan in plans.items():
        used = identity["calibration"] if plan.calibrated else None
        keys[name] = cache.stage_key({**identity, "calibration": used, "plan": name}, form.packages)
    return Stage(form, part, plans, keys)


def export_missing(
    stages: list[Stage],
    weights: Path,
    common: dict[str, Any],
    report: Report,
    note: Report,
    calibration: Calibration | None = None,
) -> None:
    """Run a worker per format that has stages missing from the cache, two at a time."""
    missing: dict[str, list[Stage]] = {}
    for stage in stages:
        stage.cached = all(cache.lookup(key) for key in stage.keys.values())
        if stage.cached:
            report(f"{stage.name}: unchanged, taken from the cache")
        else:
            missing.setdefault(stage.form.name, []).append(stage)
    if not missing:
        return
    workers = _Workers()
    with cache.scratch_folder() as scratch:
        if calibration is not None:
            with storage_errors(scratch):
                calibration.save(scratch / CALIBRATION)
        with ThreadPoolExecutor(max_workers=2) as pool:
            jobs = [
                pool.submit(_run_worker, group, weights, common, scratch, report, note, workers)
                for group in missing.values()
            ]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                workers.stop()
                raise


@dataclass
class _Workers:
    """The running exporters; once stopped, a late starter ends at once."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    stopped: bool = False

    def add(self, process: subprocess.Popen[str]) -> None:
        self.processes.append(process)
        if self.stopped:
            process.kill()

    def stop(self) -> None:
        self.stopped = True
        for process in self.processes:
            process.kill()


def _run_worker(
    stages: list[Stage],
    weights: Path,
    common: dict[str, Any],
    scratch: Path,
    report: Report,
    note: Report,
    workers: _Workers,
) -> None:
    form = stages[0].form
    folders = {s.part: {name: scratch / form.name / s.part / name for name in s.keys} for s in stages}
    with storage_errors(scratch):
        for folder in (f for by_plan in folders.values() for f in by_plan.values()):
            folder.mkdir(parents=True)
    job = {
        **common,
        "format": form.name,
        "weights": str(weights.resolve()),
        "calibration": scratch / CALIBRATION if common["calibration"] else None,
        "parts": {
            s.part: [{"folder": folders[s.part][name], "plan": plan.to_json()} for name, plan in s.plans.items()]
            for s in stages
        },
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesam_mobile.deploy.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    workers.add(process)
    # Kept in memory: a file would lose the very words that say that the disk is full.
    said: deque[str] = deque(maxlen=_LAST_LINES)
    listener = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    listener.start()
    by_part = {stage.part: stage for stage in stages}
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job, default=str))
        process.stdin.close()
        for line in process.stdout:
            answer = json.loads(line)
            if "note" in answer:
                note(f"{form.name}: {answer['note']}")
                continue
            if "error" in answer:
                raise getattr(errors, answer["error"])(answer["message"], hint=answer["hint"])
            stage = by_part[answer["part"]]
            stage.seconds, stage.peak_bytes = answer["seconds"], answer["peak_bytes"]
            for name, key in stage.keys.items():
                cache.store(key, folders[stage.part][name])
            report(f"{stage.name}: {stage.seconds:.1f} s, peak memory {stage.peak_bytes / 2**30:.2f} GiB")
        code = process.wait()
        listener.join(timeout=10)
    if code < 0:
        # Writing through a memory map into a full disk is answered by a signal, not by an error.
        if shutil.disk_usage(scratch).free < _LEAST_FREE:
            raise StorageError(f"no space left while exporting {form.name}", hint="free some disk space")
        raise EdgeSamError(
            f"exporting {form.name} was stopped by signal {-code}",
            hint="build again: finished exports are kept; memory or disk space may have run out",
        )
    if code != 0:
        raise _worker_error(form, "".join(said))


def _worker_error(form: Format, log: str) -> EdgeSamError:
    """One line out of a worker's last words."""
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "no message")
    if "No space left on device" in log:
        return StorageError(f"no space left while exporting {form.name}", hint="free some disk space")
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return EnvironmentMissing(
            f"{form.name} cannot be built: {last}", hint=f'pip install "edgesam-mobile[{form.extra}]"'
        )
    return EdgeSamError(
        f"exporting {form.name} failed: {last}", hint="`edgesam-mobile doctor` checks the tools' versions"
    )
