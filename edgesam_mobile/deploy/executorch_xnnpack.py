"""ExecuTorch with XNNPACK: ``.pte`` for the CPUs of Android phones, runs on this machine too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import propagate_annotation
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.executorch_program import lower
from edgesam_mobile.deploy.layers import within
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.report import ExportReport

_ATEN = torch.ops.aten
_RESHAPING = (_ATEN.permute.default, _ATEN.transpose.int, _ATEN.view.default, _ATEN.reshape.default)
_INTEGER = (_ATEN.conv2d.default, _ATEN.linear.default)


def export(graph: Graph, targets: Mapping[Path, Plan], samples: Sequence[Sample]) -> dict[Path, ExportReport]:
    """Lower; what is compressed is marked in PyTorch's graph first (PT2E).

    ``int8`` computes convolutions and linear layers in integers, by ranges measured on ``samples``; ``int8-dynamic``
    computes linear layers in integers, scaled at each call. What a plan leaves out is stored and computed in single
    precision.
    """
    return {path: _lower(graph, plan, samples, path) for path, plan in targets.items()}


def _lower(graph: Graph, plan: Plan, samples: Sequence[Sample], path: Path) -> ExportReport:
    program = torch.export.export(graph.module, graph.examples(), strict=False)
    if plan.precision == "fp32":
        return lower(program, [XnnpackPartitioner()], path)
    marked = prepare_pt2e(program.module(), _quantizer(plan))
    with torch.inference_mode():
        # Weights are measured in a run as well, so that one is needed even where activations are not.
        for inputs in [tuple(s.values()) for s in samples] if plan.calibrated else [graph.examples()]:
            marked(*inputs)
        small = convert_pt2e(marked)
    partitioners: list[Any] = [XnnpackPartitioner()]
    if plan.precision == "int8-dynamic":
        partitioners.insert(0, XnnpackDynamicallyQuantizedPartitioner())
    return lower(torch.export.export(small, graph.examples(), strict=False), partitioners, path)


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
    quantizer.set_filter_function(lambda node: not any(within(name, plan.float_layers) for name in _scopes(node)))
    return quantizer


def _scopes(node: torch.fx.Node) -> list[str]:
    """Names of the modules that a node comes from, outermost first."""
    return [str(name) for name, _ in node.meta.get("nn_module_stack", {}).values()]
