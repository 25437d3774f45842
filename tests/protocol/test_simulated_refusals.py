"""What a simulated harness lets nobody do: leave its folder, say nonsense, keep it busy for nothing."""

from __future__ import annotations

import json
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_samples import QUICK, a_job, a_launch, put_all, stored, write_files

from edgesam_mobile.errors import DeviceError, UsageError
from edgesam_mobile.lab.protocol.launch import measure
from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Chunk, Put
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.simulated import SimulatedDevice

REQUEST_LINES = (Path(__file__).parent / "streams" / "requests.jsonl").read_bytes().splitlines()


def ask(device: SimulatedDevice, *lines: bytes) -> list[dict[str, Any]]:
    """Say lines to a device, then nothing; gives everything that it answers after ``hello``."""
    with device.connect() as connection, connection.makefile("rb") as answers:
        if json.loads(answers.readline())["type"] == "error":  # the session before is not over yet
            time.sleep(0.05)
            return ask(device, *lines)
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        try:
            return [json.loads(line) for line in answers]
        except ConnectionResetError:
            return []


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/x",
        "models/x",
        "jobs/job-1.jsonl",
        "a b",
        "",
        f"models/{'a' * 64}/x.part",
        f"models/{'a' * 64}/ä",
    ],
)
def test_no_path_leads_out_of_the_two_folders(path: str, device: SimulatedDevice, tmp_path: Path) -> None:
    mask = write_files(tmp_path / "files")[stored("mask")]
    with (
        Session(device.connect, patience=QUICK) as session,
        pytest.raises(UsageError, match="no path for a device"),
    ):
        session.put(mask, path)
    put = json.loads(encode(Put(path=stored("mask"), bytes=3, sha256="a" * 64)))
    before = sorted(tmp_path.rglob("*"))
    good = json.dumps(put).encode() + b"\n"
    answers = ask(device, json.dumps(put | {"path": path}).encode() + b"\n", good)
    assert [(a["type"], a.get("code")) for a in answers] == [("error", "bad-path"), ("ready", None)]
    assert sorted(tmp_path.rglob("*")) == before


def test_no_link_leads_out_of_the_folder(device: SimulatedDevice, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (device.store.folder / "models").symlink_to(outside)
    with Session(device.connect, patience=QUICK) as session:
        with pytest.raises(DeviceError, match="bad-path"):
            put_all(session, tmp_path / "files")
        record = measure(session, a_job(), a_launch(a_job()))
    assert str(record.error).startswith("bad-path: ")
    assert list(outside.iterdir()) == []


def test_it_listens_on_the_loopback_interface_only(device: SimulatedDevice) -> None:
    with device.connect() as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
        port = connection.getpeername()[1]
        with socket.socket() as other:
            other.settimeout(2)
            # Linux routes all of 127/8 to itself: whatever listens on every interface would answer here, too.
            with pytest.raises(ConnectionRefusedError):
                other.connect(("127.0.0.2", port))


@pytest.mark.parametrize(
    ("line", "code", "closes"),
    [
        (b"not json\n", "bad-line", True),
        (b'{"type":"fetch"}\n', "bad-line", True),
        (b'{"type":"bye","pad":"' + b"x" * (1 << 20) + b'"}\n', "too-large", True),
        (b'{"type":"bye","protocol":"edgesam.harness/2"}\n', "unknown-version", True),
        (b'{"type":"dance"}\n', "unknown-type", False),
        (b'{"type":"fetch","job":"no-such-job","from":0}\n', "not-found", False),
        (b'{"type":"cancel","job":"no-such-job"}\n', "not-found", False),
    ],
)
def test_a_bad_request_is_answered_and_closes_the_session_or_not(
    line: bytes, code: str, closes: bool, device: SimulatedDevice
) -> None:
    answers = ask(device, line, b'{"type":"dance"}\n')
    if answers or code != "too-large":  # closing with unread data resets the connection
        assert answers[0]["code"] == code
        assert len(answers) == (1 if closes else 2)
    assert [a["code"] for a in ask(device, b'{"type":"dance"}\n')] == ["unknown-type"]


def test_a_chunk_must_follow_the_one_before_it(device: SimulatedDevice, tmp_path: Path) -> None:
    put = encode(Put(path=stored("mask"), bytes=3, sha256="a" * 64))
    answers = ask(device, put, encode(Chunk(path=stored("mask"), offset=1, data=b"YQ==")))
    assert answers[1]["code"] == "bad-line" and "chunk.offset: 1 where 0" in answers[1]["message"]
    answers = ask(device, put, encode(Chunk(path=stored("mask"), offset=0, data=b"YWJjZA==")))
    assert answers[1]["code"] == "too-large"
    answers = ask(device, put, encode(Chunk(path=stored("mask"), offset=0, data=b"YWJj")))
    assert answers[1]["code"] == "hash-mismatch"
    assert not [p for p in device.store.folder.rglob("*") if p.is_file()]


def test_a_session_that_says_nothing_is_ended(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path / "device", idle=0.3) as device:
        with device.connect() as connection:
            connection.sendall(b'{"type":"by')
            connection.settimeout(5)
            data = b"".join(iter(lambda: connection.recv(1000), b""))
            assert data.count(b"\n") == 1
        with Session(device.connect, patience=QUICK) as session:
            time.sleep(0.6)  # and the desktop does not mind
            put_all(session, tmp_path / "files")
            time.sleep(0.6)
            assert measure(session, a_job(), a_launch(a_job())).status == "complete"


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.binary(max_size=80) | st.sampled_from(REQUEST_LINES), max_size=6), st.randoms(use_true_random=False)
)
def test_whatever_a_harness_is_told_it_goes_on(
    device: SimulatedDevice, lines: list[bytes], chance: random.Random
) -> None:
    said = bytearray(b"\n".join(lines))
    for _ in range(chance.randrange(3)):
        if said:
            said[chance.randrange(len(said))] = chance.randrange(256)
    ask(device, said)
    with Session(device.connect, patience=QUICK) as session:
        assert session.hello is not None
    stray = [p for p in device.store.folder.iterdir() if p.name not in ("jobs", "models", "inputs")]
    assert stray == []


def test_a_file_where_a_folder_is_wanted_is_refused_and_the_other_way_round(
    device: SimulatedDevice, tmp_path: Path
) -> None:
    mask = write_files(tmp_path / "files")[stored("mask")]
    with Session(device.connect, patience=QUICK) as session:
        session.put(mask, f"{stored('mask')}/file")
        for path in (stored("mask"), f"{stored('mask')}/file/below"):
            with pytest.raises(DeviceError, match="bad-path"):
                session.put(mask, path)
        session.put(mask, f"{stored('mask')}/another")
