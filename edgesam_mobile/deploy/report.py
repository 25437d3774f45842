"""What an exporter tells about a file it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan


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

    def export(
        self, graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]
    ) -> dict[Path, ExportReport]:
        """Write ``graph`` to each path of ``targets`` as its plan says and report on each file.

        Args:
            samples: inputs of ``graph`` to calibrate with, by name; empty where no plan is calibrated.
        """
        ...
