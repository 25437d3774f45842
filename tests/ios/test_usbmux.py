"""The client of usbmux: devices, changes, connections, and whatever a service may answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab import usbmux
from edgesam_mobile.lab.usbmux import ADDRESS, LONGEST, Attached, Change, Unreachable, attached, connect, listening
from tests.ios.fake_usbmuxd import FakeUsbmuxd, Phone, packet

NEW, OLD = "000081100012345678ABCDEF", "ABCDEF0123456789abcdef0123456789abcdef01"
NEW_KEY, OLD_KEY = "00008110-0012345678ABCDEF", OLD.lower()
PORT = 8765


@pytest.fixture
def mux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUsbmuxd]:
    with FakeUsbmuxd(tmp_path / "mux") as mux:
        monkeypatch.setenv(ADDRESS, mux.address)
        yield mux


@pytest.fixture
def echo() -> Iterator[Callable[[], socket.socket]]:
    """A program that greets whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greeted() -> socket.socket:
            connection = socket.create_connection(server.getsockname(), timeout=3)
            with server.accept()[0] as other:
                other.sendall(b"hello")
            return connection

        yield greeted


def unreachable(act: Callable[[], object]) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        act()
    for line in (caught.value.message, caught.value.hint):
        assert line and "\n" not in line
    return caught.value


@pytest.mark.parametrize("spelt", [NEW, NEW_KEY, NEW.lower(), NEW_KEY.lower()])
def test_a_udid_has_one_spelling(spelt: str) -> None:
    assert usbmux.canonical(spelt) == NEW_KEY


def test_devices_on_a_cable_are_listed_and_others_left_out(mux: FakeUsbmuxd) -> None:
    assert attached() == []
    for phone in (Phone(NEW, {}), Phone(OLD, {}), Phone("00008120000000000000ABCD", {}, connection="Network")):
        mux.attach(phone)
    assert attached() == [Attached(NEW_KEY, 1, NEW), Attached(OLD_KEY, 2, OLD)]


def test_plugging_in_and_out_is_heard_of(mux: FakeUsbmuxd) -> None:
    first, second = Phone(NEW, {}), Phone(OLD, {})
    mux.attach(first)
    with listening() as devices:
        changes = devices.changes(within=5)
        assert next(changes) == Change("attached", NEW_KEY)
        mux.attach(second)
        mux.detach(first)
        mux.attach(first)
        assert [next(changes) for _ in range(3)] == [
            Change("attached", OLD_KEY),
            Change("detached", NEW_KEY),
            Change("attached", NEW_KEY),
        ]
        assert list(devices.changes(within=0.05)) == []


@pytest.mark.parametrize("form", ["UNIX:{path}", "unix://{path}", "{path}", "{tcp}"])
def test_the_service_is_found_where_the_environment_says(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeUsbmuxd(tmp_path / "mux") as unix, FakeUsbmuxd(None) as tcp:
        monkeypatch.setenv(ADDRESS, form.format(path=tmp_path / "mux", tcp=tcp.address))
        for mux in (unix, tcp):
            mux.attach(Phone(NEW, {}))
        assert [device.udid for device in attached()] == [NEW_KEY]


@pytest.mark.parametrize("address", ["somewhere", ":1", "host:0", "host:port", "host:70000"])
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(UsageError, match=ADDRESS):
        attached()


@pytest.mark.parametrize("place", ["none", "x" * 200])
def test_no_service_is_told(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, f"UNIX:{tmp_path / place}")
    error = unreachable(attached)
    assert error.why == "no-service" and "usbmuxd is not running" in error.message


def test_a_connection_leads_to_the_port_asked_for(mux: FakeUsbmuxd, echo: Callable[[], socket.socket]) -> None:
    mux.attach(Phone(NEW, {PORT: echo}))
    with connect(NEW_KEY.lower(), PORT) as connection:
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


def test_why_there_is_no_connection_is_told(mux: FakeUsbmuxd) -> None:
    phone = Phone(NEW, {})
    assert unreachable(lambda: connect(NEW, PORT)).why == "absent"
    mux.attach(phone)
    refused = unreachable(lambda: connect(NEW, PORT))
    assert refused.why == "refused" and "open the harness app on the iPhone" in (refused.hint or "")
    phone.paired = False
    untrusted = unreachable(lambda: connect(NEW, PORT))
    assert untrusted.why == "untrusted" and "Trust" in (untrusted.hint or "")


def answered(monkeypatch: pytest.MonkeyPatch, *answers: bytes, stays: bool = False) -> list[socket.socket]:
    """Let the service answer these bytes, one answer a connection; gives its ends of the connections."""
    ends: list[socket.socket] = []
    left = list(answers)

    def to_service() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.sendall(left.pop(0))
        if not stays:
            theirs.shutdown(socket.SHUT_WR)
        ends.append(theirs)
        return ours

    monkeypatch.setattr(usbmux, "_to_service", to_service)
    return ends


def asked(act: Callable[[], object], *answers: bytes, stays: bool = False) -> Unreachable | None:
    """What becomes of a request; anything but success or the foreseen error is a failure."""
    with pytest.MonkeyPatch.context() as patch:
        ends = answered(patch, *answers, stays=stays)
        try:
            act()
        except Unreachable as error:
            assert "\n" not in error.message
            return error
        finally:
            for end in ends:
                end.close()
    return None


ONE = {"DeviceID": 1, "Properties": {"SerialNumber": NEW, "ConnectionType": "USB"}}
LISTED = packet({"DeviceList": [ONE]})


def header(length: int, version: int = 1, kind: int = 8) -> bytes:
    return struct.pack("<IIII", length, version, kind, 1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "closed"),
        (LISTED[:7], "closed"),
        (LISTED[:-1], "closed"),
        (header(16), "no message: 16 bytes"),
        (header(3), "no message: 3 bytes"),
        (header(LONGEST + 1), "no message"),
        (header(2**32 - 1), "no message"),
        (header(20, version=0), "version 0"),
        (header(20, kind=1), "type 1"),
        (header(20) + b"abcd", "no property list"),
        (packet(["DeviceList"]), "without names"),
        (packet({}), "no proper DeviceList"),
        (packet({"DeviceList": [{"DeviceID": 1}]}), "no proper DeviceList.0.Properties"),
        (packet({"DeviceList": [ONE | {"DeviceID": -1}]}), "no proper DeviceList.0.DeviceID"),
        (packet({"DeviceList": [ONE | {"DeviceID": "1"}]}), "no proper DeviceList.0.DeviceID"),
        (
            packet({"DeviceList": [ONE | {"Properties": {"SerialNumber": "../x\n"}}]}),
            "no proper DeviceList.0.Properties.SerialNumber",
        ),
    ],
)
def test_answers_that_are_none_are_told(answer: bytes, told: str) -> None:
    error = asked(attached, answer)
    assert error is not None and told in error.message and error.hint


