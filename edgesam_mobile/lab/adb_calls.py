"""What is asked of adb, about one device: every call has a time limit, and what goes wrong in it is a DeviceError."""

from __future__ import annotations

import shlex
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from edgesam_mobile.errors import DeviceError, EnvironmentMissing
from edgesam_mobile.lab.protocol.messages import plain

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

    from edgesam_mobile.lab.devices import State

STATES: dict[str, State] = {"device": "ready", "unauthorized": "unauthorised"}
HINTS = {
    "unauthorised": "accept this computer on the device's screen",
    "offline": "plug the cable in again, and see that the device is awake",
}
_PIECE = 1 << 16  # bytes at once, the most that adb takes
_SLICE = 0.2  # seconds between two looks at whether somebody wants to stop
_WRITTEN = 5e6  # bytes a second that a slow phone brings to its storage
_FILE_MODE = 0o100644
_OVER = "--over--"


class AdbLost(DeviceError):
    """adb does not reach the device, or it does not answer in time: trying again may help."""


class AdbSilent(AdbLost):
    """It is reached, and says nothing."""


def _adbutils() -> Any:
    try:
        import adbutils
    except ModuleNotFoundError as error:
        raise EnvironmentMissing("adbutils is not installed", hint='pip install "edgesam-mobile[lab]"') from error
    return adbutils


def client(within: float = 10.0) -> AdbClient:
    """adb's server on this machine, started if need be.

    Args:
        within: seconds that each of its answers may take.

    Raises:
        EnvironmentMissing: adbutils is not installed.
    """
    adbutils = _adbutils()
    server = adbutils.AdbClient(socket_timeout=within)
    # adbutils starts a server as well, but never closes the socket with which it found none.
    with suppress(OSError), socket.create_connection((server.host, server.port), timeout=3):
        return server
    subprocess.run([adbutils.adb_path(), "start-server"], capture_output=True, timeout=20, check=False)
    return server


class Calls:
    """What one device is asked.

    Args:
        key: how errors name it.
        within: seconds that an answer may take.
    """

    def __init__(self, key: str, serial: str, *, within: float) -> None:
        self._key, self._serial, self._within = key, serial, within

    def state(self) -> str:
        """``device`` if it can be used; otherwise adb's own word for why not."""
        with errors(self._key), client(self._within).make_connection() as connection:
            connection.send_command(f"host-serial:{self._serial}:get-state")
            connection.check_okay()
            return str(connection.read_string_block())

    def shell(self, command: str, *, more: float = 0.0) -> str:
        """What a command prints, without blanks around it.

        Args:
            more: seconds that it may take beyond what any call may.
        """
        return self._said(command, self._within + more).decode(errors="replace").strip()

    def read(self, path: str, offset: int) -> bytes:
        """A file's content from a byte on; nothing where there is no such file."""
        return self._said(f"tail -c +{offset + 1} {shlex.quote(path)} 2>/dev/null", self._within)

    def stream(self, service: str, silence: float) -> Iterator[bytes]:
        """What a service sends until it ends, in pieces; an empty one every so often while nothing comes.

        Raises:
            AdbSilent: nothing came for ``silence`` seconds.
            AdbLost: the connection broke.
        """
        with errors(self._key), self._opened(service) as connection:
            connection.conn.settimeout(min(_SLICE, silence))
            heard = time.monotonic()
            while True:
                try:
                    piece: bytes = connection.conn.recv(_PIECE)
                except TimeoutError:
                    if time.monotonic() - heard > silence:
                        raise AdbSilent(
                            f"{self._key} said nothing for {silence:g} s", hint="look at the device's screen"
                        ) from None
                    yield b""
                    continue
                if not piece:
                    return
                yield piece
                heard = time.monotonic()

    def push(self, source: BinaryIO, target: str, tell: Callable[[int], None] = lambda done: None) -> None:
        """Write a file of the device.

        Args:
            tell: told how many bytes are on their way.

        Raises:
            DeviceError: the device cannot write it.
            AdbLost: the connection broke; what was sent is lost as well, since adbd removes it.
        """
        # adbutils' own push takes no time limit, and does not look how much of a piece a socket with one has taken.
        done, name = 0, f"{target},{_FILE_MODE}".encode()
        with errors(self._key), self._opened("sync:") as connection:
            try:
                connection.conn.sendall(b"SEND" + struct.pack("<I", len(name)) + name)
                while piece := source.read(_PIECE):
                    connection.conn.sendall(b"DATA" + struct.pack("<I", len(piece)) + piece)
                    done += len(piece)
                    tell(done)
                connection.conn.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            except (BrokenPipeError, ConnectionResetError):
                pass  # why it hung up may have come before
            connection.conn.settimeout(self._within + done / _WRITTEN)
            self._written(connection, target)

    def _said(self, command: str, silence: float) -> bytes:
        # Not the service `shell`: that may be a terminal, which changes line ends. A connection that was cut ends as
        # one does whose command is over; only the last words tell them apart.
        answer = b"".join(self.stream(f"exec:{command}; echo {_OVER}", silence))
        end = f"{_OVER}\n".encode()
        if not answer.endswith(end):
            raise AdbLost(f"adb on {self._key}: the connection was cut", hint="plug the cable in again")
        return answer.removesuffix(end)

    def _written(self, connection: AdbConnection, target: str) -> None:
        head = connection.read_exact(8)
        if head[:4] == b"FAIL":
            said = connection.read_exact(struct.unpack("<I", head[4:])[0]).decode(errors="replace")
            raise DeviceError(f"{self._key} cannot write {target}: {plain(said)}", hint=_advice(said))
        if head[:4] != b"OKAY":
            raise ValueError(f"adb answers {head[:4]!r}")

    @contextmanager
    def _opened(self, service: str) -> Iterator[AdbConnection]:
        """A connection to a service of the device."""
        # By adb's own two requests, since adbutils' opening leaves a socket open where the second is refused.
        with client(self._within).make_connection() as connection:
            for request in (f"host:transport:{self._serial}", service):
                connection.send_command(request)
                connection.check_okay()
            yield connection


@contextmanager
def errors(key: str) -> Iterator[None]:
    """Whatever adb, its server or adbutils does wrong, as an error with what to do about it.

    Raises:
        AdbLost: in the place of all of these.
        EnvironmentMissing: adbutils is not installed.
    """
    adb_error = _adbutils().AdbError
    try:
        yield
    except (adb_error, AssertionError, EOFError, ValueError, struct.error, subprocess.SubprocessError) as error:
        cut = isinstance(error, EOFError) or str(error).endswith("b''")  # an answer of no bytes
        said = "the connection was cut" if cut else plain(str(error)) or type(error).__name__
        raise AdbLost(f"adb on {key}: {said}", hint=_advice(said)) from error
    except OSError as error:
        said = error.strerror or plain(str(error)) or type(error).__name__
        raise AdbLost(f"adb on {key}: {said}", hint="plug the cable in again") from error


def _advice(said: str) -> str:
    """What to do about adb's words."""
    for word, hint in (
        ("unauthorized", HINTS["unauthorised"]),
        ("offline", HINTS["offline"]),
        ("not found", "`edgesam-mobile devices` lists what adb sees"),
        ("No space", "free some storage on the device"),
        ("more than one", "name the device: adb:SERIAL"),
    ):
        if word in said:
            return hint
    return "look at `adb devices`, the cable and the device's screen"
