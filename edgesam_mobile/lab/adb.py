"""Android devices: what adb sees, files to the harness's folder, jobs through ``am instrument``.

Events come as status lines while the job runs. The harness keeps them in a file as well, which is fetched when the
cable drops meanwhile.
"""

from __future__ import annotations

import io
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgesam_mobile.errors import DeviceError, EnvironmentMissing, PackageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.links import OnBytes, OnEvent
from edgesam_mobile.lab.protocol.events import Event, Hello
from edgesam_mobile.lab.protocol.launch import LaunchEvents
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.messages import encode, plain
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.stream import Reader
from edgesam_mobile.lab.records import LaunchRecord

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbDevice

    from edgesam_mobile.lab.devices import Device, State

PACKAGE = "dev.edgesam.harness"
INSTRUMENTATION = f"{PACKAGE}/.JobInstrumentation"
# The folder of an app that adb may write to as well; what the harness says of it counts.
FOLDER = f"/sdcard/Android/data/{PACKAGE}/files"
LEAST_API = 26
_POLL = 0.5  # seconds between two looks at what is kept of a job
_STATES: dict[str, State] = {"device": "ready", "unauthorized": "unauthorised"}
_HINTS = {
    "unauthorised": "accept this computer on the device's screen",
    "offline": "plug the cable in again, and see that the device is awake",
}


def client() -> AdbClient:
    """adb's server on this machine, started if need be.

    Raises:
        EnvironmentMissing: adbutils is not installed.
    """
    try:
        import adbutils
    except ModuleNotFoundError as error:
        raise EnvironmentMissing("adbutils is not installed", hint='pip install "edgesam-mobile[lab]"') from error
    server = adbutils.adb
    # adbutils starts a server as well, but never closes the socket with which it found none.
    with suppress(OSError), socket.create_connection((server.host, server.port), timeout=3):
        return server
    subprocess.run([adbutils.adb_path(), "start-server"], capture_output=True, timeout=20, check=False)
    return server


def adb_devices() -> list[Device]:
    """Phones and emulators that adb sees, in whatever state; none where there is no adb."""
    from edgesam_mobile.lab.devices import Device

    try:
        import adbutils

        listed = [(info.serial, info.state) for info in client().list()]
    except (EnvironmentMissing, OSError, RuntimeError, adbutils.AdbError):
        return []
    found = []
    for serial, said in listed:
        state = _STATES.get(said, "offline")
        device = Device(f"adb:{serial}", state, hint=_HINTS.get(state))
        found.append(_described(device, serial) if state == "ready" else device)
    return found


def _described(device: Device, serial: str) -> Device:
    from dataclasses import replace

    from adbutils import AdbError

    try:
        handle = client().device(serial)
        battery = _battery(str(handle.shell("dumpsys battery", timeout=5)))
        return replace(
            device,
            model=str(handle.prop.get("ro.product.model")) or None,
            os=f"Android {handle.prop.get('ro.build.version.release')}",
            battery=battery.get("level"),
            celsius=battery.get("temperature"),
        )
    except (AdbError, OSError):
        return device


def _battery(text: str) -> dict[str, float]:
    """``level`` 0 to 1 and ``temperature`` in degrees of what ``dumpsys battery`` prints."""
    values = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    scales = {"level": 0.01, "temperature": 0.1}
    return {name: int(values[name]) * scale for name, scale in scales.items() if values.get(name, "").isdecimal()}


