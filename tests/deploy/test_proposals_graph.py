"""The graph of encoder and proposal head: it is the encoder's, the head's, and of operations that phones have."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from op_types_snapshot import rejected
from torch import Tensor, nn

from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.proposals import proposals_graph
from edgesam_mobile.deploy.worker import describe
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.anchors import all_anchors, decode
from edgesam_mobile.model.proposals import ProposalHead, Stages
from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.package.manifest import FileRecord, GraphRecord
from edgesam_mobile.runtime.session import SessionOptions, open_session

SIDE = 256
OUTPUTS = ("image_embeddings", "proposal_scores", "proposal_boxes")


@pytest.fixture(scope="module")
def tiny() -> Sam:
    """A tiny EdgeSAM with untrained weights at 256 pixels, up-sampling as exports do; no test changes it."""
    return untrained_model("edge-sam-tiny", upsample="bilinear", image_size=SIDE)


@pytest.fixture(scope="module")
def head(tiny: Sam) -> ProposalHead:
    """An untrained head whose confidences and boxes vary."""
    torch.manual_seed(0)
    stages = Stages(tiny)
    head = ProposalHead(stages.widths)
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = None  # statistics become those of the picture
    with torch.no_grad():
        head(stages.features(tiny.image_encoder, tiny.preprocess(picture())))  # type: ignore[arg-type]
    for tower, spread in ((head.objectness, 0.3), (head.box, 0.03)):
        nn.init.normal_(tower.answer[1].weight, std=spread)  # type: ignore[arg-type]
    return head.eval()


def picture() -> Tensor:
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255


@torch.no_grad()
def expected(model: Sam, head: ProposalHead) -> dict[str, Tensor]:
    """What PyTorch says, unfused."""
    x = model.preprocess(picture())
    logits, deltas = head(Stages(model).features(model.image_encoder, x))  # type: ignore[arg-type]
    boxes = torch.stack(decode(deltas.unbind(1), all_anchors(SIDE)), 1)
    return dict(zip(OUTPUTS, (model.image_encoder(x), logits.sigmoid(), boxes), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_graph_gives_the_embedding_and_the_proposals(tiny: Sam, head: ProposalHead, channels_last: bool) -> None:
    graph = proposals_graph(tiny, head, channels_last=channels_last)
    assert graph.inputs == encoder_graph(tiny, channels_last=channels_last).inputs
    x = picture().permute(0, 2, 3, 1) if channels_last else picture()
    answers = dict(zip((port.name for port in graph.outputs), graph.module(x), strict=True))
    assert {name: tuple(value.shape) for name, value in answers.items()} == {p.name: p.shape for p in graph.outputs}
    if channels_last:
        answers["image_embeddings"] = answers["image_embeddings"].permute(0, 3, 1, 2)
    for name, value in expected(tiny, head).items():
        torch.testing.assert_close(answers[name], value, atol=2e-3 if name == "proposal_boxes" else 1e-4, rtol=1e-4)
        assert value.std() > 0.01


def test_the_graph_adds_little_to_the_encoder(tiny: Sam, head: ProposalHead) -> None:
    """The shared towers' 1x1 convolutions are stored once a level; there is no constant as large as a map."""
    added = proposals_graph(tiny, head).parameter_count() - encoder_graph(tiny).parameter_count()
    assert added < 290_000


def test_other_encoders_are_refused() -> None:
    with torch.device("meta"):
        model = build_model("mobile-sam")
        with pytest.raises(UsageError, match="no stages"):
            proposals_graph(model, ProposalHead((96, 192, 384)))


def exported(graph: Graph, name: str, folder: Path) -> tuple[GraphRecord, Path]:
    form = FORMATS[name]
    path = folder / f"proposals{form.suffix}"
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    report = exporter.export(graph, {path: Plan("fp32")}, [])[path]
    record = FileRecord(path=path.name, sha256="0" * 64, bytes=path.stat().st_size if path.is_file() else 1)
    return GraphRecord(file=record, op_types=report.op_types, **describe(graph, report.dtypes)), path


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning"
)  # coremltools leaves that to the collector
@pytest.mark.parametrize("name", ["onnx", "tflite", "coreml"])
def test_an_exported_graph_answers_as_pytorch_does(tiny: Sam, head: ProposalHead, name: str, tmp_path: Path) -> None:
    graph = proposals_graph(tiny, head, channels_last=FORMATS[name].channels_last)
    record, path = exported(graph, name, tmp_path)
    assert [kind for kind in record.op_types if rejected(kind)] == []
    x = picture().permute(0, 2, 3, 1) if FORMATS[name].channels_last else picture()
    answers = open_session(path, record, name, SessionOptions(threads=1)).run({"image": x.contiguous().numpy()})
    if FORMATS[name].channels_last:
        answers["image_embeddings"] = answers["image_embeddings"].transpose(0, 3, 1, 2)
    for output, value in expected(tiny, head).items():
        atol = 5e-3 if output == "proposal_boxes" else 2e-4
        np.testing.assert_allclose(answers[output], value.numpy(), atol=atol, rtol=1e-4)
    gc.collect()
