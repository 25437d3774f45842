"""Android devices: what adb sees, files to the harness's folder, jobs through ``am instrument``.

Events come as status lines while the job runs. The harness keeps them in a file as well, which is read when the cable
drops meanwhile.
"""

from __future__ import annotations

import io
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from edgesam_mobile.errors import DeviceError, EnvironmentMissing, PackageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.adb_calls import HINTS, STATES, AdbLost, AdbSilent, Calls, client, errors
from edgesam_mobile.lab.links import OnBytes, OnEvent, never
from edgesam_mobile.lab.protocol.events import Event, Hello
from edgesam_mobile.lab.protocol.launch import LaunchEvents
from edgesam_mobile.lab.protocol.link import FRUITLESS, Patience
from edgesam_mobile.lab.protocol.messages import encode, plain
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.stream import Ending, Reader
from edgesam_mobile.lab.records import LaunchRecord

if TYPE_CHECKING:
    from edgesam_mobile.lab.devices import Device

PACKAGE = "dev.edgesam.harness"
INSTRUMENTATION = f"{PACKAGE}/.JobInstrumentation"
# The folder of an app that adb may write to as well; what the harness says of it counts.
FOLDER = f"/sdcard/Android/data/{PACKAGE}/files"
LEAST_API = 26
_POLL = 0.5  # seconds between two looks at what a device does
_HASHED = 50e6  # bytes a second that a slow phone hashes
_INSTALLED = 120.0  # seconds that installing may take
T = TypeVar("T")


def adb_devices() -> list[Device]:
    """Phones and emulators that adb sees, in whatever state; none where there is no adb."""
    from edgesam_mobile.lab.devices import Device

    try:
        with errors("this machine"):
            listed = [(info.serial, info.state) for info in client().list()]
    except (EnvironmentMissing, DeviceError):
        return []
    found = []
    for serial, said in listed:
        state = STATES.get(said, "offline")
        device = Device(f"adb:{serial}", state, hint=HINTS.get(state))
        found.append(_described(device, serial) if state == "ready" else device)
    return found


