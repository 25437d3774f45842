"""A package whose graphs PyTorch runs as they are before export: real arithmetic, in a moment, in no format.

For what asks about prompts, rows and answers, not about converters; its artefact is called ``onnx-fp32``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bare_manifest import bare_manifest

from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.proposals import proposals_graph
from edgesam_mobile.deploy.worker import describe
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.proposals import ProposalHead, Stages
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.manifest import GraphRecord, record_file, write_manifest
from edgesam_mobile.runtime import predictor
from edgesam_mobile.runtime.session import Array

SIDE, SLOTS = 256, 4
Arrays = dict[str, Array]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Unexported:
    """The package, the weights it is of, and its graphs by the names of their files."""

    package: Path
    weights: Path
    graphs: dict[str, Graph]

    def opened(
        self, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, Run, Arrays], Arrays] | None = None
    ) -> None:
        """Let PyTorch run its graphs; ``change`` answers instead, given a graph's name, the graph and its inputs."""

        def open_session(path: Path, record: GraphRecord, name: str, options: Any) -> _Session:
            return _Session(self.graphs[path.stem], change or (lambda _, run, inputs: run(inputs)))

        monkeypatch.setattr(predictor, "open_session", open_session)


@dataclass(frozen=True)
class _Session:
    graph: Graph
    change: Callable[[str, Run, Arrays], Arrays]

    def run(self, inputs: Arrays) -> Arrays:
        return self.change(self.graph.name, self._run, inputs)

    @torch.no_grad()
    def _run(self, inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.array(inputs[port.name])) for port in self.graph.inputs]
        return {
            port.name: value.numpy()
            for port, value in zip(self.graph.outputs, self.graph.module(*tensors), strict=True)
        }


def unexported(folder: Path, *, prompts: int, mask_input: bool) -> Unexported:
    """A tiny EdgeSAM with untrained weights and an untrained proposal head, at 256 pixels."""
    weights = write_standin("edge-sam-tiny", folder / "tiny.safetensors", image_size=SIDE)
    model = load_model(weights, upsample="bilinear", image_size=SIDE)
    head = ProposalHead(Stages(model).widths).eval()
    graphs = {
        "encoder": encoder_graph(model),
        "decoder": decoder_graph(model, slots=SLOTS, prompts=prompts, mask_input=mask_input),
        "proposals": proposals_graph(model, head),
    }
    package = folder / "package"
    package.mkdir()
    records = {}
    for name, graph in graphs.items():
        (package / f"{name}.onnx").write_text(f"{name}: never read")
        file = record_file(package, package / f"{name}.onnx").model_dump()
        records[name] = {"file": file, "op_types": {}, **describe(graph, {})}
    artifact = {"id": "onnx-fp32", "format": "onnx", "precision": "fp32", "targets": ["host"], **records}
    manifest = bare_manifest(
        sha256_of(weights),
        architecture="edge-sam-tiny",
        picture={"size": SIDE, "pad_rgb": [123.675, 116.28, 103.53]},
        prompt={"slots": SLOTS, "prompts_per_call": prompts, "mask_input": mask_input},
        mask={"low_resolution": SIDE // 4, "score": "stability", "point_masks": 4},
        artifacts=[artifact],
    )
    write_manifest(package, manifest)
    return Unexported(package, weights, graphs)
