"""What a run on devices shows while it goes on: lines for a log, a table for a terminal."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from made_up import launch
from rich.console import Console

from edgesam_mobile.cli.live import LiveView
from edgesam_mobile.cli.output import out
from edgesam_mobile.lab.protocol.events import Error, Hello, Phase, Sample, State
from edgesam_mobile.lab.protocol.fields import Battery, Device, Harness

JOB = "job-1"


@pytest.fixture(autouse=True)
def human() -> None:
    out.configure(as_json=False, quiet=False)


def table(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(view._table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def hello(model: str) -> Hello:
    return Hello(
        seq=0,
        harness=Harness(name="made-up", version="0", build="release", debugger=False),
        device=Device(class_="ios", model=model),
        runtimes=(),
    )


def watched(model: str, ms: float) -> LiveView:
    view = LiveView()
    view.planned("ios:A", ["coreml-fp16 all"], 5)
    battery = Battery(celsius=31.5)
    events: list[Any] = [
        hello(model),
        Phase(seq=1, job=JOB, name="measure", at_ns=1),
        State(seq=2, job=JOB, at_ns=2, thermal="fair", battery=battery),
        *(Sample(seq=n, job=JOB, stage="frame", round=n, ns=round(ms * 1e6), at_ns=n) for n in range(3, 20)),
        Sample(seq=20, job=JOB, stage="encode", round=0, ns=1, at_ns=20),
    ]
    for event in events:
        view.event("ios:A", "coreml-fp16 all", 1, event)
    return view


@pytest.mark.parametrize(
    ("model", "ms", "said"),
    [("iPhone14,7", 20.0, "within 33.3 ms"), ("iPhone14,7", 40.0, "over 33.3 ms"), ("Pixel", 20.0, "not compared")],
)
def test_the_table_shows_times_heat_and_how_the_target_looks_so_far(model: str, ms: float, said: str) -> None:
    shown = table(watched(model, ms))
    row = next(line for line in shown.splitlines() if "ios:A" in line)
    for part in ("coreml-fp16 all", "measure", "17", f"{ms:.1f}", f"{1000 / ms:.1f}", said, "fair", "31.5"):
        assert part in row


def test_before_anything_is_timed_the_table_says_what_is_sent_and_what_went_wrong() -> None:
    view = LiveView()
    view.planned("adb:B", ["tflite-fp16"], 1)
    view.sending("adb:B", "encoder.tflite", 5_000_000, 20_000_000)
    assert "sending encoder.tflite: 5.0 of 20.0 MB" in table(view)
    view.event("adb:B", "tflite-fp16", 0, Error(seq=1, job=JOB, code="load-failed", message="no"))
    assert "load-failed" in table(view)


def test_off_a_terminal_every_launch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = watched("iPhone14,7", 20.0)
    with view.shown():
        view.launched("ios:A", "coreml-fp16 all", launch([20.0, 21.0, 22.0]))
        view.launched("ios:A", "coreml-fp16 all", launch([], status="failed", error="it broke"))
        view.said("ios:A", "given up")
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "ios:A [1/5] coreml-fp16 all launch 1: complete, 3 frames, median 21.0 ms"
    assert second.endswith("failed, no frames: it broke") and third == "ios:A: given up"


def test_off_a_terminal_a_long_push_and_a_long_launch_tell_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    view = LiveView()
    view.planned("adb:B", ["tflite-fp16"], 1)
    for clock in range(100):
        view.sending("adb:B", "encoder.tflite", clock * 200_000, 20_000_000)
    sent = capsys.readouterr().err.splitlines()
    assert sent == [f"adb:B: sending encoder.tflite: {at * 0.2:.1f} of 20.0 MB" for at in (30, 60, 90)]
    view.event("adb:B", "tflite-fp16", 0, Phase(seq=1, job=JOB, name="measure", at_ns=1))
    view.event("adb:B", "tflite-fp16", 0, State(seq=2, job=JOB, at_ns=2, thermal="fair"))
    for clock in range(100, 700):
        sample = Sample(seq=clock, job=JOB, stage="frame", round=clock, ns=25_000_000, at_ns=clock)
        view.event("adb:B", "tflite-fp16", 0, sample)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "adb:B: tflite-fp16 launch 1: measure, 21 frames, lately 25.0 ms, thermal fair"