def test_a_service_that_says_nothing_or_stops_halfway_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbmux, "_ANSWER", 0.05)
    silent = asked(attached, b"", stays=True)
    assert silent is not None and "has not answered" in silent.message
    halfway = asked(attached, LISTED[:30], stays=True)
    assert halfway is not None and "stopped within a message" in halfway.message


def test_what_the_device_sends_at_once_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = answered(monkeypatch, LISTED, packet({"MessageType": "Result", "Number": 0}) + b"hello")
    with connect(NEW, PORT) as connection:
        assert connection.recv(99) == b"hello"
    for end in ends:
        end.close()


@pytest.mark.parametrize(("number", "why"), [(2, "absent"), (1, "damaged"), (6, "damaged")])
def test_other_results_of_a_connection_are_told(number: int, why: str) -> None:
    error = asked(lambda: connect(NEW, PORT), LISTED, packet({"MessageType": "Result", "Number": number}))
    assert error is not None and error.why == why


values = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="ascii", exclude_categories=["Cc"])) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["DeviceID", "Properties", "Number"]), inner),
    max_leaves=8,
)
messages = st.dictionaries(
    st.sampled_from(["MessageType", "DeviceList", "DeviceID", "Properties", "Number"]),
    values | st.sampled_from(["Attached", "Detached", "Result", "Paired"]),
)


def changes() -> list[Change]:
    with listening() as devices:
        return list(devices.changes(within=0.05))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    assert asked(attached, data) is not None


@given(st.binary(max_size=100))
def test_any_bytes_behind_a_proper_header_are_an_answer_or_an_error(data: bytes) -> None:
    assert asked(attached, header(16 + len(data)) + data) is not None


@given(st.integers(16, len(LISTED) - 1), st.integers(0, 255))
def test_a_message_with_one_wrong_byte_is_an_answer_or_an_error(at: int, byte: int) -> None:
    asked(attached, LISTED[:at] + bytes([byte]) + LISTED[at + 1 :])


@given(messages)
def test_any_message_is_an_answer_or_an_error(message: dict[str, Any]) -> None:
    data = packet(message)
    asked(attached, data)
    asked(lambda: connect(NEW, PORT).close(), LISTED, data, data)


@given(st.lists(messages, max_size=3))
def test_any_messages_are_changes_or_an_error(told: list[dict[str, Any]]) -> None:
    ready = packet({"MessageType": "Result", "Number": 0})
    asked(changes, ready + b"".join(map(packet, told)))


def test_a_property_list_with_entities_is_not_expanded() -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaa">]><plist><dict><key>&a;</key></dict></plist>'
    assert asked(attached, header(16 + len(bomb)) + bomb) is not None
