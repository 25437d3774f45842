"""Stage 3, the granularity prior: a proposal head trained on box annotations, everything else frozen.

EdgeSAM (arXiv 2312.06660) trains it on class-agnostic COCO boxes with focal and Huber loss; its configuration was
never published. What the paper leaves open follows EfficientDet (arXiv 1911.09070): focal loss with alpha 0.25 and
gamma 1.5, Huber loss from 0.1 on, fifty times, a mean over the four deltas. :mod:`distill.matching` tells which
anchors stand for which boxes. Anchors in the frame's padding are background: there is nothing there to propose, and
so the deployed graph needs no mask.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batch import Batch, Prompts, normalise
from distill.matching import IGNORED, POSITIVE, match
from distill.stages.base import Stage
from distill.stages.compare import MOST, Comparison
from edgesam_mobile.model.anchors import Anchors, all_anchors, decode, encode
from edgesam_mobile.model.prior import PriorRule, prior_boxes, select_proposals
from edgesam_mobile.model.proposals import ProposalHead, Stages
from edgesam_mobile.model.repvit import RepVitEncoder
from edgesam_mobile.model.sam import Sam

_ALPHA, _GAMMA = 0.25, 1.5
_HUBER, _BOX_WEIGHT = 0.1, 50.0


class ProposalStage(Stage):
    """Trains the proposal head on batches that carry every box of their pictures, crowds marked as such.

    The head becomes ``model.proposals``, so that whatever keeps the model keeps the head; its keys in the model's
    state begin with ``proposals.``. A checkpoint for use holds the head alone
    (:func:`~edgesam_mobile.model.proposals.write_proposals`).

    Args:
        model: with a RepViT encoder, trained; frozen here.
        head: to go on with; None for a new one.

    Raises:
        UsageError: the model's encoder is no RepViT, or its input no multiple of 128 pixels.
    """

    needs_prompts = every_box = True
    anchors: Tensor
    corners: Tensor

    def __init__(self, model: Sam, head: ProposalHead | None = None) -> None:
        super().__init__()
        self.stages = Stages(model)
        model.requires_grad_(False)
        model.add_module("proposals", head or ProposalHead(self.stages.widths))
        self.model = model
        anchors = all_anchors(model.image_size)
        self.register_buffer("anchors", torch.stack(anchors), persistent=False)  # 4 x A
        unmoved = torch.zeros(4, 1)
        self.register_buffer("corners", torch.stack(decode(unmoved.unbind(), anchors), 1), persistent=False)
        self.head.requires_grad_(True)
        self.train()

    @property
    def head(self) -> ProposalHead:
        """What is trained."""
        return cast(ProposalHead, self.model.get_submodule("proposals"))

    def train(self, mode: bool = True) -> ProposalStage:
        """Only the head ever trains: the encoder's batch norms must not drift."""
        self.training = mode
        self.model.eval()
        self.head.train(mode)
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch and its parts.

        Each picture's losses are divided by its own number of positive anchors, and the pictures then averaged:
        so a batch gives the same gradient on one process and on many.

        Returns:
            ``loss``; detached ``objectness``, ``box`` and ``positives`` (anchors a picture).
        """
        logits, deltas = self._propose(batch)
        labels, matched = self._targets(batch)
        positive = labels == POSITIVE
        share = 1.0 / positive.sum(1).clamp(min=1)
        objectness = (_focal(logits, positive) * (labels != IGNORED)).sum(1) * share
        box = torch.zeros_like(objectness)
        rows, columns = positive.nonzero(as_tuple=True)
        wanted = encode(matched, Anchors(*self.anchors[:, columns]))
        off = F.huber_loss(deltas[rows, :, columns], wanted, reduction="none", delta=_HUBER).mean(1)
        box = box.index_add(0, rows, off * share[rows]) * _BOX_WEIGHT
        loss = (objectness + box).mean()
        return {
            "loss": loss,
            "objectness": objectness.detach().mean(),
            "box": box.detach().mean(),
            "positives": positive.sum(1).float().mean(),
        }

    @torch.no_grad()
    def comparison(self, batch: Batch) -> list[Comparison]:
        """Pictures, an annotated box, and the box that the prior gives to the point in it, both filled in."""
        if not batch.prompts:
            return []
        training = self.training
        self.eval()
        logits, deltas = self._propose(batch)
        self.train(training)
        rule = PriorRule()
        shown = []
        for row in range(min(len(batch), MOST)):
            own = ((batch.prompts.image == row) & ~_crowds(batch.prompts)).nonzero().flatten()[:1]
            size = (int(batch.sizes[row, 0]), int(batch.sizes[row, 1]))
            boxes = torch.stack(decode(deltas[row].unbind(), Anchors(*self.anchors)))
            proposals = select_proposals(boxes, logits[row].sigmoid(), size, rule)
            given, _ = prior_boxes(proposals, batch.prompts.points[own], rule)
            picture = batch.frames[row, :, : size[0], : size[1]].permute(1, 2, 0).cpu().numpy()
            shown.append((picture, _filled(batch.prompts.boxes[own], size), _filled(given, size)))
        return shown

    def _propose(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits B x A and deltas B x 4 x A in single precision."""
        with torch.no_grad():
            features = self.stages.features(
                cast(RepVitEncoder, self.model.image_encoder), normalise(self.model, batch)
            )
        logits, deltas = self.head(features)
        return logits.float(), deltas.float()

    @torch.no_grad()
    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels B x A, and the box of each positive anchor, P x 4, in the order of ``nonzero``."""
        labels, matched = [], []
        prompts = batch.prompts
        for row in range(len(batch)):
            every = crowds = self.corners[:0]
            if prompts:
                own, crowd = prompts.image == row, _crowds(prompts)
                every, crowds = prompts.boxes[own & ~crowd], prompts.boxes[own & crowd]
            boxes = _at_least_a_pixel(every)
            found, index = match(self.corners, boxes, crowds)
            labels.append(found)
            matched.append(boxes[index[found == POSITIVE]])
        return torch.stack(labels), torch.cat(matched)


def _crowds(prompts: Prompts) -> Tensor:
    """Which boxes are of groups: bool P."""
    return torch.zeros_like(prompts.image, dtype=torch.bool) if prompts.crowd is None else prompts.crowd


def _focal(logits: Tensor, positive: Tensor) -> Tensor:
    """Focal loss of each anchor (arXiv 1708.02002): cross-entropy, less of what is right already."""
    target = positive.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (logits.sigmoid() - target).abs()
    weight = torch.where(positive, _ALPHA, 1 - _ALPHA)
    return weight * wrong**_GAMMA * entropy


def _at_least_a_pixel(boxes: Tensor) -> Tensor:
    """Boxes with each side 1 pixel or more, about the same centre: logarithms need sides that are not 0."""
    centre, half = 0.5 * (boxes[:, :2] + boxes[:, 2:]), 0.5 * (boxes[:, 2:] - boxes[:, :2])
    half = half.clamp(min=0.5)
    return torch.cat([centre - half, centre + half], 1)


def _filled(boxes: Tensor, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The insides of boxes as bool height x width."""
    rows, columns = (torch.arange(length, device=boxes.device) + 0.5 for length in size)
    x1, y1, x2, y2 = boxes.T[..., None]
    inside = ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None]
    filled: npt.NDArray[np.bool_] = inside.any(0).cpu().numpy()
    return filled