class AdbLink:
    """One Android device; see :class:`~edgesam_mobile.lab.links.DeviceLink`.

    Args:
        apk: the harness, to install where it is missing or another version.
    """

    def __init__(self, serial: str, *, apk: Path | None = None, patience: Patience | None = None) -> None:
        self.key = f"adb:{serial}"
        self._serial, self._apk, self._folder = serial, apk, PurePosixPath(FOLDER)
        self._patience = patience or Patience()

    def open(self) -> Hello:
        with self._errors():
            self._refuse_unusable()
            if self._apk is not None and self._installed() != sha256_of(self._apk):
                self._install(self._apk)
            reader = Reader("one-job", instrumentation=True)
            hello = [e for e in self._instrument(reader, "", self._patience.idle * 3) if isinstance(e, Hello)]
        if hello:
            self._folder = PurePosixPath(reader.folder or self._folder)
            return hello[0]
        said = reader.last_words or (reader.fault.message if reader.fault else "it said nothing")
        raise DeviceError(
            f"the harness does not start on {self.key}: {said}", hint="install it: `make apk`, then --apk FILE"
        )

    def put(self, source: Path, path: str, on_bytes: OnBytes) -> None:
        if source.is_dir():
            for member in sorted(p for p in source.rglob("*") if p.is_file()):
                self.put(member, f"{path}/{member.relative_to(source).as_posix()}", on_bytes)
            return
        try:
            size, digest = source.stat().st_size, sha256_of(source)
        except OSError as error:
            raise PackageError(f"cannot read {source}: {error.strerror}", hint="build the package again") from error
        target = self._folder / path
        with self._errors():
            if self._hash(target) == digest:
                on_bytes(size, size)
                return
            self._shell(f"mkdir -p {shlex.quote(str(target.parent))}")
            part = f"{target}.part"
            self._push(source, part, size, on_bytes)
            if self._hash(PurePosixPath(part)) != digest:
                self._refuse_full(size)
                raise DeviceError(f"{path} arrived damaged", hint="try again; if it stays so, try another cable")
            self._shell(f"mv {shlex.quote(part)} {shlex.quote(str(target))}")

    def run(self, job: Job, launch: LaunchEvents, on_event: OnEvent) -> LaunchRecord:
        reader = Reader("one-job", instrumentation=True)
        request = self._folder / "jobs" / f"{job.job}.request"

        def take(event: Event) -> None:
            launch.take(event)
            on_event(event)

        try:
            with self._errors():
                self._shell(f"mkdir -p {shlex.quote(str(request.parent))}")
                self._device().sync.push(io.BytesIO(encode(job)), str(request))
                for event in self._instrument(reader, f"-e job jobs/{request.name}", self._patience.job):
                    take(event)
        except DeviceError as error:
            if not reader.streams:
                launch.failure = error.message
        except KeyboardInterrupt:
            launch.cancelled = True
            self._cancel(job.job)
            for event in self._kept(job.job, reader, patience=self._patience.cancel):
                launch.take(event)
            self._force_stop()
            raise
        if reader.ending().kind != "whole" and launch.failure is None:
            kept = Reader("one-job", streams=reader.streams)
            for event in self._kept(job.job, kept, patience=self._patience.reconnect):
                take(event)
            kept.last_words = reader.last_words
            reader = kept
        return launch.record(reader.ending())

    def close(self) -> None:
        """Nothing stays open between jobs."""

    def _instrument(self, reader: Reader, arguments: str, patience: float) -> Iterator[Event]:
        """Run the instrumentation and give its events; ends when it ends or the cable drops.

        Raises:
            DeviceError: it says nothing for longer than ``patience`` seconds.
        """
        from adbutils import AdbTimeout

        command = f"am instrument -w -r {arguments} {INSTRUMENTATION}"
        with self._device().shell(command, stream=True) as connection:
            connection.conn.settimeout(patience)
            while True:
                try:
                    data = connection.recv(1 << 16)
                except AdbTimeout as error:
                    self._force_stop()
                    raise DeviceError(
                        f"{self.key} said nothing for {patience:g} s", hint="look at the device's screen"
                    ) from error
                if not data:
                    return
                yield from reader.feed(data)
                if reader.fault is not None:
                    return

    def _kept(self, job: str, reader: Reader, *, patience: float) -> Iterator[Event]:
        """What the device kept of a job and was not seen yet, until its ``end`` or as long as it grows."""
        path, size = self._folder / "jobs" / f"{job}.jsonl", -1
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            again = Reader("one-job", streams=reader.streams)
            try:
                with self._errors():
                    content = self._device().sync.read_bytes(str(path))
                    yield from again.feed(content)
                    if again.ending().kind == "whole" or (len(content) == size and not self._runs()):
                        return
                    if len(content) > size:
                        deadline = time.monotonic() + patience
                    size = len(content)
            except DeviceError:
                pass  # not back yet
            time.sleep(_POLL)

    def _refuse_unusable(self) -> None:
        state = str(self._device().get_state())
        if state != "device":
            raise DeviceError(f"{self.key} is {state}", hint=_HINTS.get(_STATES.get(state, "offline")))
        api = self._shell("getprop ro.build.version.sdk").strip()
        if api.isdecimal() and int(api) < LEAST_API:
            raise DeviceError(
                f"{self.key} has Android API {api}", hint=f"the harness needs {LEAST_API} (Android 8) or later"
            )

    def _installed(self) -> str | None:
        """Hash of the installed harness's file."""
        place = self._shell(f"pm path {PACKAGE}").strip().removeprefix("package:")
        return self._hash(PurePosixPath(place)) if place else None

    def _install(self, apk: Path) -> None:
        remote = f"/data/local/tmp/{PACKAGE}.apk"
        self._device().sync.push(apk, remote)
        said = self._shell(f"pm install -r -t {remote}")
        self._shell(f"rm -f {remote}")
        if "Success" not in said:
            raise DeviceError(
                f"{self.key} does not install the harness: {plain(said.strip())}",
                hint="allow installing over USB on the device, or uninstall the older harness",
            )

    def _push(self, source: Path, target: str, size: int, on_bytes: OnBytes) -> None:
        from adbutils import AdbError

        try:
            with source.open("rb") as stream:
                self._device().sync.push(_Counted(stream, lambda done: on_bytes(done, size)), target)
        except AdbError:
            self._refuse_full(size)
            raise

    def _refuse_full(self, size: int) -> None:
        lines = self._shell(f"df -k {shlex.quote(str(self._folder))}").splitlines()
        free = lines[-1].split()[3] if lines and len(lines[-1].split()) > 3 else ""
        if free.isdecimal() and int(free) * 1024 < size:
            raise DeviceError(
                f"no space for {size / 1e6:.0f} MB on {self.key}", hint="free some storage on the device"
            )

    def _hash(self, path: PurePosixPath) -> str | None:
        said = self._shell(f"sha256sum {shlex.quote(str(path))} 2>/dev/null").split()
        return said[0] if said and len(said[0]) == 64 else None

    def _runs(self) -> bool:
        return bool(self._shell(f"pidof {PACKAGE}").strip())

    def _cancel(self, job: str) -> None:
        """Wish a job to end: a file, since nothing can be sent to an instrumentation."""
        try:
            with self._errors():
                self._shell(f"touch {shlex.quote(str(self._folder / 'jobs' / f'{job}.cancel'))}")
        except DeviceError:
            pass  # it is gone: then its job ends by itself

    def _force_stop(self) -> None:
        try:
            with self._errors():
                self._shell(f"am force-stop {PACKAGE}")
        except DeviceError:
            pass  # it is gone: then its job is, too, or ends by itself

    def _shell(self, command: str) -> str:
        return str(self._device().shell(command, timeout=self._patience.idle + 30))

    def _device(self) -> AdbDevice:
        return client().device(self._serial)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever adb says as an error with what to do about it."""
        from adbutils import AdbError

        try:
            yield
        except AdbError as error:
            said = plain(str(error))
            raise DeviceError(f"adb on {self.key}: {said}", hint=_advice(said)) from error
        except OSError as error:
            raise DeviceError(
                f"adb on {self.key}: {error.strerror or plain(str(error))}", hint="plug the cable in again"
            ) from error


def _advice(said: str) -> str:
    """What to do about adb's words."""
    for word, hint in (
        ("unauthorized", _HINTS["unauthorised"]),
        ("offline", _HINTS["offline"]),
        ("not found", "`edgesam-mobile devices` lists what adb sees"),
        ("No space", "free some storage on the device"),
        ("more than one", "name the device: adb:SERIAL"),
    ):
        if word in said:
            return hint
    return "look at `adb devices`, the cable and the device's screen"


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, stream: Any, tell: Callable[[int], None]) -> None:
        self._stream, self._tell, self._done = stream, tell, 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._done += len(data)
        self._tell(self._done)
        return data