def _described(device: Device, serial: str) -> Device:
    adb = Calls(device.key, serial, within=5)
    try:
        battery = _battery(adb.shell("dumpsys battery"))
        return replace(
            device,
            model=adb.shell("getprop ro.product.model") or None,
            os=f"Android {adb.shell('getprop ro.build.version.release')}",
            battery=battery.get("level"),
            celsius=battery.get("temperature"),
        )
    except DeviceError as error:
        return replace(device, state="offline", hint=f"{error.message}: {error.hint}")


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
        self.stop: Callable[[], bool] = never
        self._apk, self._folder = apk, PurePosixPath(FOLDER)
        self._patience = patience or Patience()
        self._adb = Calls(self.key, serial, within=self._patience.idle)
        self._left: str | None = None  # a job that may still run, of a device that did not come back

    def identity(self) -> str | None:
        # The same by cable and by Wi-Fi, and told without starting anything, which would end the other link's job.
        with suppress(DeviceError):
            said = self._adb.shell("settings get secure android_id")
            return said if re.fullmatch("[0-9a-f]{8,16}", said) else None
        return None

    def open(self) -> Hello:
        self._refuse_unusable()
        return self._persist(self._greeted)

    def put(self, source: Path, path: str, on_bytes: OnBytes) -> None:
        if source.is_dir():
            for member in sorted(p for p in source.rglob("*") if p.is_file()):
                self.put(member, f"{path}/{member.relative_to(source).as_posix()}", on_bytes)
            return
        try:
            size, digest = source.stat().st_size, sha256_of(source)
        except OSError as error:
            raise PackageError(f"cannot read {source}: {error.strerror}", hint="build the package again") from error
        self._persist(lambda: self._put(source, size, digest, self._folder / path, on_bytes))

    def run(self, job: Job, launch: LaunchEvents, on_event: OnEvent) -> LaunchRecord:
        reader, started = Reader("one-job", instrumentation=True), False

        def take(event: Event) -> None:
            launch.take(event)
            on_event(event)

        try:
            self._persist(lambda: self._request(job))
            started = True
            return launch.record(self._followed(job.job, reader, take))
        except DeviceError as error:
            launch.failure = error.message
            return launch.record(reader.ending())
        except KeyboardInterrupt:
            launch.cancelled = True
            if started:
                self._cancelled(job.job, Reader("one-job", streams=reader.streams), launch)
            raise

    def close(self) -> None:
        """Nothing stays open between jobs."""

    def _greeted(self) -> Hello:
        self._await_free()
        if self._apk is not None and self._installed(self._apk.stat().st_size) != sha256_of(self._apk):
            self._install(self._apk)
        reader = Reader("one-job", instrumentation=True)
        hello = [e for e in self._instrument(reader, "", self._patience.idle * 3) if isinstance(e, Hello)]
        if hello:
            self._folder = PurePosixPath(reader.folder or self._folder)
            return hello[0]
        said = reader.last_words or (reader.fault.message if reader.fault else "it said nothing")
        raise DeviceError(
            f"the harness does not start on {self.key}: {said}",
            hint="install it: `gradle -p android_harness :app:assembleRelease`, then --apk FILE",
        )

    def _put(self, source: Path, size: int, digest: str, target: PurePosixPath, on_bytes: OnBytes) -> None:
        if self._hash(target, size) == digest:
            on_bytes(size, size)
            return
        self._adb.shell(f"mkdir -p {shlex.quote(str(target.parent))}")
        part = f"{target}.part"
        try:
            with source.open("rb") as stream:
                self._adb.push(stream, part, lambda done: on_bytes(done, size))
        except DeviceError:
            self._refuse_full(size)
            raise
        if self._hash(PurePosixPath(part), size) != digest:
            self._refuse_full(size)
            raise DeviceError(f"{target.name} arrived damaged", hint="try again; if it stays so, try another cable")
        self._adb.shell(f"mv {shlex.quote(part)} {shlex.quote(str(target))}")

    def _request(self, job: Job) -> None:
        """Bring a job's request to the device, once no other job runs there."""
        self._await_free()
        request = self._folder / "jobs" / f"{job.job}.request"
        self._adb.shell(f"mkdir -p {shlex.quote(str(request.parent))}")
        self._adb.push(io.BytesIO(encode(job)), str(request))

    def _followed(self, job: str, reader: Reader, take: OnEvent) -> Ending:
        """Start a job and take its events to their end; after a dropped cable, those that were kept."""
        lost = ""
        try:
            for event in self._instrument(reader, f"-e job jobs/{job}.request", self._patience.job):
                take(event)
        except DeviceError as error:
            lost = f"; {error.message}"
        ending = reader.ending()
        if ending.kind == "whole":
            return ending
        kept = Reader("one-job", streams=reader.streams)
        for event in self._kept(job, kept, self._patience.reconnect, self.stop):
            take(event)
        kept.last_words = reader.last_words
        ending = kept.ending()
        if ending.kind == "whole":
            return ending
        self._left = None if self._force_stop() else job
        return replace(ending, message=f"{ending.message}{lost}")

    def _cancelled(self, job: str, reader: Reader, launch: LaunchEvents) -> None:
        """End a job early, and take what it still says."""
        self._cancel(job)
        for event in self._kept(job, reader, self._patience.cancel, never):
            launch.take(event)
        if reader.ending().kind != "whole":
            self._force_stop()

    def _instrument(self, reader: Reader, arguments: str, patience: float) -> Iterator[Event]:
        """Run the instrumentation and give its events; ends when it ends or the cable drops.

        Raises:
            AdbLost: it says nothing for longer than ``patience`` seconds, or the cable dropped.
            KeyboardInterrupt: somebody wants to stop.
        """
        try:
            for piece in self._adb.stream(f"shell:am instrument -w -r {arguments} {INSTRUMENTATION}", patience):
                self._look_whether_to_stop()
                yield from reader.feed(piece)
                if reader.fault is not None:
                    return
        except AdbSilent:
            self._force_stop()
            raise

    def _kept(self, job: str, reader: Reader, patience: float, stop: Callable[[], bool]) -> Iterator[Event]:
        """What the device kept of a job and was not seen yet, until its ``end`` or as long as it grows.

        Raises:
            KeyboardInterrupt: ``stop`` says so.
        """
        path, offset, grown = str(self._folder / "jobs" / f"{job}.jsonl"), 0, False
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if stop():
                raise KeyboardInterrupt
            try:
                # Asked before: what a process wrote before it ended is in what is read then.
                runs = grown or self._runs()
                piece = self._adb.read(path, offset)
            except DeviceError:
                grown = False  # not back yet
            else:
                offset, grown = offset + len(piece), bool(piece)
                yield from reader.feed(piece)
                if reader.ending().kind != "truncated" or not runs:
                    return
                if grown:
                    deadline = time.monotonic() + patience
            time.sleep(_POLL)

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Do something on the device, and again once it is back if it is lost on the way.

        Raises:
            AdbLost: it does not come back, or was lost again and again.
            KeyboardInterrupt: somebody wants to stop.
        """
        lost = 0
        while True:
            try:
                return attempt()
            except AdbLost as error:
                lost += 1
                if lost >= FRUITLESS:
                    raise
                self._await_return(error)

    def _await_return(self, lost: AdbLost) -> None:
        deadline = time.monotonic() + self._patience.reconnect
        while True:
            self._look_whether_to_stop()
            with suppress(AdbLost):
                if self._adb.state() == "device":
                    return
            if time.monotonic() >= deadline:
                away = f"{lost.message}, and the device did not come back within {self._patience.reconnect:g} s"
                raise DeviceError(away, hint=lost.hint)
            time.sleep(_POLL)

    def _await_free(self) -> None:
        """Wait for the job before to be over: starting an instrumentation ends the one that runs, whosever it is.

        Raises:
            DeviceError: it runs on.
        """
        patience = self._patience.busy
        if self._left is not None:
            self._cancel(self._left)
            patience = self._patience.cancel
        deadline = time.monotonic() + patience
        while self._runs():
            self._look_whether_to_stop()
            if time.monotonic() >= deadline:
                raise DeviceError(
                    f"{self.key} is busy: the harness runs already",
                    hint="wait until the other job is over, or close the app on the device",
                )
            time.sleep(_POLL)
        self._left = None

    def _refuse_unusable(self) -> None:
        state = self._adb.state()
        if state != "device":
            raise DeviceError(f"{self.key} is {state}", hint=HINTS.get(STATES.get(state, "offline")))
        api = self._adb.shell("getprop ro.build.version.sdk")
        if api.isdecimal() and int(api) < LEAST_API:
            raise DeviceError(
                f"{self.key} has Android API {api}", hint=f"the harness needs {LEAST_API} (Android 8) or later"
            )

    def _installed(self, size: int) -> str | None:
        """Hash of the installed harness's file, which has about so many bytes."""
        place = self._adb.shell(f"pm path {PACKAGE}").removeprefix("package:")
        return self._hash(PurePosixPath(place), size) if place else None

    def _install(self, apk: Path) -> None:
        remote = f"/data/local/tmp/{PACKAGE}.apk"
        with apk.open("rb") as stream:
            self._adb.push(stream, remote)
        said = self._adb.shell(f"pm install -r -t {remote}", more=_INSTALLED)
        self._adb.shell(f"rm -f {remote}")
        if "Success" not in said:
            raise DeviceError(
                f"{self.key} does not install the harness: {plain(said)}",
                hint="allow installing over USB on the device, or uninstall the older harness",
            )

    def _refuse_full(self, size: int) -> None:
        lines = self._adb.shell(f"df -k {shlex.quote(str(self._folder))}").splitlines()
        free = lines[-1].split()[3] if lines and len(lines[-1].split()) > 3 else ""
        if free.isdecimal() and int(free) * 1024 < size:
            raise DeviceError(
                f"no space for {size / 1e6:.0f} MB on {self.key}", hint="free some storage on the device"
            )

    def _hash(self, path: PurePosixPath, size: int) -> str | None:
        said = self._adb.shell(f"sha256sum {shlex.quote(str(path))} 2>/dev/null", more=size / _HASHED).split()
        return said[0] if said and len(said[0]) == 64 else None

    def _runs(self) -> bool:
        return bool(self._adb.shell(f"pidof {PACKAGE}"))

    def _cancel(self, job: str) -> None:
        """Wish a job to end: a file, since nothing can be sent to an instrumentation."""
        with suppress(DeviceError):  # it is gone: then its job ends by itself
            self._adb.shell(f"touch {shlex.quote(str(self._folder / 'jobs' / f'{job}.cancel'))}")

    def _force_stop(self) -> bool:
        """End the harness; gives whether the device heard it."""
        try:
            self._adb.shell(f"am force-stop {PACKAGE}")
        except DeviceError:
            return False
        return True

    def _look_whether_to_stop(self) -> None:
        if self.stop():
            raise KeyboardInterrupt
