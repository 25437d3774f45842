"""Runs and launches to store: a plain one of each, and hypothesis' of every kind."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from edgesam_mobile.lab.records import (
    CaseRecord,
    DeviceRecord,
    LaunchRecord,
    RunRecord,
    SampleRecord,
    StateRecord,
)

STAGES = ("pre", "encode", "decode", "post", "frame")
CASE = CaseRecord("tflite-fp16", "tflite", "fp16", "tflite", "xnnpack", 4, ("a" * 64, "b" * 64), 19_000_000)
DEVICE = DeviceRecord("adb:R58M", "android", {"model": "Pixel", "cores": 8})


def a_run(**changes: Any) -> RunRecord:
    """A run without launches."""
    fields: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "created": "2026-11-25T16:00:00Z",
        "status": "running",
        "model": "edge-sam-open",
        "weights_sha256": "c" * 64,
        "trained": True,
        "package_sha256": "d" * 64,
        "settings": {"launches": 5, "seconds": 12.5},
        "tools": {"edgesam-mobile": "1.0"},
    }
    return RunRecord(**fields | changes)


def a_launch(frames: int = 3, **changes: Any) -> LaunchRecord:
    """A complete launch with five samples a frame, and two states."""
    samples = tuple(
        SampleRecord(seq, STAGES[seq % 5], seq // 5, 1_000_000 + seq, 10**15 + seq, 900_000 + seq)
        for seq in range(frames * 5)
    )
    states = tuple(StateRecord(frames * 5 + i, 10**15 + i, {"thermal": "nominal", "level": 0.5}) for i in range(2))
    fields: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "case": CASE,
        "device": DEVICE,
        "index": 0,
        "status": "complete",
        "started": "2026-11-25T16:00:01Z",
        "ended": "2026-11-25T16:00:21Z",
        "hello": {"harness": {"name": "test"}},
        "samples": samples,
        "states": states,
    }
    return LaunchRecord(**fields | changes)


# What PostgreSQL's text holds. NUL may stand in JSON, which is escaped.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_json_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _json_text
bodies = st.dictionaries(
    _json_text,
    st.recursive(
        _leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(_json_text, x, max_size=3), max_leaves=5
    ),
    max_size=4,
)
_counts = st.integers(0, 2**31 - 1)
_ns = st.integers(0, 2**63 - 1)
_ids = st.builds(lambda: uuid.uuid4().hex)

_samples = st.builds(
    SampleRecord, seq=_ns, stage=words, round=_counts, ns=_ns, at_ns=_ns, cpu_ns=st.none() | _ns
)  # fmt: skip
_states = st.builds(StateRecord, seq=_ns, at_ns=_ns, body=bodies)
_cases = st.builds(
    CaseRecord,
    id=words,
    format=words,
    precision=words,
    runtime=words,
    delegate=st.none() | words,
    threads=st.none() | _counts,
    sha256=st.lists(words, max_size=2).map(tuple),
    bytes=st.none() | _ns,
    accuracy=st.dictionaries(words, st.floats(0, 100), max_size=3),
    reference=st.dictionaries(words, st.floats(0, 100), max_size=3),
)
_devices = st.builds(
    DeviceRecord,
    key=words,
    kind=st.sampled_from(("android", "ios", "emulator", "host", "simulated")),
    info=bodies,
)


def _in_order(records: Any) -> Any:
    return st.lists(records, max_size=5, unique_by=lambda r: r.seq).map(
        lambda r: tuple(sorted(r, key=lambda x: x.seq))
    )


launches = st.builds(
    LaunchRecord,
    id=_ids,
    case=_cases,
    device=_devices,
    index=_counts,
    status=st.sampled_from(("complete", "failed", "cancelled", "truncated")),
    started=words,
    ended=words,
    error=st.none() | words,
    hello=bodies,
    check=st.none() | bodies,
    result=st.none() | bodies,
    samples=_in_order(_samples),
    states=_in_order(_states),
)
# Tags of hypothesis' runs differ: a tag belongs to one run.
runs = st.builds(
    RunRecord,
    id=_ids,
    created=words,
    status=st.just("running"),
    model=words,
    weights_sha256=words,
    trained=st.booleans(),
    package_sha256=words,
    settings=bodies,
    tools=st.dictionaries(words, words, max_size=3),
    tags=st.integers(0, 3).map(lambda n: tuple(f"t-{uuid.uuid4().hex}" for _ in range(n))),
)
