"""``edgesam-mobile devices``: what can be measured on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out

if TYPE_CHECKING:
    from edgesam_mobile.lab.devices import Device

app = typer.Typer()

LabFile = Annotated[
    Path | None, typer.Option("--lab", help="Lab file that names devices and labels; lab.toml here, if there is one.")
]
_COLUMNS = ("device", "state", "model", "OS", "battery", "°C", "labels", "what to do")


@command(app, "devices", examples=("edgesam-mobile devices", "edgesam-mobile devices --lab lab.toml --json"))
def devices(lab: LabFile = None) -> None:
    """List this machine, the phones that adb sees, the iPhones on a cable, and the devices of a lab file."""
    found = discovered(lab)

    def human() -> None:
        out.table(_COLUMNS, map(_row, found))

    ready = [device.key for device in found if device.state == "ready"]
    out.result("edgesam.devices/1", {"devices": [asdict(d) for d in found]}, human=human, quiet=ready)


def discovered(lab: Path | None) -> list[Device]:
    """All devices, with the labels of a lab file."""
    from edgesam_mobile.lab.devices import discover, read_lab

    path = lab or (Path("lab.toml") if Path("lab.toml").is_file() else None)
    return discover(read_lab(path) if path else None)


def _row(device: Device) -> tuple[object, ...]:
    return (
        device.key,
        device.state,
        device.model or "–",
        device.os or "–",
        "–" if device.battery is None else f"{device.battery:.0%}",
        "–" if device.celsius is None else f"{device.celsius:.1f}",
        ", ".join(device.labels) or "–",
        device.hint or "",
    )
