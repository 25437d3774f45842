"""A graph that stores and computes in half precision, for the exporters whose tools cannot convert one themselves."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgesam_mobile.deploy.ports import SINGLE, Graph


def half_graph(graph: Graph) -> Graph:
    """A copy whose inputs and outputs stay as they are; prompts become tokens in single precision.

    So are layer norms: those of ExecuTorch 1.5.1 answer half-precision inputs with nonsense.
    """
    module = copy.deepcopy(graph.module).half()
    single = [name for name, part in module.named_modules() if name == "slots" or isinstance(part, nn.LayerNorm)]
    for name in single:
        module.set_submodule(name, _Single(graph.module.get_submodule(name)))
    return replace(graph, module=_Half(module, [port.name not in SINGLE for port in graph.inputs]))


class _Single(nn.Module):
    """Computes in single precision and answers in half."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = self.inner(*(x.float() for x in inputs))
        return tuple(part.half() for part in answer) if isinstance(answer, tuple) else answer.half()


class _Half(nn.Module):
    """Converts at both ends; ``converted`` says which inputs."""

    def __init__(self, inner: nn.Module, converted: list[bool]) -> None:
        super().__init__()
        self.inner, self.converted = inner, converted

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = [x.half() if half else x for x, half in zip(inputs, self.converted, strict=True)]
        return tuple(output.to(torch.float32) for output in self.inner(*given))
