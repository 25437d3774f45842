"""A graph ready to be exported: the module, and a description of each of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Inputs that stay in single precision: half precision places a point up to a quarter of a pixel off.
SINGLE = ("point_coords", "point_labels")
_DTYPES = {"float32": torch.float32, "uint8": torch.uint8}


@dataclass(frozen=True)
class Port:
    """One input or output of a graph.

    Attributes:
        name: as callers of the artefact see it.
        layout: what each axis is, such as ``NCHW`` or ``BNX`` (batch, slot, x/y).
        meaning: one line with units and range.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    meaning: str

    def example(self, generator: torch.Generator) -> Tensor:
        """A tensor of this shape and type to trace with; values do not matter beyond being valid."""
        if self.dtype == "uint8":
            return torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=generator)
        return torch.rand(self.shape, dtype=_DTYPES[self.dtype], generator=generator)


@dataclass(frozen=True)
class Graph:
    """A static, inference-only module with named inputs and outputs, shared by all exporters.

    Attributes:
        name: ``"encoder"`` or ``"decoder"``.
        module: takes tensors in the order of ``inputs``, returns a tuple in the order of ``outputs``.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def examples(self) -> tuple[Tensor, ...]:
        """One valid set of inputs, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        return tuple(port.example(generator) for port in self.inputs)

    def parameter_count(self) -> int:
        """Numbers stored in the graph: parameters and constant buffers."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(t.numel() for t in tensors)
