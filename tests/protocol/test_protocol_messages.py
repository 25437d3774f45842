"""Every kind of message: as a line and back, its limits, and its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_samples import EVENTS, JOBS, REQUESTS, a_job

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.protocol import events, requests
from edgesam_mobile.lab.protocol import messages as decoders
from edgesam_mobile.lab.protocol.messages import (
    BadMessage,
    Unknown,
    UnknownRequest,
    decode_event,
    decode_request,
    encode,
)
from edgesam_mobile.lab.protocol.schema import schema_text

COMMITTED = Path(__file__).parents[2] / "docs" / "protocol.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(COMMITTED.read_text(encoding="utf-8")))
SAMPLE: dict[str, Any] = {
    "type": "sample",
    "seq": 3,
    "job": "job-1",
    "stage": "encode",
    "round": 0,
    "ns": 5,
    "at_ns": 9,
}


def line(**changes: Any) -> bytes:
    kept = {key: value for key, value in (SAMPLE | changes).items() if value is not ...}
    return json.dumps(kept).encode()


@pytest.mark.parametrize("kind", decoders.EVENTS)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_event_is_one_line_and_comes_back(kind: str, data: st.DataObject) -> None:
    event = data.draw(EVENTS[kind])
    encoded = encode(event)
    assert encoded.count(b"\n") == 1 and encoded.endswith(b"\n")
    assert decode_event(encoded) == event
    VALIDATOR.validate(json.loads(encoded))


@pytest.mark.parametrize("kind", decoders.REQUESTS)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_request_is_one_line_and_comes_back(kind: str, data: st.DataObject) -> None:
    request = data.draw(REQUESTS[kind])
    encoded = encode(request)
    assert encoded.count(b"\n") == 1 and encoded.endswith(b"\n")
    assert decode_request(encoded) == request
    VALIDATOR.validate(json.loads(encoded))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(JOBS, st.dictionaries(st.sampled_from(["later", "colour", "x-1"]), st.integers() | st.text("ab"), min_size=1))
def test_unknown_fields_pass(job: requests.Job, more: dict[str, Any]) -> None:
    assert decode_request(json.dumps({**json.loads(encode(job)), **more}).encode()) == job


def test_unknown_types_are_told_from_damage() -> None:
    assert decode_event(line(type="weather", sunny=True)) == Unknown(type="weather", seq=3, job="job-1")
    assert decode_request(line(type="dance")) == UnknownRequest("dance")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ns": "5"}, "sample.ns"),
        ({"ns": 5.5}, "sample.ns"),
        ({"ns": -1}, "sample.ns"),
        ({"ns": 2**63}, "sample.ns"),
        ({"ns": True}, "sample.ns"),
        ({"ns": None}, "sample.ns"),
        ({"at_ns": ...}, "sample.at_ns"),
        ({"job": "Job"}, "sample.job"),
        ({"job": "x" * 65}, "sample.job"),
        ({"job": ...}, "sample.job"),
        ({"seq": ...}, "sample.seq"),
        ({"stage": "Encode it"}, "sample.stage"),
        ({"type": ...}, "type"),
        ({"type": 5}, "type"),
        ({"type": "no such type"}, "event.type"),
        ({"type": "weather", "seq": -1}, "event.seq"),
    ],
)
def test_an_error_names_the_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadMessage) as told:
        decode_event(line(**changes))
    assert told.value.code == "bad-line"
    assert told.value.message.startswith(f"{named}: ")
    assert "\n" not in told.value.message and len(told.value.message) < 450
    assert told.value.hint


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_are_finite(number: bytes) -> None:
    state = b'{"type":"state","seq":1,"job":"j","at_ns":1,"headroom":%s}'
    assert isinstance(decode_event(state % b"1e3"), events.State)
    with pytest.raises(BadMessage):
        decode_event(state % number)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\n", b"null", b"[]", b'"x"', b"{", b"{}", b"[" * 100_000, b"\xef\xbb\xbf{}", b"\xff", b'{"type":"\xff"}'],
)
def test_what_is_no_object_is_a_bad_line(damaged: bytes) -> None:
    for decode in (decode_event, decode_request):
        with pytest.raises(BadMessage) as told:
            decode(damaged)
        assert told.value.code == "bad-line"


def test_a_line_has_a_limit_both_ways() -> None:
    with pytest.raises(BadMessage) as told:
        decode_event(line(pad="x" * (1 << 20)))
    assert told.value.code == "too-large"
    error = events.Error(seq=0, code="internal", message="x" * (1 << 20))
    with pytest.raises(UsageError, match="1 MiB"):
        encode(error)


def test_another_version_is_told_before_all_else() -> None:
    for decode in (decode_event, decode_request):
        with pytest.raises(BadMessage) as told:
            decode(b'{"type":"hello","protocol":"edgesam.harness/2","everything":"else differs"}')
        assert told.value.code == "unknown-version"
        assert "edgesam.harness/2" in told.value.message and "edgesam.harness/1" in told.value.message


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        a_job().label = "another"  # type: ignore[misc]


def test_the_committed_schema_is_the_generated_one() -> None:
    if COMMITTED.read_text(encoding="utf-8") != schema_text():
        pytest.fail(
            "docs/protocol.schema.json is out of date: run `python -m edgesam_mobile.lab.protocol.schema`",
            pytrace=False,
        )
    VALIDATOR.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("field", ["job", "encoder", "golden", "measure"])
def test_a_job_without_a_required_field_does_not_validate(field: str) -> None:
    whole = json.loads(encode(a_job()))
    VALIDATOR.validate(whole)
    del whole[field]
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(whole)
