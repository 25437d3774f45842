"""One decoder pass over a flat list of prompts on several pictures, the same for teacher and student."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.data.batch import Prompts
from distill.sampling import NOTHING_WRONG
from edgesam_mobile.model.sam import Sam


@dataclass(frozen=True)
class Prompted:
    """What teacher and student are asked in one pass; see :func:`decode` for the tensors.

    Attributes:
        boxes: None where points ask; a box means one object and so one mask, a point leaves all four open.
        masked: which prompts get a mask as well, if any.
    """

    image: Tensor
    points: Tensor
    labels: Tensor
    boxes: Tensor | None
    masked: Tensor | None = None

    @staticmethod
    def first(prompts: Prompts) -> Prompted:
        """The first pass: a box, or a point on the object."""
        one = prompts.points[:, None]
        if prompts.kind == "box":
            return Prompted(prompts.image, one[:, :0], one[:, :0, 0], prompts.boxes)
        return Prompted(prompts.image, one, torch.ones_like(one[..., 0]), None)

    def then(self, points: Tensor, labels: Tensor, masked: Tensor | None) -> Prompted:
        """The next pass: points P x 1 x 2 with labels P x 1 join the earlier ones, and the box stays."""
        points, labels = torch.cat([self.points, points], 1), torch.cat([self.labels, labels], 1)
        return replace(self, points=points, labels=labels, masked=masked)

    def decode(self, model: Sam, embeddings: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :func:`decode`, with one mask for a box and four for points."""
        return decode(
            model,
            embeddings,
            self.image,
            points=self.points,
            labels=self.labels,
            boxes=self.boxes,
            masks=masks,
            masked=self.masked,
            num_masks=1 if self.boxes is not None else 4,
        )


def decode(
    model: Sam,
    embeddings: Tensor,
    image_index: Tensor,
    *,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    boxes: Tensor | None = None,
    masks: Tensor | None = None,
    masked: Tensor | None = None,
    num_masks: int,
) -> tuple[Tensor, Tensor]:
    """Masks for P prompts; coordinates are (x, y) in pixels of the S x S input frame.

    Prompts are encoded in single precision even under autocast: bfloat16 has 8 bits for a coordinate, steps of
    two pixels and more in a frame of 1024.

    Args:
        embeddings: B x 256 x S/16 x S/16.
        image_index: int64 P, the picture of each prompt.
        points: P x N x 2 and ``labels``: P x N, 1 on the object, 0 off it, -2 for a token that is zero.
        boxes: P x 4, as x1, y1, x2, y2; without them the prompt encoder adds SAM's padding token.
        masks: P x 1 x S/4 x S/4 logits, taken as prompts where ``masked`` (bool P; everywhere if None).
        num_masks: 1, 3 or 4, as :class:`~edgesam_mobile.model.mask_decoder.MaskDecoder` has it.

    Returns:
        Mask logits P x M x S/4 x S/4 and predicted IoU P x M.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        given = None if points is None or labels is None else (points, labels)
        sparse, dense = model.prompt_encoder(given, boxes, None if masks is None else masks.float())
        if labels is not None:
            count = labels.shape[1]  # the padding token and the box's corners come after the points
            silenced = sparse[:, :count] * (labels != NOTHING_WRONG)[..., None]
            sparse = torch.cat([silenced, sparse[:, count:]], 1)
        if masks is not None and masked is not None:
            empty = model.prompt_encoder.no_mask_embed.weight[..., None, None]
            dense = torch.where(masked[:, None, None, None], dense, empty)
        positions = model.prompt_encoder.get_dense_pe()
    # Channels last: the decoder's cells x channels matrices are then views, not copies of P x 256 x G x G.
    cells = embeddings.permute(0, 2, 3, 1).index_select(0, image_index).permute(0, 3, 1, 2)
    logits, iou = model.mask_decoder(cells, positions, sparse, dense, num_masks)
    return logits, iou
