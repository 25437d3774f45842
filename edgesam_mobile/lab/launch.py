"""One launch of one case: starts a worker, collects what it answers, and says how it ended."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.lab.cases import Case

WORKER = (sys.executable, "-m", "edgesam_mobile.lab.worker")
_SHOWN = 200  # characters of somebody else's words in one line


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing, in milliseconds; ``monotonic_ns`` is the system's clock as it ended.

    Attributes:
        cpu_ms: processor time of all threads.
    """

    stage: str
    ms: float
    cpu_ms: float
    monotonic_ns: int


@dataclass
class Launch:
    """What one process measured.

    Attributes:
        index: the round of the interleaved run that it belongs to.
        started: ISO 8601 in UTC.
        error: why it failed or that it was interrupted; its samples are kept all the same.
        phase: the last one that the worker entered.
        hello: what the worker said of itself: process id, processors, versions.
        end: what it said last: rounds, whether the warm-up settled, memory.
        mask: what it took for the object in the last round.
    """

    case: Case
    index: int
    status: Literal["ok", "failed", "interrupted"] = "failed"
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    error: str | None = None
    phase: str = "start"
    hello: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    mask: NDArray[np.bool_] | None = None

    def times(self, stage: str, *, cpu: bool = False) -> list[float]:
        """Milliseconds of a stage, of wall or of processor time, in order of time."""
        return [s.cpu_ms if cpu else s.ms for s in self.samples if s.stage == stage]


OnSample = Callable[[Case, Sample], None]


def run_launch(
    launch: Launch,
    job: dict[str, Any],
    *,
    timeout: float,
    on_sample: OnSample = lambda case, sample: None,
    command: Sequence[str] = WORKER,
) -> None:
    """Run a worker to its end and fill ``launch`` as it goes.

    A worker that dies, answers nonsense or takes longer than ``timeout`` seconds makes a failed launch, not an
    error.

    Raises:
        KeyboardInterrupt: after killing the worker; what it had measured is in ``launch``.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        # In a session of its own: Ctrl-C must reach this process only, which then decides.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # As runtimes wait by their own defaults; the command line has set it for its own work.
            env={name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        watchdog = threading.Timer(timeout, expire)
        watchdog.start()
        try:
            nonsense = _converse(process, job, launch, on_sample)
        except KeyboardInterrupt:
            launch.status, launch.error = "interrupted", f"interrupted in phase {launch.phase}"
            raise
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if launch.end and nonsense is None:
            launch.status = "ok"
            return
        if expired.is_set():
            how = f"took longer than {timeout:.0f} s"
        else:
            how = nonsense or _ending(process.returncode)
        launch.error = f"{how}, in phase {launch.phase}{_last_words(errors)}"


def _converse(process: subprocess.Popen[str], job: dict[str, Any], launch: Launch, on_sample: OnSample) -> str | None:
    """Hand over the job and take in every answer; gives what was wrong with one."""
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdin as stdin:
            json.dump(job, stdin)
    except BrokenPipeError:
        pass  # it died before it read; its answers, or their absence, tell
    for line in process.stdout:
        try:
            _take_in(json.loads(line), launch, on_sample)
        except (ValueError, KeyError, TypeError, zlib.error):
            return f"answered what is no record ({_plain(line)!r})"
    process.wait()
    return None


def _take_in(record: dict[str, Any], launch: Launch, on_sample: OnSample) -> None:
    event = record["event"]
    if event == "sample":
        values = float(record["ms"]), float(record["cpu_ms"])
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise ValueError("a time is a number from 0")
        sample = Sample(str(record["stage"]), *values, int(record["monotonic_ns"]))
        launch.samples.append(sample)
        on_sample(launch.case, sample)
    elif event == "phase":
        launch.phase = str(record["name"])
    elif event == "hello":
        launch.hello = {"pid": record["pid"], "cpus": record["cpus"], "versions": record["versions"]}
    elif event == "end":
        launch.mask = unpack_mask(record["mask"])
        names = ("rounds", "warm_up_rounds", "stable", "waited", "peak_bytes", "before_load_bytes")
        launch.end = {name: record[name] for name in names}
    else:
        raise ValueError(f"no such event: {event}")


def unpack_mask(packed: dict[str, Any]) -> NDArray[np.bool_]:
    """The boolean mask H x W that :func:`edgesam_mobile.lab.worker.pack_mask` packed."""
    height, width = int(packed["height"]), int(packed["width"])
    octets = np.frombuffer(zlib.decompress(base64.b64decode(packed["packed"])), np.uint8)
    return np.unpackbits(octets, count=height * width).reshape(height, width).astype(np.bool_)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_words(errors: IO[str]) -> str:
    errors.seek(0)
    last = next((line for line in reversed(errors.read().splitlines()) if line.strip()), None)
    return f": {_plain(last)}" if last else ""


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.strip()[:_SHOWN])
