"""What a run could not use, counted and named."""

from __future__ import annotations

from dataclasses import dataclass, field

from distill.data.batch import Batch

_NAMED = 100
_TOLD = 3


@dataclass
class CorruptReport:
    """Gathers :attr:`Batch.corrupt` over a run. Plain values throughout, so that a checkpoint can hold it.

    Attributes:
        used: pictures that were trained on, each as often as it was.
        corrupt: pictures that could not be, each as often as it came.
        reasons: by name, of the first 100 different ones.
    """

    used: int = 0
    corrupt: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Batch) -> list[tuple[str, str]]:
        """Count a batch; gives the names and reasons in it that are told for the first time."""
        self.used += len(batch)
        self.corrupt += len(batch.corrupt)
        fresh = []
        for name, reason in batch.corrupt:
            if name not in self.reasons and len(self.reasons) < _NAMED:
                self.reasons[name] = reason
                fresh.append((name, reason))
        return fresh

    def __str__(self) -> str:
        """One line."""
        if not self.corrupt:
            return f"{self.used:,} pictures used, none was corrupt"
        told = ", ".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:_TOLD])
        more = len(self.reasons) - _TOLD
        if more > 0:
            told += f" and {'at least ' if len(self.reasons) == _NAMED else ''}{more} more"
        return f"{self.corrupt:,} of {self.used + self.corrupt:,} pictures could not be used: {told}"
