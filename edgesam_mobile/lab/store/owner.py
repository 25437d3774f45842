"""Who measures a run, and whether it still does."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass

_LEASE = 24 * 3600  # seconds; no job of the protocol takes longer
_SAME = 60.0  # seconds; start times shift a little where the clock is set


@dataclass(frozen=True)
class Owner:
    """A process on a host; ``started`` tells it from a later one with the same number."""

    host: str
    pid: int
    started: float

    @classmethod
    def this_process(cls) -> Owner:
        """Whoever calls."""
        import psutil

        return cls(platform.node(), os.getpid(), psutil.Process().create_time())

    def is_alive(self, seen: int) -> bool:
        """Whether it may still add launches.

        Args:
            seen: seconds since 1970 of its last sign of life; only asked about another host, which this one cannot
                look into.
        """
        if self.host != platform.node():
            return time.time() - seen < _LEASE
        import psutil

        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.started) < _SAME
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
