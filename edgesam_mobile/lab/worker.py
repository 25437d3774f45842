"""Runs one case in a process of its own: ``python -m edgesam_mobile.lab.worker < job.json``.

Answers are JSON Lines on the original standard output; all else that is printed goes to standard error.

``{"event": "hello", "pid", "cpus", "versions"}``
    before anything heavy is imported; ``cpus`` are those the process is bound to.
``{"event": "phase", "name"}``
    as a phase begins: import, load, first, warm-up, measure.
``{"event": "sample", "stage", "ms", "cpu_ms", "monotonic_ns"}``
    wall time and processor time (of all threads) that ended then. Stages: load, first-pre, first-encode,
    first-decode, first-post, first-frame; the same for each warm-up round with ``warm-``; then pre, encode,
    decode, post, frame; ``kernel`` before and after these.
``{"event": "end", "rounds", "warm_up_rounds", "stable", "waited", "peak_bytes", "before_load_bytes", "mask"}``
    last; a stream without it is a failed launch. ``waited`` is the share of the measured time that the main
    thread was ready but had no processor, because other processes held them; ``null`` where unknown.

What is interpreted is asked for one mask: no sample, no phase after ``first``, ``null`` for all else in its ``end``.
"""

from __future__ import annotations

import base64
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.process import private_stdout

if TYPE_CHECKING:
    from edgesam_mobile.lab.subjects import Image, Subject

LEAST_ROUNDS = 3
KERNEL_SAMPLES = 5  # each side of the frames
KERNEL_SUM = 9_283_857  # as docs/protocol.md has it
WARM_UP_ROUNDS, WARM_UP_SECONDS = 30, 20.0  # limits, for machines that never become stable
_VERSIONS = ("numpy", "torch", "onnxruntime", "executorch", "ai-edge-litert")


def main() -> None:
    """Read a job from standard input and carry it out."""
    stream = Stream(private_stdout())
    job = json.load(sys.stdin)
    cpus = bind(job["threads"])
    stream.write("hello", pid=os.getpid(), cpus=cpus, versions=_versions())
    try:
        (answer if job["kind"] == "interpreted" else measure)(job, stream)
    except EdgeSamError as error:
        sys.exit(f"{error.kind}: {error.message}")


