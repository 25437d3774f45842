"""A fake adb server: speaks adb's protocol on a port of this machine, with simulated devices in the place of phones.

Commands on files are run by this machine's shell in the device's folder; ``am``, ``pidof`` and the like are made up
here. What real adb and adbd do is tested in ``tests/android/test_adb_link.py``.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from edgesam_mobile.lab.adb import FOLDER, PACKAGE
from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice

_STATUS = b"INSTRUMENTATION_STATUS: event="


@dataclass
class Trouble:
    """What goes wrong once, with the next service whose name has ``service`` in it.

    Attributes:
        kind: ``cut``: the connection ends; ``silent``: nothing comes any more.
        after: bytes of a file that is sent before that.
    """

    service: str
    kind: Literal["cut", "silent"]
    after: int = 0


@dataclass
class FakePhone:
    """What stands for a phone.

    Attributes:
        word: what adb calls its state.
        away: its cable is pulled.
        identity: what ``settings`` tells.
        asked: services, in their order.
        killed: jobs that ended because somebody started another instrumentation.
    """

    serial: str
    device: SimulatedDevice
    word: str = "device"
    away: bool = False
    identity: str = ""
    properties: dict[str, str] = field(default_factory=lambda: {"ro.build.version.sdk": "34"})
    trouble: list[Trouble] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def pull(self) -> None:
        """Pull the cable; what runs on the phone runs on."""
        self.away = True
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        """Plug it in again."""
        self.away = False

    @property
    def job(self) -> str | None:
        """The job that runs."""
        harness = self.device._harness
        run = None if harness is None or harness.dead.is_set() else harness.running
        return None if run is None or run.over.is_set() else run.job.job

    def local(self, text: str) -> str:
        """A path or command with the phone's folder where it is on this machine."""
        return text.replace(FOLDER, str(self.device.store.folder))

    def answer(self, command: str) -> bytes:
        """What a command prints."""
        first, *words = command.split()
        if first == "pidof":
            return b"4711\n" if self.job else b""
        if command == f"am force-stop {PACKAGE}":
            self.stop()
            return b""
        if first == "getprop":
            return self.properties.get(words[0], "").encode() + b"\n"
        if first == "settings":
            return self.identity.encode() + b"\n"
        if first == "touch" and (cancel := re.search(r"jobs/(\S+)\.cancel", command)) and self.job == cancel[1]:
            assert self.device._harness is not None
            self.device._harness.cancel(cancel[1])
        if first in ("dumpsys", "pm"):
            return b""
        return subprocess.run(["sh", "-c", self.local(command)], capture_output=True, check=False).stdout

    def stop(self) -> None:
        """End the harness's process."""
        if self.job:
            self.device.restart(Fault("kill", "run", 0))


class FakeAdb:
    """Use it as a context, and point ``ANDROID_ADB_SERVER_PORT`` to its port."""

    def __init__(self, phones: Sequence[FakePhone]) -> None:
        self._phones = {phone.serial: phone for phone in phones}
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._welcome)]

    def __enter__(self) -> FakeAdb:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        for phone in self._phones.values():
            phone.pull()
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._server.close()

    def _welcome(self) -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=self._serve, args=(self._server.accept()[0],))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(EOFError, OSError):
            connection.settimeout(20)
            self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        request = _request(connection)
        if request == "host:devices":
            lines = [f"{phone.serial}\t{phone.word}\n" for phone in self._phones.values() if not phone.away]
            return connection.sendall(b"OKAY" + _block("".join(lines)))
        serial = request.removeprefix("host:transport:").removeprefix("host-serial:").removesuffix(":get-state")
        phone = self._phones.get(serial)
        if phone is None or phone.away:
            return connection.sendall(b"FAIL" + _block(f"device '{serial}' not found"))
        phone.asked.append(request)
        phone.sockets.append(connection)
        if self._troubled(phone, connection, request):
            return None
        connection.sendall(b"OKAY")
        if request.startswith("host-serial:"):
            return connection.sendall(_block(phone.word))
        service = _request(connection)
        phone.asked.append(service)
        connection.sendall(b"OKAY")
        if service == "sync:":
            return self._take(phone, connection)
        if not self._troubled(phone, connection, service):
            self._run(phone, connection, service.partition(":")[2])
        return None

    def _troubled(self, phone: FakePhone, connection: socket.socket, service: str) -> bool:
        """Whether this connection comes to nothing."""
        trouble = next((one for one in phone.trouble if one.service in service), None)
        if trouble is None:
            return False
        phone.trouble.remove(trouble)
        if trouble.kind == "silent":
            _until_closed(connection)
        return True

    def _run(self, phone: FakePhone, connection: socket.socket, command: str) -> None:
        if command.startswith("am instrument"):
            self._instrument(phone, connection, command)
        else:
            command, over, word = command.partition("; echo ")
            connection.sendall(phone.answer(command) + (f"{word}\n".encode() if over else b""))

    def _instrument(self, phone: FakePhone, connection: socket.socket, command: str) -> None:
        harness = phone.device._harness
        assert harness is not None
        if phone.job:
            phone.killed.append(phone.job)
            phone.stop()
        name = re.search(r"-e job (\S+)", command)
        if name is None:
            connection.sendall(_STATUS + encode(harness.hello()) + b"INSTRUMENTATION_CODE: -1\n")
            return
        request = phone.device.store.path(name[1]).read_bytes()
        run = harness.start_job(Job.model_validate_json(request))
        last = b""
        for lines in run.kept.lines(lambda: not self._over.is_set()):
            for _, last in lines:
                connection.sendall(_STATUS + last)
        if b'"type":"end"' not in last:
            connection.sendall(b"INSTRUMENTATION_RESULT: shortMsg=Process crashed.\n")

    def _take(self, phone: FakePhone, connection: socket.socket) -> None:
        """A file that is pushed; where the connection ends before it does, it is removed, as adbd does."""
        kind, size = _head(connection)
        assert kind == b"SEND"
        path = Path(phone.local(_exactly(connection, size).decode().rpartition(",")[0]))
        trouble = next((one for one in phone.trouble if one.service in f"sync:{path.name}"), None)
        try:
            done = 0
            with path.open("wb") as file:
                while (head := _head(connection))[0] == b"DATA":
                    done += file.write(_exactly(connection, head[1]))
                    if trouble is not None and done > trouble.after:
                        phone.trouble.remove(trouble)
                        if trouble.kind == "silent":
                            _until_closed(connection)
                        raise EOFError
        except (EOFError, OSError):
            path.unlink(missing_ok=True)
            raise
        connection.sendall(b"OKAY" + bytes(4))


def _until_closed(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def _head(connection: socket.socket) -> tuple[bytes, int]:
    kind, size = struct.unpack("<4sI", _exactly(connection, 8))
    return kind, size


def _request(connection: socket.socket) -> str:
    return _exactly(connection, int(_exactly(connection, 4), 16)).decode()


def _block(text: str) -> bytes:
    return f"{len(text):04x}{text}".encode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
