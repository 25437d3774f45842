"""Workers that die, hang or talk nonsense: a failed launch that says so, never a number or an error."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.lab.cases import Case
from edgesam_mobile.lab.launch import Launch, Sample, run_launch, unpack_mask
from edgesam_mobile.lab.worker import pack_mask

CASE = Case("x", "artifact", 1, "nothing")
BEGIN = """
import json, os, signal, sys, time
job = json.load(sys.stdin)
def say(**record): print(json.dumps(record), flush=True)
def sample(ms): say(event="sample", stage="frame", ms=ms, cpu_ms=ms, monotonic_ns=1)
def end(): say(event="end", rounds=2, warm_up_rounds=6, stable=True, waited=0.0, peak_bytes=9, before_load_bytes=4,
               mask={"height": 1, "width": 8, "packed": "eJxjAAAAAQAB"})
say(event="hello", pid=os.getpid(), cpus=[0], versions={})
say(event="phase", name="measure")
sample(job["ms"])
"""


def launched(script: str, *, timeout: float = 60) -> Launch:
    launch = Launch(CASE, 0)
    run_launch(launch, {"ms": 5}, timeout=timeout, command=(sys.executable, "-c", BEGIN + script))
    return launch


def test_a_stream_with_an_end_is_a_launch() -> None:
    launch = launched("sample(7); print('chatter', file=sys.stderr); end()")
    assert (launch.status, launch.error) == ("ok", None)
    assert launch.times("frame") == [5, 7]
    assert launch.end["peak_bytes"] == 9
    assert launch.mask is not None and launch.mask.shape == (1, 8)


def test_a_killed_worker_fails_and_its_samples_are_kept() -> None:
    launch = launched("os.kill(os.getpid(), signal.SIGKILL)")
    assert launch.status == "failed"
    assert launch.error == "was ended by SIGKILL, in phase measure"
    assert launch.times("frame") == [5]


def test_a_worker_that_raises_fails_with_its_last_line() -> None:
    launch = launched("raise MemoryError('no room')")
    assert launch.error == "ended with exit code 1, in phase measure: MemoryError: no room"


def test_a_stream_that_stops_without_an_end_fails_whatever_the_exit_code() -> None:
    assert launched("sample(6)").error == "ended with exit code 0, in phase measure"


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "[]",
        "5",
        '{"event": "surprise"}',
        '{"event": "sample", "stage": "frame"}',
        '{"event": "sample", "stage": "frame", "ms": NaN, "cpu_ms": 1, "monotonic_ns": 1}',
        '{"event": "sample", "stage": "frame", "ms": -1, "cpu_ms": 1, "monotonic_ns": 1}',
        '{"event": "end", "rounds": 2}',
        '{"event": "sample", "stage": "frame", "ms": 1',
        "\\x00\\xff\\x1b[2J",
    ],
)
def test_an_answer_that_is_no_record_fails_the_launch_at_once(line: str) -> None:
    launch = launched(f"print('''{line}''', flush=True); sample(6); end(); time.sleep(600)")
    assert launch.status == "failed"
    assert launch.error is not None and launch.error.startswith("answered what is no record")
    assert launch.error.isprintable()
    assert launch.times("frame") == [5]


def test_a_worker_that_hangs_is_killed_in_time() -> None:
    started = time.monotonic()
    launch = launched("time.sleep(600)", timeout=2)
    assert time.monotonic() - started < 30
    assert launch.error == "took longer than 2 s, in phase measure"
    with pytest.raises(ProcessLookupError):
        os.kill(launch.hello["pid"], 0)


def test_a_worker_that_never_reads_its_job_fails() -> None:
    launch = Launch(CASE, 0)
    command = (sys.executable, "-c", "import sys; sys.stdin.close(); sys.exit('no')")
    run_launch(launch, {"padding": "x" * 10_000_000}, timeout=60, command=command)
    assert launch.error == "ended with exit code 1, in phase start: no"


def test_a_flood_on_standard_error_does_not_block() -> None:
    assert launched("sys.stderr.write('x' * 5_000_000 + '\\n'); sample(6); end()").status == "ok"


def test_an_interrupt_kills_the_worker_and_keeps_what_there_is() -> None:
    launch = Launch(CASE, 0)

    def interrupt(case: Case, sample: Sample) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command = (sys.executable, "-c", BEGIN + "time.sleep(600)")
        run_launch(launch, {"ms": 5}, timeout=60, command=command, on_sample=interrupt)
    assert (launch.status, launch.error) == ("interrupted", "interrupted in phase measure")
    assert launch.times("frame") == [5]
    with pytest.raises(ProcessLookupError):
        os.kill(launch.hello["pid"], 0)


def test_ctrl_c_does_not_reach_the_worker_itself(tmp_path: Path) -> None:
    """The parent decides what becomes of a launch, so the worker is not in its process group."""
    script = f"open({str(tmp_path / 'group')!r}, 'w').write(str(os.getpgrp())); end()"
    assert launched(script).status == "ok"
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_masks_survive_the_stream(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    assert np.array_equal(unpack_mask(pack_mask(mask)), mask)
