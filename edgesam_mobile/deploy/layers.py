"""Naming the parts of a graph that a plan can leave in floating point, the same way for every format."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.errors import UsageError

_COMPUTING = (nn.Conv2d, nn.Linear)


def layer_names(graph: Graph) -> list[str]:
    """Convolutions and linear layers of a graph, by their names in its module, in order of definition."""
    return [name for name, module in graph.module.named_modules() if isinstance(module, _COMPUTING)]


def within(layer: str, groups: Iterable[str]) -> bool:
    """Whether a layer is one of ``groups`` or a part of one: a group is a prefix of whole names."""
    return any(layer == group or layer.startswith(f"{group}.") for group in groups)


def refuse_strange(graph: Graph, groups: Iterable[str]) -> None:
    """Refuse to leave out what is not there: a plan for other weights would be ignored without a word.

    Raises:
        UsageError: the graph has no layer in one of ``groups``.
    """
    names = layer_names(graph)
    if strange := [group for group in groups if not any(within(name, [group]) for name in names)]:
        raise UsageError(
            f"the {graph.name} has no layer {strange[0]!r} to leave out",
            hint="make a plan for these weights with `edgesam-mobile quantize`",
        )


def scope_pattern(module: nn.Module, name: str) -> str:
    """Regular expression for a layer or group in scopes such as ``EncoderModule/RepVitEncoder_encoder/Conv2d_0;``.

    It begins with the graph's own module, since a number says nothing without all that is around it. Lists of modules
    are not called, so they have no scope of their own.
    """
    parts, here = [], module
    for part in name.split("."):
        here = here.get_submodule(part)
        if not isinstance(here, nn.ModuleList):
            parts.append(rf"[^/;]*_{re.escape(part)}")
    return "(^|;)[^/;]*/" + "/".join(parts) + "[/;]"
