"""Real adb to this machine's stand-in for a phone: what it is, and that nobody else reaches it."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from android_harness.adb.loop import PACKAGE, adb_loop, in_own_network, own_network
from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.adb import AdbLink
from edgesam_mobile.lab.adb_calls import AdbLost, Calls
from edgesam_mobile.lab.protocol.link import Patience
from tests.android.conftest import tools_or_skip

INSTRUMENT = f"am instrument -w -r {PACKAGE}/.JobInstrumentation"


@pytest.fixture(autouse=True)
def tools() -> None:
    with tools_or_skip():
        own_network()


def files_and_shell(folder: str) -> None:
    with adb_loop(Path(folder), ["echo"]) as device:
        sent, back = Path(folder, "sent"), Path(folder, "back")
        sent.write_bytes(bytes(range(256)) * 8192)
        device.adb("push", str(sent), f"{device.folder}/models/file")
        device.adb("pull", f"{device.folder}/models/file", str(back))
        assert back.read_bytes() == sent.read_bytes()
        assert device.adb("shell", "getprop ro.product.model").strip() == "adb loop"
        assert "level: 50" in device.adb("shell", "dumpsys battery")


def the_desktops_own_calls(folder: str) -> None:
    with adb_loop(Path(folder), ["echo"]) as device:
        adb = Calls("adb:loop", device.serial, within=10)
        content, path = bytes(range(256)) * 8192, f"{device.folder}/models/file"
        adb.push(io.BytesIO(content), path)
        assert Path(path).read_bytes() == content
        assert adb.read(path, 0) == content and adb.read(path, 300) == content[300:]
        assert adb.read(path, len(content)) == adb.read(f"{path}.none", 0) == b""
        assert (adb.state(), adb.shell("echo out; echo err >&2")) == ("device", "out\nerr")
        with pytest.raises(DeviceError, match=r"cannot write /dev/full: .*No space left on device") as caught:
            adb.push(io.BytesIO(content), "/dev/full")
        assert not isinstance(caught.value, AdbLost)  # trying again would not help
        half = Cut(content, lambda: device.pull_cable())
        with pytest.raises(AdbLost):
            adb.push(half, path)
        assert not Path(path).exists()  # adbd removes what it has of it, so there is nothing to continue


class Cut(io.BytesIO):
    """A file in the middle of which the cable is pulled."""

    def __init__(self, content: bytes, pull: Callable[[], None]) -> None:
        super().__init__(content)
        self._pull = pull

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == 1 << 20:
            self._pull()
        return super().read(size)


def two_labs(folder: str) -> None:
    """What Android does to a job when another instrumentation starts, and that the desktop does not start one."""
    instrument = f"am instrument -w -r -e job jobs/x {PACKAGE}/.JobInstrumentation"
    with adb_loop(Path(folder), ["sh", "-c", "sleep 30; :"]) as device:
        device.install(Path(__file__))
        first = subprocess.Popen(
            ["adb", "-P", str(device.port), "-s", device.serial, "shell", instrument],
            stdout=subprocess.PIPE,
            text=True,
        )
        while not device.adb("shell", f"pidof {PACKAGE}; true").strip():
            time.sleep(0.05)
        with pytest.raises(DeviceError, match="is busy"):
            AdbLink(device.serial, patience=Patience(busy=0)).open()
        assert first.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            device.adb("shell", instrument, timeout=0.5)
        print(first.communicate(timeout=10)[0])


def not_installed(folder: str) -> None:
    with adb_loop(Path(folder), ["echo"]) as device:
        print(device.adb("shell", f"{INSTRUMENT}; pm path {PACKAGE}; true"))


def hello(folder: str, command: list[str], apk: str) -> None:
    with adb_loop(Path(folder), command) as device:
        device.install(Path(apk))
        print(device.adb("shell", INSTRUMENT))


def cable(folder: str) -> None:
    with adb_loop(Path(folder), ["echo"]) as device:
        device.pull_cable()
        try:
            device.adb("shell", "true")
        except Exception as error:
            print(type(error).__name__)
        device.plug_cable()
        print(device.adb("shell", "echo back"))


def test_looking_for_devices_starts_a_server_and_leaves_no_socket_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    surroundings = os.environ | {"ANDROID_ADB_SERVER_PORT": port, "HOME": str(tmp_path)}
    look = "from edgesam_mobile.lab.adb import adb_devices; adb_devices()"
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", look]
    told = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    stopped = subprocess.run(["adb", "-P", port, "kill-server"], capture_output=True)
    assert (told.returncode, told.stderr, stopped.returncode) == (0, "", 0)


def test_adbd_is_never_started_where_others_reach_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="for everybody"), adb_loop(tmp_path, ["echo"]):
        pass


def test_what_fails_inside_is_told_outside(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        in_own_network(hello, str(tmp_path), ["true"], str(tmp_path / "nothing.apk"))


def test_files_arrive_as_they_are(tmp_path: Path) -> None:
    in_own_network(files_and_shell, str(tmp_path))


def test_the_desktops_own_calls_are_understood(tmp_path: Path) -> None:
    in_own_network(the_desktops_own_calls, str(tmp_path))


def test_another_labs_job_is_not_ended(tmp_path: Path) -> None:
    assert "Process crashed" in in_own_network(two_labs, str(tmp_path))


def test_without_an_app_the_instrumentation_is_not_found(tmp_path: Path) -> None:
    said = in_own_network(not_installed, str(tmp_path))
    assert "Unable to find instrumentation info" in said
    assert "package:" not in said


def test_a_pulled_cable_can_be_plugged_in_again(tmp_path: Path) -> None:
    assert in_own_network(cable, str(tmp_path)).split() == ["CalledProcessError", "back"]


@pytest.mark.slow
def test_the_apks_own_core_says_hello(tmp_path: Path, apk: Path, apk_command: list[str]) -> None:
    said = in_own_network(hello, str(tmp_path), apk_command, str(apk))
    assert f"INSTRUMENTATION_STATUS: folder={tmp_path}/files\nINSTRUMENTATION_STATUS_CODE: 0\n" in said
    assert 'INSTRUMENTATION_STATUS: event={"type":"hello","seq":0,"protocol":"edgesam.harness/1"' in said
    assert said.rstrip().endswith("INSTRUMENTATION_CODE: -1")
