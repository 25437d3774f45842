"""Runs made up for tests: times drawn from a seed, on devices that nobody has. No figure here was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord, RunRecord, SampleRecord, StateRecord

IPHONE = DeviceRecord(
    "usb:0000-MADE-UP",
    "ios",
    {"maker": "Apple", "model": "iPhone14,7", "os": "iOS", "os_version": "99.1"},
)
PHONE = DeviceRecord("adb:MADEUP", "android", {"maker": "Made", "model": "Up 9", "os": "Android", "os_version": "99"})
HOST = DeviceRecord("host", "host", {"model": "Some CPU", "cores": 2})
COREML = CaseRecord(
    "coreml-fp16", "coreml", "fp16", "Core ML", "all", sha256=("a" * 64, "b" * 64), bytes=19_100_000,
    accuracy={"box": 64.33, "centre": 34.94},
)  # fmt: skip
TFLITE = CaseRecord("tflite-fp16", "tflite", "fp16", "TFLite", "gpu", 4, bytes=19_000_000, accuracy={"box": 64.2})
SPLIT = {"pre": 0.1, "encode": 0.6, "decode": 0.2, "post": 0.08}


def harness(**changes: Any) -> dict[str, Any]:
    return {"harness": {"name": "made-up", "version": "0", "build": "release", "debugger": False} | changes}


def frames(ms: Sequence[float], split: Mapping[str, float] = SPLIT, *, pause_ms: float = 1.0) -> list[SampleRecord]:
    """Frames of these lengths with their parts, and a sample of each load, first frame and reference kernel."""
    samples: list[tuple[str, int, float, float]] = [
        ("load-cold", 0, 900.0, 900), ("load-cached", 0, 90.0, 1000), ("first-frame", 0, 3 * ms[0], 1100),
        ("kernel", 0, 5.0, 1200),
    ]  # fmt: skip
    clock = 2000.0
    for number, time in enumerate(ms):
        clock += time + pause_ms
        samples += [(part, number, share * time, clock) for part, share in split.items()]
        samples.append(("frame", number, time, clock))
    return [
        SampleRecord(seq, stage, number, round(time * 1e6), round(at * 1e6))
        for seq, (stage, number, time, at) in enumerate(samples, 1)
    ]


def launch(ms: Sequence[float], index: int = 0, **changes: Any) -> LaunchRecord:
    """A launch without a flaw on an iPhone 14, of frames of these lengths, unless ``changes`` say otherwise."""
    samples = frames(ms) if len(ms) else []
    cool = {"thermal": "nominal", "low_power": False, "battery": {"level": 0.8, "charging": True, "celsius": 27.0}}
    whole = LaunchRecord(
        id=f"{index:032x}",
        case=COREML,
        device=IPHONE,
        index=index,
        status="complete",
        started="2026-11-23T09:00:00Z",
        ended="2026-11-23T09:01:00Z",
        hello=harness(),
        check={"masks": [{"iou": 0.998, "best_same": True}], "least_iou": 0.95, "passed": True},
        result={"requested": "all", "applied": "all", "warm_up": {"rounds": 9, "stable": True}, "rounds": len(ms)},
        samples=tuple(samples),
        states=tuple(StateRecord(1000 + i, s.at_ns, dict(cool)) for i, s in enumerate(samples[::40])),
    )
    if case := changes.get("case"):
        changes.setdefault("result", {**(whole.result or {}), "requested": case.delegate, "applied": case.delegate})
    return dataclasses.replace(whole, **changes)


def run(launches: Sequence[LaunchRecord], **changes: Any) -> RunRecord:
    whole = RunRecord(
        id="5eed" * 8, created="2026-11-23T09:00:00Z", status="complete", model="edge-sam", weights_sha256="0" * 64,
        trained=True, package_sha256="1" * 64, settings={"launches": len(launches), "seconds": 5},
        tools={"edgesam-mobile": "0"}, launches=tuple(launches),
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


def times(around: float, count: int = 60, *, spread: float = 0.02, seed: int = 0) -> list[float]:
    """Lengths of frames in milliseconds, with the long tail that frames have."""
    random = np.random.default_rng(seed)
    return [float(t) for t in around * (1 + spread * random.gamma(2.0, 1.0, count))]


def launches_around(ms: float, count: int = 5, *, seed: int = 0, **changes: Any) -> list[LaunchRecord]:
    return [launch(times(ms, seed=seed + i), i, **changes) for i in range(count)]
