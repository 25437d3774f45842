"""iPhones on a cable: a client of usbmuxd, which lists them and carries TCP connections over USB.

macOS has usbmuxd, Linux distributions package it, Windows gets it with Apple's own programs. A message is a header of
four 32-bit numbers, little end first (length with the header, version 1, type 8, a tag that answers repeat), and a
property list in XML. After a ``Connect`` that is granted, the socket is the connection to the device.
"""

from __future__ import annotations

import os
import plistlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.protocol.link import LinkLost, reason

ADDRESS = "USBMUXD_SOCKET_ADDRESS"
_USUAL_PATH, _USUAL_PORT = "/var/run/usbmuxd", 27015
LONGEST = 1 << 20  # bytes of a message: a list of hundreds of devices has less
_HEADER = struct.Struct("<IIII")
_VERSION, _PLIST, _TAG = 1, 8, 1
_ANSWER = 5.0  # seconds for an answer
_GRANTED, _NO_DEVICE, _REFUSED = 0, 2, 3
_NO_RECORD = 2  # to ReadPairRecord
Why = Literal["no-service", "absent", "refused", "untrusted", "damaged"]

_HINTS: dict[Why, str] = {
    "no-service": "connect the iPhone by cable; on Linux install usbmuxd, on Windows Apple's device support",
    "absent": "connect it by cable and unlock it; `edgesam-mobile devices` lists what is connected",
    "refused": "open the harness app on the iPhone and leave it in front",
    "untrusted": "unlock the iPhone and answer `Trust This Computer?` with Trust, then open the harness app",
    "damaged": "start usbmuxd anew; if it stays so, please report it",
}


class Unreachable(LinkLost):
    """There is no way to the device at the moment; a session tries again, as after any lost connection.

    Attributes:
        why: ``no-service``: no usbmuxd. ``absent``: not connected. ``refused``: nothing listens on the port.
            ``untrusted``: likewise, and this computer is not paired with it. ``damaged``: usbmuxd itself answers
            nonsense, or not in time.
    """

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.hint = _HINTS[why]


@dataclass(frozen=True)
class Attached:
    """A device on the cable.

    Attributes:
        udid: as :func:`canonical` writes it.
        number: usbmuxd's own, another one after each plugging in.
        serial: the UDID as usbmuxd writes it.
    """

    udid: str
    number: int
    serial: str


@dataclass(frozen=True)
class Change:
    """A device was plugged in or out."""

    kind: Literal["attached", "detached"]
    udid: str


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


T = TypeVar("T", bound=_Told)


class _Properties(_Told):
    serial: Annotated[str, Field(alias="SerialNumber", pattern="^[0-9A-Fa-f-]{1,64}$")]
    connection: Annotated[str, Field(alias="ConnectionType")] = "USB"


class _Device(_Told):
    number: Annotated[int, Field(alias="DeviceID", ge=0, lt=2**63)]
    properties: Annotated[_Properties, Field(alias="Properties")]


class _Devices(_Told):
    devices: Annotated[list[_Device], Field(alias="DeviceList")]


class _Gone(_Told):
    number: Annotated[int, Field(alias="DeviceID", ge=0, lt=2**63)]


class _Result(_Told):
    number: Annotated[int, Field(alias="Number", ge=0, lt=2**63)]


def canonical(udid: str) -> str:
    """A UDID in one spelling, since tools differ in case and in the dash of newer ones."""
    letters = udid.replace("-", "").lower()
    return f"{letters[:8]}-{letters[8:]}".upper() if len(letters) == 24 else letters


def attached() -> list[Attached]:
    """The devices on a cable, each once; those that are only in the same Wi-Fi are left out.

    Raises:
        Unreachable: no usbmuxd answers, or not what can be understood.
        UsageError: ``USBMUXD_SOCKET_ADDRESS`` is no address.
    """
    with _conversation() as service:
        told = service.ask("ListDevices", answer=_Devices)
    return [_attached(device) for device in told.devices if device.properties.connection == "USB"]


def connect(udid: str, port: int) -> socket.socket:
    """A connection to a port that an app on the device listens on.

    Raises:
        Unreachable: no usbmuxd, no such device, or nothing listens.
        UsageError: as of :func:`attached`.
    """
    device = next((one for one in attached() if one.udid == canonical(udid)), None)
    if device is None:
        raise Unreachable("absent", f"iPhone {canonical(udid)} is not connected")
    swapped = int.from_bytes(port.to_bytes(2, "big"), "little")  # as a number, the port is in network order
    with _conversation() as service:
        number = service.ask("Connect", answer=_Result, DeviceID=device.number, PortNumber=swapped).number
        if number == _GRANTED:
            return service.give_away()
    if number == _NO_DEVICE:
        raise Unreachable("absent", f"iPhone {device.udid} was unplugged")
    if number != _REFUSED:
        raise Unreachable("damaged", f"usbmuxd answers {number} to a connection to iPhone {device.udid}")
    if not _paired(device):
        raise Unreachable("untrusted", f"iPhone {device.udid} does not trust this computer")
    raise Unreachable("refused", f"nothing listens on iPhone {device.udid}")


@contextmanager
def listening() -> Iterator[Listening]:
    """Learn of devices as they are plugged in and out; what is attached already comes first.

    Raises:
        Unreachable, UsageError: as of :func:`attached`.
    """
    with _conversation() as service:
        number = service.ask("Listen", answer=_Result).number
        if number != _GRANTED:
            raise Unreachable("damaged", f"usbmuxd answers {number} to the wish to listen")
        yield Listening(service)


