"""What tests of runs on devices share: a package and inputs of a few bytes, which simulated devices only store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bare_manifest import bare_manifest
from PIL import Image

from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.inputs import Inputs
from edgesam_mobile.lab.jobs import JobOptions
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.requests import Golden, Prompted
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.package.manifest import Manifest, read_manifest, write_manifest

FORMATS = ("tflite", "executorch-xnnpack")
PHASES = ("gate", "check", "load", "first", "warm-up", "measure")
QUICK = JobOptions(seconds=0.05, rounds=3, launches=2)
HASTE = Patience(idle=3, job=3, reconnect=3, cancel=3)


class Quiet:
    """Watches, and counts what it sees."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events = self.sent = 0

    def planned(self, device: str, cases: Sequence[str], launches: int) -> None:
        self.lines.append(f"{device} plans {launches} launches of {', '.join(cases)}")

    def sending(self, device: str, what: str, done: int, of: int) -> None:
        self.sent += 1

    def event(self, device: str, case: str, index: int, event: Any) -> None:
        self.events += 1

    def launched(self, device: str, case: str, launch: LaunchRecord) -> None:
        self.lines.append(f"{device} {case} {launch.status}")

    def said(self, device: str, line: str) -> None:
        self.lines.append(f"{device}: {line}")


class Acting(Quiet):
    """Does something once, at the first event that fits, or in the middle of the first file that is sent."""

    def __init__(self, act: Callable[[], None], *, at: Callable[[Any], bool] | None = None) -> None:
        super().__init__()
        self._act, self._at, self.done = act, at, False
        self.firsts: list[tuple[str, int]] = []

    def sending(self, device: str, what: str, done: int, of: int) -> None:
        super().sending(device, what, done, of)
        self.firsts.append((what, done))
        if self._at is None and 0 < done < of:
            self._once()

    def event(self, device: str, case: str, index: int, event: Any) -> None:
        super().event(device, case, index, event)
        if self._at is not None and self._at(event):
            self._once()

    def _once(self) -> None:
        if not self.done:
            self.done = True
            self._act()


def at_phase(name: str) -> Callable[[Any], bool]:
    return lambda event: event.type == "phase" and event.name == name


def at_frame(number: int) -> Callable[[Any], bool]:
    return lambda event: event.type == "sample" and event.stage == "frame" and event.round == number


def small_package(folder: Path, *, weights_sha256: str = "1" * 64, repeats: int = 1000) -> tuple[Path, Manifest]:
    """Two artefacts of a few bytes, or more with more repeats."""
    record = bare_manifest(weights_sha256, FORMATS).model_dump(mode="json", by_alias=True)
    for artifact in record["artifacts"]:
        for part in ("encoder", "decoder"):
            path = folder / artifact["id"] / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{artifact['id']} {part}".encode() * repeats)
            size = path.stat().st_size
            artifact[part]["file"] = {"path": f"{artifact['id']}/{part}", "sha256": sha256_of(path), "bytes": size}
    write_manifest(folder, Manifest.model_validate(record))
    return folder, read_manifest(folder)


def small_inputs(folder: Path) -> Inputs:
    """A small picture, and a mask that a simulated device never looks at."""
    files = {}
    for name, mode in (("picture.ppm", "RGB"), ("mask.pbm", "1")):
        path = folder / name
        Image.new(mode, (8, 6)).save(path, "PPM")
        files[f"inputs/{hashlib.sha256(path.read_bytes()).hexdigest()}/{name}"] = path
    picture, mask = files
    golden = Golden(image=picture, points=((4.0, 3.0),), labels=(1,), mask=mask, best=1)
    return Inputs(Prompted(image=picture, points=((4.0, 3.0),), labels=(1,)), (golden,), files)
