"""Readers of streams, against the recorded ones and against whatever else may come."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_samples import a_job, a_launch
from record_streams import FOLDER, recordings

from edgesam_mobile.lab.protocol.events import Event, job_of
from edgesam_mobile.lab.protocol.messages import BadMessage, UnknownRequest, decode_request
from edgesam_mobile.lab.protocol.stream import Reader, read
from edgesam_mobile.lab.records import LaunchRecord

STREAMS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".jsonl", ".txt") and path.stem != "requests")
GOOD = (FOLDER / "good-job.jsonl").read_bytes()
GOOD_LINES = GOOD.splitlines(keepends=True)
SCHEMA = Path(__file__).parents[2] / "docs" / "protocol.schema.json"
each_stream = pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)


def expected_of(path: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    return expected


def reader_for(transport: str) -> Reader:
    return Reader("duplex" if transport == "duplex" else "one-job", instrumentation=transport == "instrumentation")


def found(reader: Reader, events: list[Event]) -> dict[str, Any]:
    """What a reader found, as ``NAME.expected.json`` says it."""
    sequences = [s for s in reader.streams.values() if s.job is not None and s.next > 0]
    keys = [key for key in reader.streams if key is not None] if reader.transport == "duplex" else [None]
    endings = [reader.ending(key) for key in keys] or [reader.ending()]
    kinds = {ending.kind for ending in endings}
    if reader.transport == "duplex" and not sequences and reader.fault is None:
        kinds = {"whole"}  # no job, none to miss
    skipped = sum((s.skipped for s in reader.streams.values()), Counter())
    kind = next(kind for kind in ("damaged", "truncated", "whole") if kind in kinds)
    return {
        "ending": kind,
        "code": None if kind == "whole" else next(e.code for e in endings if e.kind == kind),
        "events": dict(Counter(event.type for event in events)),
        "skipped": dict(skipped),
        "jobs": {s.job: None if s.end is None else s.end.status for s in sequences},
    }


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def launch_of(lines: bytes) -> LaunchRecord:
    reader, launch = Reader("one-job"), a_launch(a_job())
    for event in reader.feed(lines):
        launch.take(event)
    return launch.record(reader.ending())


def test_the_recorded_streams_are_those_that_the_script_makes() -> None:
    made = recordings()
    kept = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name != "README.md"}
    assert sorted(made) == sorted(kept)
    assert [name for name in made if made[name] != kept[name]] == []


@each_stream
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 22])
def test_a_recorded_stream_is_read_as_expected(path: Path, size: int) -> None:
    if size == 1 and path.stat().st_size > 1 << 20:
        size = 100  # a megabyte byte by byte says nothing more
    expected = expected_of(path)
    reader = reader_for(expected.pop("transport"))
    events = list(read(pieces(path.read_bytes(), size), reader))
    assert found(reader, events) == expected


def test_undamaged_lines_validate_against_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    undamaged = [p for p in STREAMS if p.suffix == ".jsonl" and expected_of(p)["ending"] != "damaged"]
    assert len(undamaged) > 8
    for path in undamaged:
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and (content := json.loads(line))["type"] != "weather":
                validator.validate(content)


def test_recorded_requests_are_answered_as_expected() -> None:
    codes: list[str | None] = []
    for line in (FOLDER / "requests.jsonl").read_bytes().splitlines(keepends=True):
        try:
            request = decode_request(line)
            codes.append("unknown-type" if isinstance(request, UnknownRequest) else None)
        except BadMessage as bad:
            codes.append(bad.code)
    assert codes == expected_of(FOLDER / "requests.jsonl")["codes"]


def test_the_last_words_of_android_explain_a_missing_end() -> None:
    reader = Reader("one-job", instrumentation=True)
    reader.feed((FOLDER / "instrumentation-crash.txt").read_bytes())
    assert "Process crashed." in str(reader.ending().message)


def test_what_a_dropped_cable_took_is_read_from_the_file_that_android_kept() -> None:
    reader = Reader("one-job", instrumentation=True)
    seen = reader.feed((FOLDER / "instrumentation-good.txt").read_bytes()[:3000])
    assert 5 < len(seen) < len(GOOD_LINES) and reader.ending().kind == "truncated"
    kept = Reader("one-job", streams=reader.streams)
    seen += kept.feed(GOOD)
    assert seen == Reader("one-job").feed(GOOD)
    assert kept.ending().kind == "whole"


@settings(max_examples=200)
@given(st.integers(0, len(GOOD_LINES)), st.integers(0, len(GOOD_LINES)), st.integers(0, 200))
def test_a_kept_stream_read_again_gives_what_is_missing_and_no_doubles(seen: int, start: int, torn: int) -> None:
    first = Reader("one-job")
    broken = b"".join(GOOD_LINES[:seen]) + (GOOD_LINES[seen][:torn] if seen < len(GOOD_LINES) else b"")[:-1]
    events = first.feed(broken)
    again = Reader("one-job", streams=first.streams)
    events += again.feed(b"".join(GOOD_LINES[start:]))
    if start <= seen:
        assert [event.seq for event in events] == list(range(len(GOOD_LINES)))
        assert again.ending().kind == "whole"
    else:
        assert [event.seq for event in events] == list(range(seen))
        assert again.ending().kind == ("truncated" if start == len(GOOD_LINES) else "damaged")


@pytest.mark.parametrize("name", ["good-job.jsonl", "duplex-session.jsonl", "instrumentation-good.txt"])
@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(1, 5), st.integers(1, 5000))
def test_mutated_bytes_never_surprise_and_what_was_before_them_is_kept(
    name: str, chance: random.Random, mutations: int, size: int
) -> None:
    good = (FOLDER / name).read_bytes()
    data, places = bytearray(good), sorted(chance.randrange(len(good)) for _ in range(mutations))
    for place in reversed(places):
        kind = chance.randrange(4)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            del data[place : place + chance.randrange(1, 300)]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 50))
        else:
            data[place:place] = data[place // 2 : place]
    transport = expected_of(FOLDER / name)["transport"]
    reader, launch = reader_for(transport), a_launch(a_job())
    events = list(read(pieces(bytes(data), size), reader))
    before = reader_for(transport).feed(good[: good[: places[0]].rfind(b"\n") + 1])
    assert events[: len(before)] == before
    for job in {job_of(event) for event in events}:
        numbers = [event.seq for event in events if transport != "duplex" or job_of(event) == job]
        assert numbers == sorted(set(numbers))
    for event in events:
        launch.take(event)
    record = launch.record(reader.ending("job-1" if transport == "duplex" else None))
    assert record.status == "complete" or record.error


@settings(max_examples=300)
@given(st.binary(max_size=3000), st.booleans(), st.sampled_from(["one-job", "duplex"]))
def test_any_bytes_are_read_to_a_plain_ending(data: bytes, instrumentation: bool, transport: Any) -> None:
    reader = Reader(transport, instrumentation=instrumentation)
    assert reader.feed(data) == []
    assert reader.ending().message
    assert str(reader.ending().message).isprintable()


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    reader, piece = Reader("one-job"), b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(3000):  # 190 MiB
            reader.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.fault is not None and reader.fault.code == "too-large"
    assert peak < 4 << 20


@pytest.mark.parametrize("transport", ["one-job", "duplex"])
def test_a_device_that_invents_types_and_jobs_takes_bounded_memory(transport: Any) -> None:
    for event in ('"type":"t{0}","seq":{1},"job":"j"', '"type":"weather","seq":0,"job":"j{0}"'):
        reader = Reader(transport)
        reader.feed(GOOD_LINES[0].replace(b'"job-1"', b'"j"'))
        for number in range(5000):
            reader.feed(b"{%s}\n" % event.format(number, number + 1).encode())
        assert reader.fault is not None
        assert sum(len(s.counts) for s in reader.streams.values()) <= 1100


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("good-job", "complete", None),
        ("unknown", "complete", None),
        ("failed-check", "failed", "check failed: a mask's IoU is 0.5000, at least 0.95 is wanted"),
        ("refused-delegate", "failed", "no-delegate: "),
        ("cancelled", "cancelled", "cancelled before it was complete"),
        ("truncated", "truncated", "the events end at seq 20 without `end`"),
        ("torn", "truncated", "in the middle of a line"),
        ("gap", "truncated", "seq 11 where 10 was to come"),
        ("counts", "truncated", "`end` counts 30 events sample, 29 came"),
        ("wrong-version", "truncated", "edgesam.harness/2"),
        ("empty", "truncated", "seq 0"),
    ],
)
def test_a_stream_becomes_a_launch_that_is_marked_as_what_it_is(name: str, status: str, told: str | None) -> None:
    data = (FOLDER / f"{name}.jsonl").read_bytes()
    record = launch_of(data)
    assert record.status == status
    assert (told is None and record.error is None) or (told is not None and told in str(record.error))
    assert len(record.samples) == expected_of(FOLDER / f"{name}.jsonl")["events"].get("sample", 0)


def test_a_launch_holds_what_was_said() -> None:
    record = launch_of(GOOD)
    lines = [json.loads(line) for line in GOOD_LINES]
    assert record.hello["device"]["class"] == "simulated"
    assert [s.seq for s in record.samples] == [n for n, line in enumerate(lines) if line["type"] == "sample"]
    assert record.times("frame") == [
        line["ns"] / 1e6 for line in lines if line["type"] == "sample" and line["stage"] == "frame"
    ]
    assert record.result is not None and record.result["applied"] == "cpu" and "seq" not in record.result
    assert record.check is not None and record.check["masks"] == [{"iou": 0.999, "best_same": True}]
    assert [s.body["thermal"] for s in record.states] == ["nominal"] * len(record.states)
    json.dumps([record.hello, record.check, record.result, [s.body for s in record.states]])


@pytest.mark.parametrize("missing", [b'"type":"result"', b'"type":"check"'])
def test_a_device_that_calls_itself_complete_without_check_or_result_is_not_believed(missing: bytes) -> None:
    lines = [json.loads(line) for line in GOOD_LINES if missing not in line]
    counts = Counter(line["type"] for line in lines[:-1])
    lines[-1]["counts"] = counts
    record = launch_of(b"".join(json.dumps(line | {"seq": n}).encode() + b"\n" for n, line in enumerate(lines)))
    assert record.status == "failed"
    assert "the device calls the job complete" in str(record.error)
