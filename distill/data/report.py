"""What a run could not use, counted and named."""

from __future__ import annotations

from collections.abc import Iterable
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
        empty: objects that were passed over because nothing is in them, each as often as it was.
        reasons: by name, of the first 100 different ones of each process.
    """

    used: int = 0
    corrupt: int = 0
    empty: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.used += len(batch)
        self.corrupt += len(batch.corrupt)
        self.empty += batch.empty
        for name, reason in batch.corrupt:
            if name not in self.reasons and len(self.reasons) < _NAMED:
                self.reasons[name] = reason

    @classmethod
    def of_all(cls, reports: Iterable[CorruptReport]) -> CorruptReport:
        """What several processes could not use."""
        every = cls()
        for report in reports:
            every.used += report.used
            every.corrupt += report.corrupt
            every.empty += report.empty
            every.reasons |= report.reasons
        return every

    def __str__(self) -> str:
        """One line."""
        empty = f"; {self.empty:,} empty objects were left out" if self.empty else ""
        if not self.corrupt:
            return f"{self.used:,} pictures used, none was corrupt{empty}"
        told = ", ".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:_TOLD])
        more = len(self.reasons) - _TOLD
        if more > 0:
            told += f" and {'at least ' if len(self.reasons) >= _NAMED else ''}{more} more"
        return f"{self.corrupt:,} of {self.used + self.corrupt:,} pictures could not be used: {told}{empty}"
