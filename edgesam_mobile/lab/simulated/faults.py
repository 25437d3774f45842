"""What goes wrong with a simulated device, and when: a script, so that a test knows."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.protocol.fields import LONGEST_LINE

Place = Literal["put", "run", "sent", "fetch"]
Kind = Literal[
    "cable",
    "kill",
    "reboot",
    "silence",
    "clock",
    "malformed",
    "not-utf8",
    "oversized",
    "gap",
    "reordered",
    "truncated",
]
DAMAGES = ("malformed", "not-utf8", "oversized", "gap", "reordered", "truncated")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, once.

    Attributes:
        kind: ``cable``: the connection breaks, the job runs on. ``kill``: the harness dies and is started again;
            files stay, half written ones too. ``reboot``: likewise, and the monotonic clock starts anew.
            ``silence``: nothing is sent for a while. ``clock``: the wall clock jumps by a day. The others damage a
            line.
        place: ``put``: at the byte ``at`` of what is received. ``run``: at the event ``at`` of a job, as it is kept.
            ``sent``: at the event ``at``, as it is sent for the first time; what is kept stays good. ``fetch``: as
            it is sent when fetched.
        seconds: of silence, or until the device is there again.
    """

    kind: Kind
    place: Place
    at: int
    seconds: float = 0.2

    def __post_init__(self) -> None:
        possible = {
            "put": ("cable", "kill", "reboot", "silence", "clock"),
            "run": ("kill", "reboot", "clock", *DAMAGES),
        }
        if self.kind not in possible.get(self.place, (self.kind,)):
            raise UsageError(f"no fault {self.kind} can happen in {self.place}", hint="script it for another place")


class Script:
    """The faults that are still to come. Safe to ask from several threads."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._left = list(faults)
        self._lock = threading.Lock()

    def due(self, place: Place, position: int) -> Fault | None:
        """The next fault that is due at a place by a position; each is given once."""
        if not self._left:
            return None
        with self._lock:
            for fault in self._left:
                if fault.place == place and fault.at <= position:
                    self._left.remove(fault)
                    return fault
        return None

    def waits_at(self, place: Place) -> bool:
        """Whether a fault of a place is still to come."""
        return any(fault.place == place for fault in tuple(self._left))


def damaged(kind: Kind, line: bytes) -> bytes:
    """A line with its newline, as it comes out of a fault; a ``reordered`` one waits for the next line instead."""
    if kind == "malformed":
        return line.replace(b'"seq":', b'"seq":,', 1)
    if kind == "not-utf8":
        return line.replace(b'"job":"', b'"job":"\xff\xfe', 1)
    if kind == "oversized":
        return line[:-2] + b',"pad":"' + b"x" * LONGEST_LINE + b'"}\n'
    if kind == "gap":
        return b""
    return line[: len(line) // 2]  # truncated