def bind(threads: int) -> list[int] | None:
    """Bind the process to as many processors as it may have threads, before libraries count them.

    ExecuTorch sizes its pool by the processors the process may use and has no other setting; OpenMP and OpenBLAS
    read their variables as they are loaded.

    Returns:
        The processors, or ``None`` where the system cannot bind.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # NumPy's pool spins for a while after the mask's enlargement, against the next frame's encoder: every
    # runtime then waits a tenth of its time for a processor.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    return cpus


def measure(job: dict[str, Any], stream: Stream) -> None:
    """Load, first frame, warm-up, rounds."""
    stream.write("phase", name="import")
    import psutil

    from edgesam_mobile.lab.subjects import load_subject
    from edgesam_mobile.picture import read_picture

    importlib.import_module(job["module"])  # so that loading is timed without it
    image, point = read_picture(Path(job["image"])), (job["point"][0], job["point"][1])
    before = psutil.Process().memory_info().rss
    stream.write("phase", name="load")
    with stream.timed("load"):
        subject = load_subject(job)
    stream.flush()
    stream.write("phase", name="first")
    frame(subject, image, point, stream, prefix="first-")
    stream.write("phase", name="warm-up")
    warm_up_rounds, settled = warm_up(subject, image, point, stream)
    reference_kernel(stream)
    stream.write("phase", name="measure")
    rounds, started, delay = 0, time.monotonic(), queued_seconds()
    while rounds < LEAST_ROUNDS or time.monotonic() - started < job["seconds"]:
        mask = frame(subject, image, point, stream)
        rounds += 1
    took, queued = time.monotonic() - started, queued_seconds()
    reference_kernel(stream)
    stream.write(
        "end",
        rounds=rounds,
        warm_up_rounds=warm_up_rounds,
        stable=settled,
        waited=None if queued is None or delay is None else (queued - delay) / took,
        peak_bytes=peak_bytes(),
        before_load_bytes=before,
        mask=pack_mask(mask),
    )


def answer(job: dict[str, Any], stream: Stream) -> None:
    """Load and answer once, nothing timed: what an interpreter takes, in time or memory, says nothing of a device."""
    stream.write("phase", name="import")
    from edgesam_mobile.lab.subjects import load_subject
    from edgesam_mobile.picture import read_picture

    image = read_picture(Path(job["image"]))
    stream.write("phase", name="load")
    subject = load_subject(job)
    stream.write("phase", name="first")
    logits = subject.decode(subject.encode(subject.prepare(image)), (job["point"][0], job["point"][1]))
    stream.write(
        "end",
        rounds=None,
        warm_up_rounds=None,
        stable=None,
        waited=None,
        peak_bytes=None,
        before_load_bytes=None,
        mask=pack_mask(subject.finish(logits)),
    )


def frame(subject: Subject, image: Image, point: tuple[float, float], stream: Stream, *, prefix: str = "") -> Any:
    """One whole frame, each step timed; gives the mask. Samples are written after the clock has stopped."""
    with stream.timed(f"{prefix}frame"):
        with stream.timed(f"{prefix}pre"):
            pixels = subject.prepare(image)
        with stream.timed(f"{prefix}encode"):
            embedding = subject.encode(pixels)
        with stream.timed(f"{prefix}decode"):
            logits = subject.decode(embedding, point)
        with stream.timed(f"{prefix}post"):
            mask = subject.finish(logits)
    stream.flush()
    return mask


def reference_kernel(stream: Stream) -> None:
    """The same fixed arithmetic everywhere (``docs/protocol.md``), to compare a machine with itself."""
    import numpy as np

    side, products = 128, 20
    numbers = np.arange(side * side)
    right = (numbers * 5 % 13 - 6).astype(np.float32).reshape(side, side)
    for _ in range(KERNEL_SAMPLES):
        left = (numbers * 7 % 11 - 5).astype(np.float32)
        total = 0.0
        with stream.timed("kernel"):
            for number in range(products):
                left[0] = number % 3
                total += float(np.abs(left.reshape(side, side) @ right).sum(dtype=np.float64))
        assert total == KERNEL_SUM, "this machine cannot multiply"
    stream.flush()


def warm_up(subject: Subject, image: Image, point: tuple[float, float], stream: Stream) -> tuple[int, bool]:
    """Frames until their times settle; gives their number and whether they did."""
    from edgesam_mobile.lab.statistics import stable

    times: list[float] = []
    started = time.monotonic()
    while not stable(times):
        if len(times) >= WARM_UP_ROUNDS or time.monotonic() - started > WARM_UP_SECONDS:
            return len(times), False
        begun = time.perf_counter()
        frame(subject, image, point, stream, prefix="warm-")
        times.append(1000 * (time.perf_counter() - begun))
    return len(times), True


def queued_seconds() -> float | None:
    """How long the main thread has stood in a queue for a processor so far; ``None`` where unknown."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    Linux hands ``ru_maxrss`` down from the process that started this one, so a benchmark started by a large
    program would report that program's size; the high-water mark in ``/proc`` starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def pack_mask(mask: Any) -> dict[str, Any]:
    """A boolean mask H x W as a JSON object: eight pixels a byte, row by row, deflated, base64."""
    import numpy as np

    packed = base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode("ascii")
    return {"height": mask.shape[0], "width": mask.shape[1], "packed": packed}


class Stream:
    """The answers of a worker; samples wait until :meth:`flush`, so that nothing is written inside a timing."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting: list[dict[str, Any]] = []

    def write(self, event: str, **fields: Any) -> None:
        """Write one record, after those that wait."""
        self._waiting.append({"event": event, **fields})
        self.flush()

    def flush(self) -> None:
        """Write what waits, in one go."""
        if self._waiting:
            self._file.write("".join(json.dumps(record) + "\n" for record in self._waiting))
            self._file.flush()
            self._waiting.clear()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a block as a sample of ``stage``."""
        cpu, begun = time.process_time_ns(), time.perf_counter_ns()
        yield
        ended = time.perf_counter_ns()
        wall, used = (ended - begun) / 1e6, (time.process_time_ns() - cpu) / 1e6
        now = time.monotonic_ns()
        self._waiting.append({"event": "sample", "stage": stage, "ms": wall, "cpu_ms": used, "monotonic_ns": now})


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
