"""The third graph, for applications that want the granularity prior: the encoder and the proposal head in one.

It takes the encoder graph's picture and gives the same embedding, and with it a box and a confidence for every
anchor. An application loads it *instead of* the encoder graph; the decoder graph stays as it is.

Why one graph: the head works on features of three of the encoder's stages, at 1024 pixels 2.8 million numbers, near
three times the embedding. As outputs of one graph and inputs of another they would leave the accelerator and come
back, and an encoder that gives them would cost those who want no prior. The price is the encoder's weights twice in
a package with both.

What is left outside, since phone accelerators reject top-k, sorting and gathering: keeping confident boxes and
merging those nearest to the point (:mod:`edgesam_mobile.model.prior`); on a processor it takes about a millisecond.
Inside, anchors are decoded by slices and broadcasts with a few hundred constants; the boxes come in pixels of the
frame, as four rows, so that no map is transposed.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgesam_mobile.deploy.encoder import EncoderModule, encoder_graph
from edgesam_mobile.deploy.ports import Graph, Port
from edgesam_mobile.model.anchors import KINDS, STRIDES, Anchors, decode, level_anchors
from edgesam_mobile.model.layers import fuse_convolutions
from edgesam_mobile.model.proposals import ProposalHead, Stages
from edgesam_mobile.model.repvit import RepVitEncoder
from edgesam_mobile.model.sam import Sam


class LevelBoxes(nn.Module):
    """Decodes one level's deltas, 1 x 36 x H x W, to boxes 1 x 4 x 9HW."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor

    def __init__(self, side: int, stride: int) -> None:
        super().__init__()
        for name, values in level_anchors(side, stride)._asdict().items():
            self.register_buffer(name, values)

    def forward(self, deltas: Tensor) -> Tensor:
        # Slices, since XNNPACK leaves a split to ExecuTorch's portable kernels.
        each = [deltas[:, start : start + KINDS] for start in range(0, 4 * KINDS, KINDS)]
        corners = decode(each, Anchors(self.x, self.y, self.width, self.height))
        return torch.cat(corners, 1).reshape(1, 4, -1)


class ProposalsModule(nn.Module):
    """Colours 0..255 to the embedding, confidences 1 x A and boxes 1 x 4 x A.

    It has the encoder's modules rather than the encoder, which is never called as a whole: layers that a plan leaves
    out are found by the names of modules that are called.
    """

    mean: Tensor

    def __init__(self, whole: EncoderModule, head: ProposalHead, stages: Stages, side: int) -> None:
        super().__init__()
        encoder: RepVitEncoder = whole.encoder
        self.features, self.neck = encoder.features, encoder.neck
        self.fuse_stage2, self.fuse_stage3 = encoder.fuse_stage2, encoder.fuse_stage3
        self.register_buffer("mean", whole.mean)
        self.channels_last, self.stages = whole.channels_last, stages
        self.head = cast(ProposalHead, fuse_convolutions(head))
        self.levels = nn.ModuleList(LevelBoxes(side, stride) for stride in STRIDES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = image.to(torch.float32)
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        features = self.stages.features(self, x - self.mean)
        embedding = self.stages.embedding(self, features)
        logits, deltas = self.head.maps(features)
        scores = torch.cat([level.reshape(1, -1) for level in logits], 1).sigmoid()
        boxes = torch.cat([decode(level) for decode, level in zip(self.levels, deltas, strict=True)], 2)
        return embedding.permute(0, 2, 3, 1) if self.channels_last else embedding, scores, boxes


def proposals_graph(
    model: Sam, head: ProposalHead, *, channels_last: bool = False, image_dtype: str = "float32"
) -> Graph:
    """Encoder and proposal head as a graph to export.

    Args:
        head: trained on the encoder of ``model``.
        channels_last, image_dtype: as for :func:`~edgesam_mobile.deploy.encoder.encoder_graph`.

    Raises:
        UsageError: the model has no RepViT encoder.
    """
    stages, side = Stages(model), model.image_size
    alone = encoder_graph(model, channels_last=channels_last, image_dtype=image_dtype)
    module = ProposalsModule(cast(EncoderModule, alone.module), head, stages, side).eval().requires_grad_(False)
    count = sum(KINDS * (side // stride) ** 2 for stride in STRIDES)
    outputs = (
        *alone.outputs,
        Port("proposal_scores", (1, count), "float32", "BA", "confidence of each proposal, 0..1"),
        Port(
            "proposal_boxes", (1, 4, count), "float32", "BXA",
            "rows x1, y1, x2, y2 in pixels of the padded input; may reach beyond the picture",
        ),
    )  # fmt: skip
    return Graph("proposals", module, alone.inputs, outputs)
