"""iPhones: which are there, and the link to the harness app of one of them, through usbmux.

The app listens on a port of the device's own loopback interface only, and usbmux ends there: nothing of this needs a
network, nor leave to use one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.devices import Device, State
from edgesam_mobile.lab.links import DuplexLink
from edgesam_mobile.lab.protocol.events import Hello
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.usbmux import Unreachable, attached, canonical, connect, listening

PORT = 8765  # on the device; the app's own constant
_WAIT = 60.0  # seconds in which somebody can find the iPhone, unlock it and open the app
_LOOK = Patience(idle=3.0, busy=0.0)
_PAUSE = 0.5  # seconds between two looks whether the app listens, or somebody wants to stop
# Where udev starts usbmuxd, it comes with the first device and ends with the last.
_WORTH_WAITING = ("no-service", "absent", "refused", "untrusted")


def ios_devices() -> list[Device]:
    """iPhones on a cable; none where there is no usbmuxd.

    Raises:
        DeviceError: usbmuxd is there and answers nonsense.
    """
    try:
        found = attached()
    except Unreachable as error:
        if error.why == "no-service":
            return []
        raise
    if not found:
        return []
    if shutil.which("xcrun"):
        from edgesam_mobile.lab.xcode import known_devices

        known = known_devices()
    else:
        known = {}
    return [_described(device.udid, known.get(device.udid)) for device in found]


def _described(udid: str, known: Device | None) -> Device:
    """A device with what Xcode, or else the harness, tells of it; ``ready`` if the harness answers."""
    device = known or Device(f"ios:{udid}", "attached")
    try:
        with Session(lambda: connect(udid, PORT), patience=_LOOK) as session:
            hello = session.hello
    except Unreachable as error:
        state: State = "unauthorised" if error.why == "untrusted" else "attached"
        return replace(device, state=state, hint=device.hint or error.hint)
    except DeviceError as error:
        return replace(device, hint=f"{error.message}: {error.hint}")
    assert hello is not None
    told = hello.device
    system = " ".join(part for part in (told.os, told.os_version) if part)
    return replace(device, state="ready", model=device.model or told.model, os=device.os or system or None, hint=None)


class IosLink(DuplexLink):
    """The harness app of one iPhone; see :class:`~edgesam_mobile.lab.links.DeviceLink`.

    Args:
        install: puts the app on the iPhone and starts it, before anything else.
        say: is told, once for each reason, what is waited for.
        wait: seconds for the iPhone to be connected and the app to be opened.
    """

    def __init__(
        self,
        udid: str,
        *,
        install: Callable[[], None] | None = None,
        say: Callable[[str], None] = lambda line: None,
        patience: Patience | None = None,
        wait: float = _WAIT,
    ) -> None:
        self._udid = canonical(udid)
        super().__init__(f"ios:{self._udid}", lambda: connect(self._udid, PORT), patience=patience)
        self._install, self._say, self._wait = install, say, wait

    def open(self) -> Hello:
        if self._install is not None:
            self._install()
        deadline, told = time.monotonic() + self._wait, ""
        while True:
            try:
                return super().open()
            except Unreachable as error:
                left = deadline - time.monotonic()
                if error.why not in _WORTH_WAITING or left <= 0 or self.stop():
                    raise
                if error.why != told:
                    told = error.why
                    self._say(f"{error.message}; waiting up to {left:.0f} s: {error.hint}")
                if error.why == "absent":
                    self._await_cable(min(left, _PAUSE))
                else:
                    time.sleep(min(left, _PAUSE))

    def _await_cable(self, seconds: float) -> None:
        """Wait for the iPhone to be plugged in; what is attached already is told as well, so none is missed."""
        with suppress(Unreachable), listening() as devices:
            for change in devices.changes(within=seconds):
                if (change.kind, change.udid) == ("attached", self._udid):
                    return
