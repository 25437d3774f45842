"""How a graph's numbers are stored and computed, as data; and which layers a plan leaves in floating point."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Precision:
    """One way to store and compute numbers; what exactly a format does is its exporter's to say.

    Attributes:
        weights, activations: types, as manifest and model card show them.
        calibrated: whether activations' ranges are measured on real pictures and prompts first.
    """

    name: str
    weights: str
    activations: str
    calibrated: bool = False


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", "float32", "float32"),
        Precision("fp16", "float16", "float16"),
        Precision("int8", "int8, a scale a channel", "int8, calibrated", calibrated=True),
        Precision("int16x8", "int8, a scale a channel", "int16, calibrated", calibrated=True),
        Precision("int8-dynamic", "int8, a scale a channel", "int8, measured at each call"),
        Precision("int8-weights", "int8, a scale a channel", "float"),
        Precision("palette8", "one of 256 values a tensor", "float"),
        Precision("palette6", "one of 64 values a tensor", "float"),
        Precision("palette6-grouped", "one of 64 values a group of channels", "float"),
        Precision("palette6-fitted", "one of 64 values a tensor, fitted to inputs", "float", calibrated=True),
        Precision("palette4", "one of 16 values a tensor", "float"),
        Precision("palette4-grouped", "one of 16 values a group of channels", "float"),
        Precision(
            "palette4-fitted", "likewise (decoder's attention: 64), fitted to inputs", "float", calibrated=True
        ),
    )
}
RECOMMENDED = "recommended"  # asks each format for what was measured to suit its encoder and its decoder


@dataclass(frozen=True)
class Plan:
    """How one graph is compressed.

    Attributes:
        precision: a key of :data:`PRECISIONS`.
        left_out: layers (:func:`layer_names`) that stay as they are in the format's plain form, or take ``instead``.
        instead: precision of the layers that are left out; empty for floating point.
        reason: why this and not something smaller or faster, where there is something to say.
        architecture: of the weights that it was found for; empty where it is for any.
    """

    precision: str
    left_out: tuple[str, ...] = ()
    reason: str = ""
    instead: str = ""
    architecture: str = ""

    @property
    def small(self) -> bool:
        """Whether weights are stored in fewer than 16 bits."""
        return self.precision not in ("fp32", "fp16")

    @property
    def calibrated(self) -> bool:
        return PRECISIONS[self.precision].calibrated

    @property
    def key(self) -> str:
        """Short name of what it does to the bytes, fit for a folder."""
        if not self.left_out:
            return self.precision
        digest = hashlib.sha256(json.dumps([sorted(self.left_out), self.instead]).encode()).hexdigest()
        return f"{self.precision}-{digest[:12]}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        said = {name: data.get(name, "") for name in ("reason", "instead", "architecture")}
        return cls(data["precision"], tuple(data.get("left_out", ())), **said)
