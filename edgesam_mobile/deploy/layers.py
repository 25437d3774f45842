"""Naming the parts of a graph that a plan can leave in floating point, the same way for every format."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from edgesam_mobile.deploy.ports import Graph

_COMPUTING = (nn.Conv2d, nn.Linear)


def layer_names(graph: Graph) -> list[str]:
    """Convolutions and linear layers of a graph, by their names in its module, in order of definition."""
    return [name for name, module in graph.module.named_modules() if isinstance(module, _COMPUTING)]


def within(layer: str, groups: Iterable[str]) -> bool:
    """Whether a layer is one of ``groups`` or a part of one: a group is a prefix of whole names."""
    return any(layer == group or layer.startswith(f"{group}.") for group in groups)


def scope_pattern(module: nn.Module, name: str) -> str:
    """Regular expression for a layer or group in scopes such as ``EncoderModule/RepVitEncoder_encoder/Conv2d_0;``.

    Lists of modules are not called, so they have no scope of their own.
    """
    parts, here = [], module
    for part in name.split("."):
        here = here.get_submodule(part)
        if not isinstance(here, nn.ModuleList):
            parts.append(rf"[^/;]*_{re.escape(part)}")
    return "/" + "/".join(parts) + "[/;]"
