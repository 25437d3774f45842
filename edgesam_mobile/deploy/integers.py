"""Marking what a graph computes in integers in PyTorch's own graph (PT2E), for the formats that read such marks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import propagate_annotation
from torch import nn
from torch.export import ExportedProgram
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.layers import within
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan

_ATEN = torch.ops.aten
_RESHAPING = (_ATEN.permute.default, _ATEN.transpose.int, _ATEN.view.default, _ATEN.reshape.default)
_INTEGER = (_ATEN.conv2d.default, _ATEN.linear.default)


def marked_program(graph: Graph, plan: Plan, samples: Sequence[Sample]) -> ExportedProgram:
    """The graph's program with the integers of a plan: weights a scale a channel, activations a scale a tensor.

    ``int8`` marks convolutions and linear layers, with ranges measured on ``samples``; ``int8-dynamic`` marks linear
    layers, whose input is scaled at each call. What a plan leaves out stays as it is.
    """
    program = torch.export.export(graph.module, graph.examples(), strict=False)
    marked = prepare_pt2e(program.module(), _quantizer(plan))
    with torch.inference_mode():
        # Weights are measured in a run as well, so that one is needed even where activations are not.
        for inputs in [tuple(s.values()) for s in samples] if plan.calibrated else [graph.examples()]:
            marked(*inputs)
        small = convert_pt2e(marked)
    return torch.export.export(small, graph.examples(), strict=False)


class _Quantizer(XNNPACKQuantizer):  # type: ignore[misc]
    """Carries integers on through ReLU and means, but not through reshaping.

    A window of attention is padded after it is reshaped, and XNNPACK refuses a program that pads integers.
    """

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        marked: torch.fx.GraphModule = self._annotate_for_quantization_config(model)
        for node in marked.graph.nodes:
            if node.target in _RESHAPING:
                node.meta.setdefault(Q_ANNOTATION_KEY, QuantizationAnnotation(_annotated=True))
        propagate_annotation(marked)
        return marked


def _quantizer(plan: Plan) -> XNNPACKQuantizer:
    quantizer = _Quantizer()
    if plan.precision == "int8-dynamic":
        # Of everything, it would take products of two computed matrices too, which the backend then cannot cut out.
        quantizer.set_module_type(nn.Linear, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    else:
        # Not additions and multiplications, which this quantiser offers too: no faster here, and the embedding's
        # cosine falls from 0.977 to 0.962.
        for operation in _INTEGER:
            quantizer.set_operator_type(operation, get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(lambda node: not any(within(name, plan.left_out) for name in _scopes(node)))
    return quantizer


def _scopes(node: torch.fx.Node) -> list[str]:
    """Names of the modules that a node comes from, outermost first."""
    return [str(name) for name, _ in node.meta.get("nn_module_stack", {}).values()]
