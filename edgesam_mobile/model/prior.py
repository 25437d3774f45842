"""The granularity prior at work: a box for a point, from the proposals around it (EdgeSAM, arXiv 2312.06660)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.anchors import Anchors, all_anchors, decode, non_maximum_suppression
from edgesam_mobile.model.predictor import SamPredictor, Score
from edgesam_mobile.model.proposals import ProposalHead, Stages
from edgesam_mobile.model.repvit import RepVitEncoder
from edgesam_mobile.model.sam import Sam


@dataclass(frozen=True)
class PriorRule:
    """How proposals become the box of a point.

    Attributes:
        merge: ``"paper"``: the boxes of the ``neighbours`` proposals whose centres are nearest to the point, averaged
            with their confidences as weights; where nothing near is confident, that box may be of something else and
            not even contain the point. ``"published"``: what the published evaluation does instead: of the
            nearest proposals that contain the point, the most confident one as it is.
        neighbours: K; the published evaluation has 5.
        confidence: proposals below it do not count, and a point without any gets no box; published, 0.1.
        limit: proposals of a picture that are kept, the most confident first.
        overlap: of proposals that overlap by more than this (IoU) the most confident stays. None keeps all, as the
            published evaluation does: then the nearest neighbours are mostly views of one object, and merging
            them is a vote; with suppression, it mixes objects.
    """

    merge: Literal["paper", "published"] = "paper"
    neighbours: int = 5
    confidence: float = 0.1
    limit: int = 1000
    overlap: float | None = None


@dataclass(frozen=True)
class Proposals:
    """Boxes N x 4 in pixels of the input frame and confidences N in [0, 1], the most confident first."""

    boxes: Tensor
    scores: Tensor


def select_proposals(boxes: Tensor, scores: Tensor, size: tuple[int, int], rule: PriorRule) -> Proposals:
    """The proposals of one picture that count.

    Args:
        boxes: 4 x A, x1, y1, x2, y2 in pixels of the input frame.
        scores: A confidences; of equal ones the earlier anchor comes first.
        size: (height, width) of the picture in the frame; boxes end there, and those beside it are dropped.
    """
    best = torch.sort(scores, descending=True, stable=True).indices[: rule.limit]
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    cut, confidence = torch.minimum(boxes[:, best].T.clamp(min=0), limits), scores[best]
    counts = (confidence >= rule.confidence) & (cut[:, 2:] > cut[:, :2]).all(1)
    found = Proposals(cut[counts], confidence[counts])
    if rule.overlap is None:
        return found
    kept = non_maximum_suppression(found.boxes, rule.overlap)
    return Proposals(found.boxes[kept], found.scores[kept])


def prior_boxes(proposals: Proposals, points: Tensor, rule: PriorRule) -> tuple[Tensor, Tensor]:
    """The box that the prior gives to each of P points.

    Args:
        points: P x 2, (x, y) in pixels of the input frame.

    Returns:
        Boxes P x 4, and bool P: False where there is no box (its row holds zeros).
    """
    boxes, scores = proposals.boxes, proposals.scores
    inside = (points[:, None] >= boxes[:, :2]) & (points[:, None] <= boxes[:, 2:])
    distance = (points[:, None] - 0.5 * (boxes[:, :2] + boxes[:, 2:])).square().sum(-1)
    if rule.merge == "published":
        distance = torch.where(inside.all(-1), distance, torch.inf)
    # Sorted stably rather than by topk: of equally near ones the more confident comes first, on every machine.
    nearest = torch.sort(distance, dim=1, stable=True)
    chosen = nearest.indices[:, : rule.neighbours]
    weights = scores[chosen] * nearest.values[:, : rule.neighbours].isfinite()
    if rule.merge == "published" and len(scores):
        weights = weights * (torch.arange(chosen.shape[1], device=weights.device) == weights.argmax(1, keepdim=True))
    total = weights.sum(1)
    merged = (boxes[chosen] * weights[..., None]).sum(1) / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]
    return merged, total > 0


class PriorPredictor(SamPredictor):
    """A :class:`SamPredictor` that can give a single point the box of the object it is on.

    The proposals come out of the same run of the encoder as the embedding.

    Args:
        model: with a RepViT encoder.
        head: trained on that encoder, from :func:`~edgesam_mobile.model.proposals.read_proposals`.
        rule: how proposals become a box.
        score: as for :class:`SamPredictor`.

    Raises:
        UsageError: the model has no RepViT encoder.
    """

    def __init__(
        self, model: Sam, head: ProposalHead, *, rule: PriorRule | None = None, score: Score | None = None
    ) -> None:
        super().__init__(model, score=score)
        self.head, self.rule = head.eval(), rule or PriorRule()
        self._stages = Stages(model)
        self._anchors = Anchors(*(t.to(model.device) for t in all_anchors(model.image_size)))

    def reset_image(self) -> None:
        """Forget the current picture and its proposals."""
        super().reset_image()
        self.proposals: Proposals | None = None

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Embed a picture and find its proposals: H x W x 3, uint8, RGB.

        Raises:
            UsageError: another shape or dtype.
        """
        encoder = self.model.image_encoder
        assert isinstance(encoder, RepVitEncoder)
        features: list[Tensor] = []
        hooks = [
            encoder.features[end - 1].register_forward_hook(lambda _, __, output: features.append(output))
            for end in self._stages.ends
        ]
        try:
            super().set_image(image)
        finally:
            for hook in hooks:
                hook.remove()
        assert self.input_size is not None
        logits, deltas = self.head(features)
        boxes = torch.stack(decode(deltas[0].unbind(), self._anchors))
        self.proposals = select_proposals(boxes, logits[0].sigmoid(), self.input_size, self.rule)

    @torch.inference_mode()
    def prior_boxes(self, points: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Boxes for N points, each taken alone.

        Args:
            points: N x 2, (x, y) in pixels of the picture.

        Returns:
            Boxes N x 4 in pixels of the picture, and whether there is one, N.

        Raises:
            UsageError: no picture is set, or a point is outside it.
        """
        if self.proposals is None or self.original_size is None:
            raise UsageError("no picture is set", hint="call set_image first")
        height, width = self.original_size
        coords, _ = self.transform.check_points(points, np.ones(len(np.asarray(points))), self.original_size)
        inside = torch.from_numpy(self.transform.apply_coords(coords, self.original_size)).float()
        boxes, found = prior_boxes(self.proposals, inside.to(self.model.device), self.rule)
        corners = self.transform.invert_coords(boxes.cpu().numpy().reshape(-1, 2, 2), self.original_size)
        within = np.clip(corners, 0, (width, height))  # rounding may put an edge a little outside
        return within.reshape(-1, 4).astype(np.float32), found.cpu().numpy()

    def predict_object(
        self, point: ArrayLike, *, num_multimask_outputs: int = 1, return_logits: bool = False
    ) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
        """Predict the object at one foreground point, prompting with the prior's box as well where there is one.

        Args:
            point: (x, y) in pixels of the picture.
            num_multimask_outputs: as for :meth:`predict`; token 0 alone is what answers a box.

        Returns:
            As :meth:`predict`.

        Raises:
            UsageError: no picture is set, or the point is outside it.
        """
        coords = np.reshape(np.asarray(point), (1, -1))
        boxes, found = self.prior_boxes(coords)
        return self.predict(
            coords,
            [1],
            box=boxes[0] if found[0] else None,
            num_multimask_outputs=num_multimask_outputs,
            return_logits=return_logits,
        )
