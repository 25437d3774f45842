"""A loop of real adb on this machine: client, server and Debian's ``adbd``, in a network namespace of their own.

The transport is the one that a phone has. What is behind it is not Android: ``am``, ``pm``, ``getprop`` and
``dumpsys`` are the shims of this folder, and the process that ``am instrument`` starts is the harness's core with the
runtimes of this machine. ``adbd`` takes commands from everybody who reaches its port, on all interfaces: this module
refuses to start it where there is any interface but the loopback one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_harness.tools.provision import ADBD, tools_folder
from edgesam_mobile.errors import DeviceError, EnvironmentMissing

PACKAGE = "dev.edgesam.harness"
_PORT = 5555  # where adbd listens, whatever it is told
_STARTS = 20.0  # seconds
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CALL = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
getattr(importlib.import_module(module), function)(*json.loads(arguments))
"""
_SHIMS = Path(__file__).with_name("shims")


@dataclass(frozen=True)
class LoopDevice:
    """What stands in for a phone.

    Attributes:
        serial: for ``adb -s`` and adbutils.
        host, port: of the adb server.
        folder: the harness's folder, by adb and on this machine alike.
    """

    serial: str
    host: str
    port: int
    folder: Path

    def pull_cable(self) -> None:
        """Break the connection; what runs on the device runs on."""
        self._server("disconnect", self.serial)

    def plug_cable(self) -> None:
        """Connect again."""
        self._server("connect", self.serial)

    def install(self, apk: Path) -> None:
        """What the ``pm`` shim's install does; nothing is unpacked."""
        shutil.copy(apk, self.folder.parent / "base.apk")

    def adb(self, *arguments: str, timeout: float = 60) -> str:
        """What the adb client prints.

        Raises:
            subprocess.CalledProcessError: it fails.
        """
        return self._server("-s", self.serial, *arguments, timeout=timeout)

    def _server(self, *arguments: str, timeout: float = 60) -> str:
        command = ["adb", "-P", str(self.port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout).stdout


@contextmanager
def adb_loop(folder: Path, harness: Sequence[str]) -> Iterator[LoopDevice]:
    """A device behind adb, until the block ends. Call it in a process of :func:`in_own_network`.

    Args:
        folder: made if absent, for everything that the device keeps; must be a short path without blanks.
        harness: the command that runs a job, which gets the harness's folder, the job's path in it (empty for
            ``hello`` alone) and the prefix of each event.

    Raises:
        DeviceError: this process is not in a network of its own, or adb does not start.
        EnvironmentMissing: adb or adbd is not on this machine.
    """
    _refuse_open_network()
    _raise_loopback()
    root, here = ADBD.need(), folder.resolve()
    files, shims, temporary = here / "files", here / "bin", here / "tmp"
    for path in (files / "models", files / "inputs", files / "jobs", shims, temporary):
        path.mkdir(parents=True, exist_ok=True)
    for shim in _SHIMS.iterdir():
        _write_shim(shim, shims / shim.name, files, harness)
    environment = os.environ | {
        "PATH": f"{shims}:{os.environ['PATH']}",
        "TMPDIR": str(temporary),
        "HOME": str(here),  # adb keeps its key there
        "ANDROID_ADB_SERVER_PORT": "5037",
    }
    libraries = root / "usr/lib/x86_64-linux-gnu"
    daemon = subprocess.Popen(
        [
            *(root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", f"{libraries}/android:{libraries}"),
            root / "usr/lib/android-sdk/platform-tools/adbd",
        ],
        env=environment,
        cwd=here,
        stdout=(here / "adbd.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    adb = ["adb", "-P", "5037"]
    try:
        serial = _connect(adb, environment, daemon)
        yield LoopDevice(serial, "127.0.0.1", 5037, files)
    finally:
        subprocess.run([*adb, "kill-server"], env=environment, capture_output=True, check=False)
        daemon.kill()
        daemon.wait()
        _stop_harness(here / "pid", files)


def _stop_harness(pid: Path, files: Path) -> None:
    """A job outlives its connection, but not the device."""
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        number = int(pid.read_text())
        # By its arguments: the number may long be another process's.
        if str(files).encode() in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)


def in_own_network(function: Callable[..., None], *arguments: Any, timeout: float = 300) -> str:
    """Run a function of a module in a process with a network namespace of its own; gives what it prints.

    Args:
        function: at the top of a module that can be imported.
        arguments: as JSON knows them.

    Raises:
        EnvironmentMissing: as :func:`own_network`.
        AssertionError: the function raised; holds its traceback.
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    answer = subprocess.run(
        [
            *own_network(),
            sys.executable,
            "-c",
            _CALL,
            function.__module__,
            function.__qualname__,
            json.dumps(arguments),
        ],
        env=os.environ | {"PYTHONPATH": path, "EDGESAM_ANDROID_TOOLS": str(tools_folder())},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert answer.returncode == 0, f"{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
    return answer.stdout


def own_network() -> list[str]:
    """What stands before a command that is to have a network of its own.

    Raises:
        EnvironmentMissing: this machine does not allow it.
    """
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    ADBD.need()
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise EnvironmentMissing(
            "this machine does not let processes have a network of their own", hint="allow user namespaces"
        )
    return command


def _refuse_open_network() -> None:
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if others:
        raise DeviceError(
            f"adbd would listen on {', '.join(others)} for everybody", hint="start it by in_own_network()"
        )


def _raise_loopback() -> None:
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _write_shim(source: Path, target: Path, files: Path, harness: Sequence[str]) -> None:
    """A shim with its paths filled in: adbd does not pass its environment on."""
    text = source.read_text()
    for name, value in {"FOLDER": str(files), "HARNESS": " ".join(f"'{part}'" for part in harness)}.items():
        text = text.replace(f"@{name}@", value)
    target.write_text(text)
    target.chmod(0o755)


def _connect(adb: list[str], environment: dict[str, str], daemon: subprocess.Popen[bytes]) -> str:
    def said(*arguments: str) -> str:
        command = [*adb, *arguments]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return (answer.stdout or answer.stderr).strip()

    serial = f"127.0.0.1:{_PORT}"
    deadline = time.monotonic() + _STARTS
    state = "it ended"
    while time.monotonic() < deadline and daemon.poll() is None:
        said("connect", serial)
        state = said("-s", serial, "get-state")
        if state == "device":
            return serial
        time.sleep(0.1)
    raise DeviceError(f"adbd does not answer: {state}", hint="see adbd.log in the loop's folder")