class Listening:
    """See :func:`listening`."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._known: dict[int, str] = {}

    def changes(self, within: float) -> Iterator[Change]:
        """The changes of so many seconds, each as it comes.

        Raises:
            Unreachable: usbmuxd ended, or answers nonsense.
        """
        deadline = time.monotonic() + within
        while (message := self._service.next_message(deadline)) is not None:
            change = self._change(message)
            if change is not None:
                yield change

    def _change(self, message: dict[str, Any]) -> Change | None:
        kind = message.get("MessageType")
        if kind == "Attached":
            device = _read(_Device, message)
            if device.properties.connection == "USB":
                udid = self._known[device.number] = canonical(device.properties.serial)
                return Change("attached", udid)
        if kind == "Detached":
            gone = self._known.pop(_read(_Gone, message).number, None)
            return Change("detached", gone) if gone is not None else None
        return None  # what is of no use here, such as Paired


class _Service:
    """One connection to usbmuxd."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._given_away = False

    def ask(self, what: str, *, answer: type[T], **fields: Any) -> T:
        return _read(answer, self.ask_anything(what, **fields))

    def ask_anything(self, what: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for what comes."""
        wish = {"MessageType": what, "ClientVersionString": "edgesam-mobile", "ProgName": "edgesam-mobile", **fields}
        body = plistlib.dumps(wish, fmt=plistlib.FMT_XML)
        deadline = time.monotonic() + _ANSWER
        try:
            self._connection.settimeout(_ANSWER)
            self._connection.sendall(_HEADER.pack(_HEADER.size + len(body), _VERSION, _PLIST, _TAG) + body)
        except OSError as error:
            raise Unreachable("no-service", f"usbmuxd takes no request: {reason(error)}") from error
        message = self.next_message(deadline)
        if message is None:
            raise Unreachable("damaged", f"usbmuxd has not answered for {_ANSWER:g} s")
        return message

    def next_message(self, deadline: float) -> dict[str, Any] | None:
        """The next message; ``None`` if none has begun by ``deadline`` on the monotonic clock."""
        first = self._receive(1, deadline)
        if first is None:
            return None
        deadline = time.monotonic() + _ANSWER  # what has begun must come to an end
        header = first + self._rest(_HEADER.size - 1, deadline)
        length, version, kind, _ = _HEADER.unpack(header)
        if version != _VERSION or kind != _PLIST or not _HEADER.size < length <= LONGEST:
            raise Unreachable("damaged", f"usbmuxd sends no message: {length} bytes, version {version}, type {kind}")
        return _property_list(self._rest(length - _HEADER.size, deadline))

    def give_away(self) -> socket.socket:
        """The socket, which is not closed here any more."""
        self._given_away = True
        return self._connection

    def close(self) -> None:
        if not self._given_away:
            self._connection.close()

    def _rest(self, size: int, deadline: float) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            piece = self._receive(size - len(pieces), deadline)
            if piece is None:
                raise Unreachable("damaged", f"usbmuxd has stopped within a message for {_ANSWER:g} s")
            pieces += piece
        return bytes(pieces)

    def _receive(self, most: int, deadline: float) -> bytes | None:
        """At least one byte; ``None`` when it is too late. Never more than asked for: the rest is the device's."""
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            self._connection.settimeout(left)
            data = self._connection.recv(min(most, 1 << 16))
        except TimeoutError:
            return None
        except OSError as error:
            raise Unreachable("no-service", f"the connection to usbmuxd was lost: {reason(error)}") from error
        if not data:
            raise Unreachable("no-service", "usbmuxd has closed the connection")
        return data


@contextmanager
def _conversation() -> Iterator[_Service]:
    try:
        service = _Service(_to_service())
    except OSError as error:
        raise Unreachable("no-service", f"usbmuxd is not running: {reason(error)}") from error
    try:
        yield service
    finally:
        service.close()


def _to_service() -> socket.socket:
    address = os.environ.get(ADDRESS)
    if not address:
        if sys.platform == "win32":
            return socket.create_connection(("127.0.0.1", _USUAL_PORT), timeout=_ANSWER)
        return _unix(_USUAL_PATH)
    if address[:5].lower() == "unix:":
        return _unix(address[5:])
    if address.startswith("/"):
        return _unix(address)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"{ADDRESS} is {address!r}, which is no address", hint="write UNIX:/path or host:port")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _paired(device: Attached) -> bool:
    """Whether the two know each other. Only if there is a record is looked at, never what is in it."""
    with _conversation() as service:
        answer = service.ask_anything("ReadPairRecord", PairRecordID=device.serial)
    return answer.get("Number") != _NO_RECORD


def _attached(device: _Device) -> Attached:
    serial = device.properties.serial
    return Attached(canonical(serial), device.number, serial)


def _property_list(body: bytes) -> dict[str, Any]:
    try:
        content = plistlib.loads(body, fmt=plistlib.FMT_XML)
    # plistlib raises whatever it stumbles over: of expat, ValueError, TypeError, IndexError, AttributeError …
    except Exception as error:
        raise Unreachable("damaged", "usbmuxd sends what is no property list") from error
    if not isinstance(content, dict):
        raise Unreachable("damaged", "usbmuxd sends a property list without names")
    return content


def _read(kind: type[T], message: dict[str, Any]) -> T:
    try:
        return kind.model_validate(message)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise Unreachable("damaged", f"usbmuxd's answer has no proper {where}") from error
