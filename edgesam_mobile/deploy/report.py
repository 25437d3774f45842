"""What an exporter tells about a file it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgesam_mobile.deploy.ports import Graph


@dataclass(frozen=True)
class ExportReport:
    """The structure of one exported file.

    Attributes:
        op_types: how often each operation type occurs, under the format's own names.
        dtypes: types of inputs and outputs that the format or precision changed, by port name.
    """

    op_types: dict[str, int]
    dtypes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Exporter(Protocol):
    """What each exporter module offers."""

    def export(self, graph: Graph, targets: Mapping[str, Path]) -> dict[str, ExportReport]:
        """Write ``graph`` once for each precision in ``targets`` and report on each file."""
        ...
