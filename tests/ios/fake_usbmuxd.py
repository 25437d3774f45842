"""A fake usbmuxd: speaks its protocol on a socket and connects to programs of this machine instead of iPhones.

Written after the protocol as free programs document it; never held against Apple's own.
"""

from __future__ import annotations

import plistlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

_HEADER = struct.Struct("<IIII")
Target = Callable[[], socket.socket]


@dataclass
class Phone:
    """What stands for an iPhone.

    Attributes:
        ports: where a connection to a port of it leads; raises ``OSError`` while nothing listens.
        connection: ``USB`` or ``Network``.
        allowance: bytes that it may still send before its cable is pulled; ``None`` for no limit.
        connects: how often somebody was connected to it.
    """

    serial: str
    ports: dict[int, Target]
    number: int = 0
    connection: str = "USB"
    paired: bool = True
    allowance: int | None = None
    connects: int = 0
    sockets: list[socket.socket] = field(default_factory=list)


class FakeUsbmuxd:
    """Use it as a context.

    Args:
        path: of its unix socket; a port of the loopback interface without one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._phones: dict[int, Phone] = {}
        self._listeners: list[socket.socket] = []
        self._numbers = 0
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []

    @property
    def address(self) -> str:
        """For ``USBMUXD_SOCKET_ADDRESS``."""
        if self._path is not None:
            return f"UNIX:{self._path}"
        host, port = self._server.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> FakeUsbmuxd:
        if self._path is None:
            self._server = socket.create_server(("127.0.0.1", 0))
        else:
            self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._server.bind(str(self._path))
            self._server.listen()
        self._in_thread(self._welcome)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        with self._lock:
            phones, clients = list(self._phones.values()), list(self._clients)
        for phone in phones:
            self.detach(phone)
        _hang_up(clients)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def attach(self, phone: Phone) -> None:
        """Plug it in; it gets a new number, as each time."""
        with self._lock:
            self._numbers += 1
            phone.number = self._numbers
            self._phones[phone.number] = phone
            self._tell(_attached(phone))

    def detach(self, phone: Phone) -> None:
        """Pull the cable: whatever was connected breaks off."""
        with self._lock:
            if self._phones.pop(phone.number, None) is None:
                return
            phone.allowance = None
            _hang_up(phone.sockets)
            self._tell({"MessageType": "Detached", "DeviceID": phone.number})

    def detach_for(self, phone: Phone, seconds: float) -> None:
        """Pull the cable and plug it in again."""
        self.detach(phone)
        self._in_thread(lambda: (threading.Event().wait(seconds), self.attach(phone)))

    def _tell(self, message: dict[str, Any]) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                _send(listener, message, tag=0)

    def _in_thread(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, name="fake usbmuxd", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _welcome(self) -> None:
        with suppress(OSError):
            while True:
                client = self._server.accept()[0]
                with self._lock:
                    self._clients.append(client)
                self._in_thread(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while (request := _receive(client)) is not None:
                if request["MessageType"] == "Connect":
                    self._connect(client, request)
                    return
                self._answer(client, request)

    def _answer(self, client: socket.socket, request: dict[str, Any]) -> None:
        with self._lock:
            phones = list(self._phones.values())
            match request["MessageType"]:
                case "ListDevices":
                    _send(client, {"DeviceList": [_attached(phone) for phone in phones]})
                case "Listen":
                    _send(client, _result(0))
                    self._listeners.append(client)
                    for phone in phones:
                        _send(client, _attached(phone), tag=0)
                case "ReadPairRecord":
                    known = any(phone.serial == request["PairRecordID"] and phone.paired for phone in phones)
                    _send(client, {"PairRecordData": b"nobody's"} if known else _result(2))
                case _:
                    _send(client, _result(1))

    def _connect(self, client: socket.socket, request: dict[str, Any]) -> None:
        with self._lock:
            phone = self._phones.get(request["DeviceID"])
        if phone is None:
            _send(client, _result(2))
            return
        try:
            port = int.from_bytes(request["PortNumber"].to_bytes(2, "little"), "big")
            device = phone.ports[port]()
        except (OSError, KeyError):
            _send(client, _result(3))
            return
        with device:
            with self._lock:
                phone.connects += 1
                phone.sockets += [client, device]
            _send(client, _result(0))
            there = threading.Thread(target=_carry, args=(client, device), name="to the phone", daemon=True)
            there.start()
            self._carry_back(phone, device, client)
            there.join()

    def _carry_back(self, phone: Phone, device: socket.socket, client: socket.socket) -> None:
        """What the device sends, as far as its allowance goes."""
        device.settimeout(None)
        with suppress(OSError):
            while data := device.recv(4096):
                with self._lock:
                    if phone.allowance is not None:
                        data, phone.allowance = data[: phone.allowance], phone.allowance - len(data)
                    spent = phone.allowance is not None and phone.allowance <= 0
                client.sendall(data)
                if spent:
                    self.detach_for(phone, 0.3)
                    break
        _hang_up((device, client))


def _attached(phone: Phone) -> dict[str, Any]:
    properties = {
        "ConnectionType": phone.connection,
        "DeviceID": phone.number,
        "LocationID": 0,
        "ProductID": 4776,
        "SerialNumber": phone.serial,
    }
    return {"MessageType": "Attached", "DeviceID": phone.number, "Properties": properties}


def _result(number: int) -> dict[str, Any]:
    return {"MessageType": "Result", "Number": number}


def packet(message: Any, *, tag: int = 1) -> bytes:
    """A message with its header."""
    body = plistlib.dumps(message, fmt=plistlib.FMT_XML)
    return _HEADER.pack(_HEADER.size + len(body), 1, 8, tag) + body


def _send(connection: socket.socket, message: dict[str, Any], *, tag: int = 1) -> None:
    connection.sendall(packet(message, tag=tag))


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    header = connection.recv(_HEADER.size, socket.MSG_WAITALL)
    if len(header) < _HEADER.size:
        return None
    length, version, kind, _ = _HEADER.unpack(header)
    assert (version, kind) == (1, 8)
    message: dict[str, Any] = plistlib.loads(connection.recv(length - _HEADER.size, socket.MSG_WAITALL))
    return message


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
    _hang_up((source, target))


def _hang_up(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
