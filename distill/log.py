"""A run's log: one JSON object a line, means over the steps since the line before, and where the time went."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesam_mobile.files import atomic_file, storage_errors


class RunLog:
    """A ``log.jsonl`` that grows; every entry has a ``step``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append an entry.

        Raises:
            StorageError: the file cannot be written.
        """
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """All whole lines; what a killed process left of a line is not one."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def forget_after(self, step: int) -> None:
        """Drop what was logged after ``step``: a resumed run does those steps again."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


class Window:
    """Means of named numbers over some steps."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, float], weight: float = 1.0) -> None:
        """Take one step's numbers; not every step needs to have every name."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = [total + value * weight, count + weight]

    def merge(self, sums: Mapping[str, list[float]]) -> None:
        """Take another window's :attr:`sums`."""
        for name, (total, count) in sums.items():
            mine = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = [mine[0] + total, mine[1] + count]

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items() if count}


class Stopwatch:
    """Seconds by what they were spent on; time inside an inner measurement is not the outer one's."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        outer, self._inner, started = self._inner, 0.0, time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._seconds[what] = self._seconds.get(what, 0.0) + spent - self._inner
            self._inner = outer + spent

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by what was measured, with the rest as ``other`` and ``all`` in all."""
        now = time.perf_counter()
        spent, self._seconds = self._seconds, {}
        total, self._since = now - self._since, now
        return {**spent, "other": max(total - sum(spent.values()), 0.0), "all": total}


def time_left(seconds: float) -> str:
    """A duration for people: ``50 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
