"""What a run on devices shows while it goes on: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from edgesam_mobile.cli.output import number, out

if TYPE_CHECKING:
    from rich.table import Table

    from edgesam_mobile.lab.protocol.events import Event
    from edgesam_mobile.lab.records import LaunchRecord
    from edgesam_mobile.lab.targets import Target

_RECENT = 100  # frames that the shown percentiles are of
_COLUMNS = (
    "device", "artefact", "launch", "doing", "frames", "p50 ms", "p90 ms", "FPS", "so far", "thermal", "°C", "done",
)  # fmt: skip
_EVERY = 30.0  # seconds between lines about one device, off a terminal
TARGET = "iphone14-30fps"  # what most runs are for; `compare` judges by any


@dataclass
class _Row:
    launches: str = "–"
    doing: str = "waits"
    frames: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    thermal: str = "–"
    celsius: float | None = None
    done: int = 0
    model: str | None = None


class LiveView:
    """A :class:`~edgesam_mobile.lab.fleet.Watcher`; its methods are called from the devices' threads."""

    def __init__(self) -> None:
        from edgesam_mobile.lab.targets import load_target

        self._target = load_target(TARGET)
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._notes: dict[str, str] = {}
        self._planned: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._lines_due: dict[str, float] = {}
        self._say = out.note

    def planned(self, device: str, cases: Sequence[str], launches: int) -> None:
        with self._lock:
            self._planned[device] = launches
            for case in cases:
                self._rows[device, case] = _Row()

    def sending(self, device: str, what: str, done: int, of: int) -> None:
        with self._lock:
            note = self._notes[device] = f"sending {what}: {done / 1e6:.1f} of {of / 1e6:.1f} MB"
            due = self._line_due(device)
        if due:
            self.said(device, note)

    def event(self, device: str, case: str, index: int, event: Event) -> None:
        with self._lock:
            row = self._rows[device, case]
            row.launches = str(index + 1)
            self._notes.pop(device, None)
            _take(row, event)
            progress = _progress(row) if self._line_due(device) else None
        if progress is not None:
            self.said(device, f"{case} launch {index + 1}: {progress}")

    def launched(self, device: str, case: str, launch: LaunchRecord) -> None:
        with self._lock:
            row = self._rows[device, case]
            row.doing, row.done = launch.status, row.done + 1
            self._ended[device] = self._ended.get(device, 0) + 1
            done = f"[{self._ended[device]}/{self._planned.get(device, 0)}]"
        times = sorted(launch.times("frame"))
        told = f"{len(times)} frames, median {times[len(times) // 2]:.1f} ms" if times else "no frames"
        why = f": {launch.error}" if launch.error else ""
        self._say(f"{device} {done} {case} launch {launch.index + 1}: {launch.status}, {told}{why}")

    def said(self, device: str, line: str) -> None:
        self._say(f"{device}: {line}")

    def _line_due(self, device: str) -> bool:
        """Whether a log has heard nothing of a device's progress for long; a table shows it all the time."""
        now = time.monotonic()
        if out.watched or now < self._lines_due.setdefault(device, now + _EVERY):
            return False
        self._lines_due[device] = now + _EVERY
        return True

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table on a terminal for as long as this lasts."""
        if not out.watched:
            yield
            return
        from rich.live import Live

        with Live(console=out.console, refresh_per_second=4, transient=True, get_renderable=self._table) as live:
            self._say = lambda text: live.console.print(text, markup=False, highlight=False)  # above the table
            yield
            self._say = out.note

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(*_COLUMNS, title="measuring; Ctrl-C ends the devices' jobs and keeps what was measured")
        with self._lock:
            for (device, case), row in self._rows.items():
                doing = self._notes.get(device, row.doing) if row.doing == "waits" else row.doing
                table.add_row(device, case, row.launches, doing, *_figures(row, self._target), str(row.done))
        return table


def _take(row: _Row, event: Any) -> None:
    if event.type == "hello":
        row.model = event.device.model
    elif event.type == "phase":
        row.doing = event.name
    elif event.type == "sample" and event.stage == "frame":
        row.frames += 1
        row.recent.append(event.ns / 1e6)
    elif event.type == "state":
        row.thermal = event.thermal or "–"
        row.celsius = event.battery.celsius if event.battery else None
    elif event.type == "error":
        row.doing = event.code


def _progress(row: _Row) -> str:
    """What is going on in a line; the figure is of the last frames only, since speed changes."""
    lately = f", lately {median(row.recent):.1f} ms" if row.recent else ""
    return f"{row.doing}, {row.frames} frames{lately}, thermal {row.thermal}"


def _figures(row: _Row, target: Target) -> tuple[str, ...]:
    p50 = p90 = None
    if len(row.recent) >= 2:
        cuts = quantiles(row.recent, n=10, method="inclusive")
        p50, p90 = cuts[4], cuts[8]
    fps = 1000 / p50 if p50 else None
    shown = (number(value, ".1f") for value in (p50, p90, fps))
    return (str(row.frames), *shown, _so_far(row, p90, target), row.thermal, number(row.celsius, ".1f"))


def _so_far(row: _Row, p90: float | None, target: Target) -> str:
    """Whether the frames of late keep the target's limit; on another device nothing can be said."""
    if p90 is None or row.model is None:
        return "–"
    if row.model not in target.device.models:
        return "not compared"
    return f"within {target.p90_ms:g} ms" if p90 <= target.p90_ms else f"over {target.p90_ms:g} ms"
