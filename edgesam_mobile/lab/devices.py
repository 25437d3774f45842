"""Which devices there are, and which of them a run is to use."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.links import DeviceLink, DuplexLink

State = Literal["ready", "unauthorised", "offline", "absent"]
_FORMS = "host, adb:SERIAL, loopback:PORT, label:NAME or all"


@dataclass(frozen=True)
class Device:
    """One device that was found or that the lab file names.

    Attributes:
        key: how it is addressed; stays the same from day to day.
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


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabDevice(_Closed):
    """A device of a lab."""

    key: Annotated[str, Field(pattern=r"^(adb|ios|loopback):\S+$")]
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
    """This machine, what adb knows, and what the lab file names; absent ones of the latter too."""
    from edgesam_mobile.lab.adb import adb_devices
    from edgesam_mobile.lab.host import cpu_name

    found = [Device("host", "ready", model=cpu_name()), *adb_devices()]
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
        addresses: ``host``, a device's key, ``label:NAME`` for all that carry a label, ``all`` for all that are
            ready, this machine apart.

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
        elif address == "host" or (kind in ("adb", "ios", "loopback") and rest):
            means = [address]
        else:
            raise UsageError(f"no device is called {address!r}", hint=f"a device is {_FORMS}")
        if not means:
            raise UsageError(f"{address} means no device here", hint="`edgesam-mobile devices` lists them")
        chosen += means
    return list(dict.fromkeys(chosen))


def open_link(key: str, *, apk: Path | None = None) -> DeviceLink:
    """The link to a device, not yet connected.

    Args:
        apk: the Android harness, to install where it is missing or older.

    Raises:
        UsageError: devices of this kind are not supported, or a port is none.
    """
    kind, _, rest = key.partition(":")
    if kind == "adb":
        from edgesam_mobile.lab.adb import AdbLink

        return AdbLink(rest, apk=apk)
    if kind == "loopback":
        port = _port(rest)
        return DuplexLink(key, lambda: socket.create_connection(("127.0.0.1", port), timeout=5))
    raise UsageError(f"cannot measure on {key} yet", hint=f"a device is {_FORMS}")


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
