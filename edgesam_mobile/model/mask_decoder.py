"""SAM's mask decoder: a two-way transformer between prompt tokens and the image, then a mask per token.

Facts: arXiv 2304.02643, appendix A. EdgeSAM and MobileSAM keep it key for key. 4,058,340 parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.model.layers import MLP, LayerNorm2d

NUM_MASKS = 4  # token 0: the single mask; tokens 1 to 3: whole, part, sub-part


class Attention(nn.Module):
    """Multi-head attention whose internal width may be narrower than its input (``downsample``)."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """B x Tq x C, B x Tk x C, B x Tk x C to B x Tq x C.

        ``key_bias`` (B x 1 x 1 x Tk) is added to the scores: a large negative value hides a key exactly.
        """
        query, key, value = (
            self._split(self.q_proj(q)),
            self._split(self.k_proj(k)),
            self._split(self.v_proj(v)),
        )
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
        if key_bias is not None:
            scores = scores + key_bias
        y = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        z: Tensor = self.out_proj(y)
        return z

    def _split(self, x: Tensor) -> Tensor:
        """B x T x C to B x heads x T x C/heads."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)


class TransformerMLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(F.relu(self.lin1(x)))
        return y


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; a LayerNorm after each."""

    def __init__(self, dim: int, heads: int, hidden: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TransformerMLP(dim, hidden)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, key_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are their own position encoding here: nothing to add, no residual
            tokens = self.self_attn(tokens, tokens, tokens, key_bias)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, key_bias)
        tokens = self.norm1(tokens)
        k = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        update = self.cross_attn_image_to_token(k, tokens + token_pe, tokens, key_bias)
        return tokens, self.norm4(image + update)


class TwoWayTransformer(nn.Module):
    def __init__(self, dim: int = 256, depth: int = 2, heads: int = 8, hidden: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Image cells B x HW x C (and their positions) and tokens B x T x C to updated tokens and cells.

        ``key_bias`` (B x 1 x 1 x T) hides tokens from all others; see :class:`Attention`.
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, key_bias)
        update = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + update), image


class MaskDecoder(nn.Module):
    """Image and prompt embeddings to four masks (as logits at a quarter of the input size) and their scores."""

    def __init__(self, dim: int = 256) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP(dim, 256, NUM_MASKS, 3)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        num_multimask_outputs: int,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks for B prompts on one picture.

        Args:
            image_embeddings: 1 x 256 x G x G.
            image_pe: 1 x 256 x G x G, from :meth:`PromptEncoder.get_dense_pe`.
            sparse: B x T x 256 and ``dense``: B x 256 x G x G, from the prompt encoder.
            num_multimask_outputs: 1 (token 0), 3 (tokens 1 to 3) or 4 (all), as in EdgeSAM.

        Returns:
            Mask logits B x M x 4G x 4G and predicted IoU B x M.
        """
        first, last = {1: (0, 1), 3: (1, 4), 4: (0, 4)}[num_multimask_outputs]
        batch, grid = len(sparse), image_embeddings.shape[-1]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse], dim=1)
        cells = (image_embeddings + dense).flatten(2).transpose(1, 2)
        positions = image_pe.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(cells, positions, tokens)
        upscaled = self.output_upscaling(cells.transpose(1, 2).reshape(batch, -1, grid, grid))
        hyper = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        masks = (hyper @ upscaled.flatten(2)).reshape(batch, NUM_MASKS, *upscaled.shape[2:])
        iou = self.iou_prediction_head(tokens[:, 0])
        return masks[:, first:last], iou[:, first:last]
