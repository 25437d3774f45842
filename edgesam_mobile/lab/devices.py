"""Which devices there are, and which of them a run is to use."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.links import DeviceLink, DuplexLink
from edgesam_mobile.lab.usbmux import canonical

State = Literal["ready", "attached", "unauthorised", "offline", "absent"]
_FORMS = "host, adb:SERIAL, ios:UDID, loopback:PORT, loopback-swift, label:NAME or all"


@dataclass(frozen=True)
class Device:
    """One device that was found or that the lab file names.

    Attributes:
        key: how it is addressed; stays the same from day to day.
        state: ``ready`` to measure; ``attached``: on its cable, but its harness does not answer.
        battery: 0 to 1; ``None`` where it does not tell.
        celsius: of the battery.
        hint: what to do where it is not ready.
    """

    key: str
    state: State
    model: str | None = None
    os: str | None = None
    battery: float | None = None
    celsius: float | None = None
    labels: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(frozen=True)
class Harness:
    """What is to be put on devices before they are measured.

    Attributes:
        apk: for Android, to install where it is missing or another version.
        build: for iPhones: build, install and start it with Xcode.
        team: Apple's development team to sign that with.
    """

    apk: Path | None = None
    build: bool = False
    team: str | None = None


def one_spelling(key: str) -> str:
    """A device's key as it is kept, since UDIDs are spelt in several ways."""
    kind, _, rest = key.partition(":")
    return f"ios:{canonical(rest)}" if kind == "ios" else key


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabDevice(_Closed):
    """A device of a lab."""

    key: Annotated[str, Field(pattern=r"^(adb|ios|loopback):\S+$"), AfterValidator(one_spelling)]
    name: str | None = None
    labels: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ...] = ()


class Lab(_Closed):
    """``lab.toml``: a ``[[device]]`` table for each device of a lab."""

    device: tuple[LabDevice, ...] = ()


def read_lab(path: Path) -> Lab:
    """Read a lab file.

    Raises:
        UsageError: it cannot be read, is no TOML, has an unknown key or a device twice.
    """
    try:
        lab = Lab.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", hint="see docs/lab.md") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg']}", hint="see docs/lab.md") from error
    keys = [device.key for device in lab.device]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError(f"{path} names {twice[0]} twice", hint="give each device one table")
    return lab


def discover(lab: Lab | None = None) -> list[Device]:
    """This machine, what adb and usbmux know, and what the lab file names; absent ones of the latter too."""
    from edgesam_mobile.lab.adb import adb_devices
    from edgesam_mobile.lab.host import cpu_name
    from edgesam_mobile.lab.ios import ios_devices

    found = [Device("host", "ready", model=cpu_name()), *adb_devices(), *ios_devices()]
    for named in lab.device if lab else ():
        here = next((n for n, device in enumerate(found) if device.key == named.key), None)
        if here is None:
            hint = "connect it, or take it out of the lab file"
            absent = Device(named.key, "absent", model=named.name, labels=named.labels, hint=hint)
            found.append(_listens(absent) if named.key.startswith("loopback:") else absent)
        else:
            found[here] = replace(found[here], labels=named.labels, model=named.name or found[here].model)
    return found


def stands_for_several(address: str) -> bool:
    """Whether an address means whatever devices are found; the others name one, found or not."""
    return address == "all" or address.startswith("label:")


def select(addresses: Sequence[str], devices: Sequence[Device]) -> list[str]:
    """Keys of the devices that addresses mean, each once, in their order.

    Args:
        addresses: ``host``, ``loopback-swift``, a device's key, ``label:NAME`` for all that carry a label, ``all``
            for all that are ready, this machine apart.

    Raises:
        UsageError: an address is malformed, or means none.
    """
    chosen: list[str] = []
    for address in addresses:
        kind, _, rest = address.partition(":")
        if address == "all":
            means = [d.key for d in devices if d.key != "host" and d.state == "ready"]
        elif kind == "label":
            means = [d.key for d in devices if rest in d.labels]
        elif address in ("host", "loopback-swift") or (kind in ("adb", "ios", "loopback") and rest):
            means = [one_spelling(address)]
        else:
            raise UsageError(f"no device is called {address!r}", hint=f"a device is {_FORMS}")
        if not means:
            raise UsageError(f"{address} means no device here", hint="`edgesam-mobile devices` lists them")
        chosen += means
    return list(dict.fromkeys(chosen))


def open_link(
    key: str, *, harness: Harness = Harness(), say: Callable[[str, str], None] = lambda key, line: None
) -> DeviceLink:
    """The link to a device, not yet connected.

    Args:
        harness: what to put on it first.
        say: is told, with the device's key, what is waited for.

    Raises:
        EnvironmentMissing: what the harness is to be built with is not here.
        UsageError: devices of this kind are not supported, or a port is none.
    """
    kind, _, rest = key.partition(":")
    if kind == "adb":
        from edgesam_mobile.lab.adb import AdbLink

        return AdbLink(rest, apk=harness.apk)
    if kind == "ios":
        return _ios_link(rest, harness, partial(say, key))
    if key == "loopback-swift":
        from edgesam_mobile.lab.swift import SwiftLink

        return SwiftLink(partial(say, key))
    if kind == "loopback":
        port = _port(rest)
        return DuplexLink(key, lambda: socket.create_connection(("127.0.0.1", port), timeout=5))
    raise UsageError(f"cannot measure on {key} yet", hint=f"a device is {_FORMS}")


def _ios_link(udid: str, harness: Harness, say: Callable[[str], None]) -> DeviceLink:
    from edgesam_mobile.lab.ios import IosLink

    if not harness.build:
        return IosLink(udid, say=say)
    from edgesam_mobile.lab.xcode import Installation

    return IosLink(udid, install=Installation(udid, harness.team, say), say=say)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise UsageError(f"{text!r} is no port", hint="a harness on this machine is loopback:PORT")
    return int(text)


def _listens(device: Device) -> Device:
    """Whether a harness on this machine can be reached."""
    try:
        socket.create_connection(("127.0.0.1", _port(device.key.partition(":")[2])), timeout=1).close()
    except OSError:
        return device
    return replace(device, state="ready", hint=None)
