"""The deployable decoder: one static graph for any number of points and boxes up to its slots.

A dynamic number of points makes Core ML specialise the model anew at each change, and padding with SAM's own
"not a point" label changes the masks. Here each call has the same shape; unused slots carry the label -1 and
are hidden from attention by a large negative bias, which is exact. SAM's padding token, which belongs to every
prompt without a box, is added inside the graph.

Operations that phone accelerators reject (sine, gather, scatter, comparisons, integer indexing) are expressed
by multiplications, additions, ReLU and floor.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.deploy.attention import FoldedTransformer
from edgesam_mobile.deploy.ports import Graph, Port
from edgesam_mobile.deploy.slots import CellPositions, SlotEmbedding, repeat_prompts
from edgesam_mobile.model.choice import STABILITY_OFFSET
from edgesam_mobile.model.mask_decoder import NUM_MASKS, MaskDecoder
from edgesam_mobile.model.registry import architecture
from edgesam_mobile.model.sam import Sam

DEFAULT_SLOTS = 6  # four points and a box
HIDDEN = -1e4  # added to attention scores; fits half precision, and exp() of it is exactly 0
STEEP = 1e4  # slope of the ramps that stand for comparisons


class DecoderModule(nn.Module):
    """Embedding and prompt slots to four masks, their scores, and the mask to show.

    Args:
        score: ``"iou"`` (the head's prediction) or ``"stability"``; see :mod:`edgesam_mobile.model.choice`.
        point_masks: how many of the four masks compete when there is no box.
        folded: the form of cross-attention; see :mod:`edgesam_mobile.deploy.attention`.
    """

    output_tokens: Tensor
    no_mask: Tensor
    not_for_boxes: Tensor
    not_for_points: Tensor
    earlier: Tensor

    def __init__(
        self,
        model: Sam,
        *,
        score: str,
        point_masks: int,
        mask_input: bool,
        channels_last: bool,
        batch: int,
        folded: bool,
    ) -> None:
        super().__init__()
        # Copies, since a graph is frozen and the model may be in training.
        prompts, decoder = copy.deepcopy((model.prompt_encoder, model.mask_decoder))
        self.score, self.channels_last, self.batch = score, channels_last, batch
        self.grid = model.image_size // 16
        self.slots = SlotEmbedding(prompts)
        self.transformer = FoldedTransformer(decoder.transformer) if folded else decoder.transformer
        self.hyper = decoder.output_hypernetworks_mlps
        self.iou_head = decoder.iou_prediction_head if score == "iou" else None
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self.register_buffer("output_tokens", output_tokens[None])
        self.positions = CellPositions(prompts)
        self.register_buffer("no_mask", prompts.no_mask_embed.weight.detach().view(1, -1, 1, 1))
        self.mask_downscaling = prompts.mask_downscaling if mask_input else None
        self._take_upscaling(decoder)
        others = torch.tensor([0.0, 1.0, 1.0, 1.0])
        self.register_buffer("not_for_boxes", others.view(1, NUM_MASKS))
        excluded = torch.zeros(NUM_MASKS)
        excluded[: NUM_MASKS - point_masks] = 1
        self.register_buffer("not_for_points", excluded.view(1, NUM_MASKS))
        self.register_buffer("earlier", torch.triu(torch.ones(NUM_MASKS, NUM_MASKS), diagonal=1))

    def _take_upscaling(self, decoder: MaskDecoder) -> None:
        """SAM's two transposed convolutions (2x2, stride 2: no overlap) as linear layers on cells."""
        up1, norm, _, up2, _ = cast(Any, decoder.output_upscaling)
        self.up1, self.up2 = _as_linear(up1), _as_linear(up2)
        self.up_norm = nn.LayerNorm(norm.weight.numel(), eps=norm.eps)
        self.up_norm.weight.data.copy_(norm.weight)
        self.up_norm.bias.data.copy_(norm.bias)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor | None = None,
        has_mask_input: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slots, present, has_box = self.slots(point_coords, point_labels)
        output = repeat_prompts(self.output_tokens, self.batch)
        tokens = torch.cat([output, slots], 1)
        present = torch.cat([torch.ones_like(output[:, :, 0:1]), present], 1)
        key_bias = ((1.0 - present) * HIDDEN).transpose(1, 2).unsqueeze(1)
        cells = self._cells(image_embeddings, mask_input, has_mask_input)
        tokens, cells = self.transformer(cells, self.positions(has_box), tokens, key_bias)
        masks = self._masks(tokens, cells)
        scores = self.iou_head(tokens[:, 0:1]).squeeze(1) if self.iou_head is not None else self._stability(masks)
        chosen = self._choose(scores, has_box.squeeze(-1))
        best = torch.bmm(chosen.unsqueeze(1), masks.flatten(2)).reshape(self.batch, 1, *masks.shape[2:])
        return masks, scores, best, (chosen * scores).sum(-1, keepdim=True)

    def _cells(self, embedding: Tensor, mask: Tensor | None, has_mask: Tensor | None) -> Tensor:
        """Embedding and mask prompt as B x HW x 256, one row a cell.

        The mask prompt is added before the cells become rows: converters would otherwise merge its constant with
        the cells' positions and store those twice.
        """
        dense = self._dense(mask, has_mask)
        if self.channels_last:
            cells = (embedding + dense.permute(0, 2, 3, 1)).flatten(1, 2)
        else:
            cells = (embedding + dense).flatten(2).transpose(1, 2)
        return cells if cells.shape[0] == self.batch else cells.expand(self.batch, -1, -1)

    def _dense(self, mask: Tensor | None, has_mask: Tensor | None) -> Tensor:
        """What a mask prompt adds to each cell, B x 256 x G x G; with none, one vector for all, 1 x 256 x 1 x 1."""
        if self.mask_downscaling is None or mask is None or has_mask is None:
            return self.no_mask
        counts = has_mask.reshape(-1, 1, 1, 1)
        encoded: Tensor = self.mask_downscaling(mask)
        # Not by a difference: coremltools folds what is subtracted from a convolution into its bias, and turns the
        # sign of that constant wherever else it stands.
        return (1.0 - counts) * self.no_mask + counts * encoded

    def _masks(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """B x 4 x 4G x 4G logits: each cell becomes 4 x 4 pixels, kept as rows until the masks are small."""
        batch, grid = self.batch, self.grid
        pixels = F.gelu(self.up_norm(self.up1(cells).reshape(batch, grid * grid * 4, -1)))
        pixels = F.gelu(self.up2(pixels)).reshape(batch, grid * grid * 16, -1)
        weights = torch.cat([mlp(tokens[:, 1 + i : 2 + i]) for i, mlp in enumerate(self.hyper)], 1)
        logits = torch.bmm(pixels, weights.transpose(1, 2))
        # Rows run over (y, x, a, b, c, d): (a, b) within the first doubling, (c, d) within the second.
        # Two swaps bring them to (y, a, c) and (x, b, d); rank 4 at most, as accelerators want it.
        rows = logits.reshape(batch * grid, grid, 2, 8 * NUM_MASKS).transpose(1, 2)
        rows = rows.reshape(batch * grid * 2, grid * 2, 2, 2 * NUM_MASKS).transpose(1, 2)
        return rows.reshape(batch, grid * 4, grid * 4, NUM_MASKS).permute(0, 3, 1, 2)

    def _stability(self, masks: Tensor) -> Tensor:
        """IoU of each mask between thresholds +1 and -1; 0 for an empty mask."""
        inner = _area(masks - STABILITY_OFFSET)
        outer = _area(masks + STABILITY_OFFSET)
        return inner / (outer + F.relu(1e-3 - outer))  # one pixel's area is 1/256 or more

    def _choose(self, scores: Tensor, has_box: Tensor) -> Tensor:
        """One-hot B x 4: token 0 for a box, else the first best-scored of the masks that compete."""
        ruled_out = has_box * self.not_for_boxes + (1.0 - has_box) * self.not_for_points
        scores = scores - 10.0 * ruled_out
        short = scores.amax(-1, keepdim=True) - scores
        best = F.relu(1.0 - F.relu(short * 1e3).clamp(max=1.0) * 1e3)  # two steps: one factor would overflow fp16
        first = best * F.relu(1.0 - best @ self.earlier)
        return first / first.sum(-1, keepdim=True)  # scores a millionth apart share: the weights still sum to 1


def decoder_graph(
    model: Sam,
    *,
    slots: int = DEFAULT_SLOTS,
    prompts: int = 1,
    mask_input: bool = False,
    score: str | None = None,
    channels_last: bool = False,
    folded: bool = False,
) -> Graph:
    """The decoder as a graph to export.

    Args:
        slots: points a prompt can have; a box takes two.
        prompts: prompts answered in one call (B), on one picture.
        mask_input: whether the graph takes a mask prompt (and a switch for it) as well.
        score: ``"iou"``, ``"stability"``, or ``None`` for what is usable for the architecture.
        channels_last: the embedding as N x H x W x C.
        folded: fold the cells' projections into the tokens' (see :mod:`edgesam_mobile.deploy.attention`).
    """
    spec = architecture(model.architecture)
    module = DecoderModule(
        model,
        score=score or spec.score,
        point_masks=spec.point_masks,
        mask_input=mask_input,
        channels_last=channels_last,
        batch=prompts,
        folded=folded,
    )
    side, grid = model.image_size // 4, model.image_size // 16
    embedding = (1, grid, grid, 256) if channels_last else (1, 256, grid, grid)
    inputs = [
        Port("image_embeddings", embedding, "float32", "NHWC" if channels_last else "NCHW", "from the encoder"),
        Port("point_coords", (prompts, slots, 2), "float32", "BNX", "(x, y) in pixels of the padded input"),
        Port(
            "point_labels", (prompts, slots), "float32", "BN",
            "1 foreground, 0 background, 2 box's top-left, 3 box's bottom-right, -1 empty slot",
        ),
    ]  # fmt: skip
    if mask_input:
        inputs.append(Port("mask_input", (prompts, 1, side, side), "float32", "BCHW", "mask logits as a prompt"))
        inputs.append(Port("has_mask_input", (prompts,), "float32", "B", "1 if mask_input counts, else 0"))
    outputs = (
        Port("masks", (prompts, NUM_MASKS, side, side), "float32", "BCHW", "logits of all four masks"),
        Port("scores", (prompts, NUM_MASKS), "float32", "BC", f"{module.score} score of each mask"),
        Port("best_mask", (prompts, 1, side, side), "float32", "BCHW", "logits of the mask to show"),
        Port("best_score", (prompts, 1), "float32", "BC", f"{module.score} score of the mask to show"),
    )
    return Graph("decoder", module.eval().requires_grad_(False), tuple(inputs), outputs)


def _as_linear(conv: nn.ConvTranspose2d) -> nn.Linear:
    """A 2x2, stride-2 transposed convolution as a linear layer with outputs ordered (row, column, channel)."""
    in_chs, out_chs, height, width = conv.weight.shape
    linear = nn.Linear(in_chs, height * width * out_chs)
    linear.weight.data.copy_(conv.weight.permute(2, 3, 1, 0).reshape(-1, in_chs))
    assert conv.bias is not None
    linear.bias.data.copy_(conv.bias.repeat(height * width))
    return linear


def _area(margin: Tensor) -> Tensor:
    """Pixels with a positive margin, in rows' widths: row means summed, so that half precision can hold it."""
    return (margin * STEEP).clamp(0.0, 1.0).mean(-1).sum(-1)
