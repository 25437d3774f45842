"""A benchmark of this machine as the records that every device leaves."""

from __future__ import annotations

import platform
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile import __version__
from edgesam_mobile.evaluate.metrics import mask_iou
from edgesam_mobile.lab.cases import MOBILE_SAM, PYTORCH, Case
from edgesam_mobile.lab.host import Prepared, cpu_name, processors
from edgesam_mobile.lab.jobs import case_record, least_iou
from edgesam_mobile.lab.launch import Launch
from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord, LaunchStatus, SampleRecord
from edgesam_mobile.package.manifest import Manifest

_STATUS: dict[str, LaunchStatus] = {"ok": "complete", "failed": "failed", "interrupted": "cancelled"}


class HostRecorder:
    """Turns launches into records as they end.

    Each mask is held against PyTorch's; until PyTorch has answered, launches wait, if it is to run at all.

    Args:
        keep: takes each record.
    """

    def __init__(self, prepared: Prepared, keep: Callable[[LaunchRecord], None]) -> None:
        self._manifest, self._keep = prepared.manifest, keep
        self._device = DeviceRecord("host", "host", _machine())
        self._waiting: list[tuple[Launch, str]] = []
        self._expected: NDArray[np.bool_] | None = None
        self._awaited = any(case.id == PYTORCH for case in prepared.jobs)

    def take(self, launch: Launch) -> None:
        """A launch that has just ended; what is interpreted was not timed, and is no measurement to keep."""
        if launch.case.kind == "interpreted":
            return
        self._waiting.append((launch, _now()))
        if launch.case.id == PYTORCH and launch.mask is not None and self._expected is None:
            self._expected = launch.mask
        if self._expected is not None or not self._awaited:
            self.finish()

    def finish(self) -> None:
        """Give out what still waits, checked or not."""
        waiting, self._waiting = self._waiting, []
        for launch, ended in waiting:
            self._keep(self._record(launch, ended))

    def _record(self, launch: Launch, ended: str) -> LaunchRecord:
        case, check = _case_record(self._manifest, launch.case), None
        if launch.mask is not None and self._expected is not None and launch.case.id != MOBILE_SAM:
            iou, least = mask_iou(launch.mask, self._expected), least_iou(case.precision)
            check = {"masks": [{"iou": iou, "best_same": None}], "least_iou": least, "passed": iou >= least}
        result = None
        if launch.end:
            warm_up = {"rounds": launch.end["warm_up_rounds"], "stable": launch.end["stable"]}
            result = {
                "requested": None,
                "applied": None,
                "threads": launch.case.threads,
                "warm_up": warm_up,
                "rounds": launch.end["rounds"],
                "waited": launch.end["waited"],
                "peak_bytes": launch.end["peak_bytes"],
            }
        return LaunchRecord(
            id=uuid.uuid4().hex,
            case=case,
            device=self._device,
            index=launch.index,
            status=_STATUS[launch.status],
            started=launch.started,
            ended=ended,
            error=launch.error,
            hello={"harness": {"name": "host worker", "version": __version__, "build": "release", "debugger": False},
                   **launch.hello},
            check=check,
            result=result,
            samples=_samples(launch),
        )  # fmt: skip


def _samples(launch: Launch) -> tuple[SampleRecord, ...]:
    rounds: Counter[str] = Counter()
    samples = []
    for seq, sample in enumerate(launch.samples):
        # Files are in the system's page cache here, and no runtime keeps anything else.
        stage = "load-cached" if sample.stage == "load" else sample.stage
        times = (round(sample.ms * 1e6), sample.monotonic_ns, round(sample.cpu_ms * 1e6))
        samples.append(SampleRecord(seq, stage, rounds[stage], *times))
        rounds[stage] += 1
    return tuple(samples)


def _case_record(manifest: Manifest, case: Case) -> CaseRecord:
    artifact = next((a for a in manifest.artifacts if a.id == case.id), None)
    if artifact is not None:
        return case_record(manifest, artifact, case.runtime, threads=case.threads)
    form = "onnx" if case.kind == "onnx-published" else "pytorch"
    return CaseRecord(case.id, form, "fp32", case.runtime, threads=case.threads)


def _machine() -> dict[str, object]:
    import psutil

    return {
        "maker": None,
        "model": cpu_name(),
        "os": platform.system(),
        "os_version": platform.release(),
        "soc": None,
        "cores": processors(),
        "memory_bytes": psutil.virtual_memory().total,
        "abi": platform.machine(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
