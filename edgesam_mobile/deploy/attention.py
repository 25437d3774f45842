"""Cross-attention between a few tokens and thousands of image cells, with the cells' projections folded away.

Scores are (q Wq)(k Wk)^T. With T tokens and 4096 cells it is cheaper to multiply the tokens by both matrices
than to project every cell, and no image-sized tensor needs to be split into heads and transposed. The algebra
is exact; only rounding differs. On CPUs it is about a quarter faster where products of two computed matrices
are (ONNX Runtime, XNNPACK through ExecuTorch) and slower where they are not (TFLite), so each format says which
form it wants. Weight compression wants the plain form, whose weights are constants of linear layers.

Products are written as ``bmm``: ExecuTorch lowers ``@`` on more than two axes with copies around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgesam_mobile.deploy.slots import repeat_prompts
from edgesam_mobile.model.mask_decoder import Attention, TwoWayBlock, TwoWayTransformer


class TokensToImage(nn.Module):
    """Attention from tokens to cells, for ``cross_attn_token_to_image`` and the final attention."""

    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.heads, width = source.heads, source.q_proj.out_features // source.heads
        self.q_proj, self.out_proj = source.q_proj, source.out_proj
        # The key's bias adds the same to all scores of a query: softmax does not see it.
        key = source.k_proj.weight.detach().reshape(self.heads, width, -1) * width**-0.5
        value = source.v_proj.weight.detach().reshape(self.heads, width, -1).transpose(1, 2)
        self.register_buffer("key_weight", key.contiguous())
        self.register_buffer("value_weight", value.contiguous())
        self.register_buffer("value_bias", source.v_proj.bias.detach().reshape(self.heads, 1, width))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """B x T x C tokens, B x HW x C cells (twice: with and without positions) to B x T x C."""
        batch, tokens, dim = q.shape
        query = torch.bmm(split_heads(self.q_proj(q), self.heads), repeat_prompts(self.key_weight, batch))
        scores = torch.bmm(query.reshape(batch, self.heads * tokens, dim), k.transpose(1, 2))
        cells = torch.bmm(scores.softmax(-1), v).reshape(batch * self.heads, tokens, dim)
        y = torch.bmm(cells, repeat_prompts(self.value_weight, batch)) + repeat_prompts(self.value_bias, batch)
        y = y.reshape(batch, self.heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, -1)
        z: Tensor = self.out_proj(y)
        return z


class ImageToTokens(nn.Module):
    """Attention from cells to tokens, for ``cross_attn_image_to_token``."""

    query_weight: Tensor
    query_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.heads, width = source.heads, source.q_proj.out_features // source.heads
        self.k_proj, self.v_proj = source.k_proj, source.v_proj
        query = source.q_proj.weight.detach().reshape(self.heads, width, -1) * width**-0.5
        bias = source.q_proj.bias.detach().reshape(self.heads, 1, width) * width**-0.5
        out = source.out_proj.weight.detach().reshape(-1, self.heads, width).permute(1, 2, 0)
        self.register_buffer("query_weight", query.contiguous())
        self.register_buffer("query_bias", bias)
        self.register_buffer("out_weight", out.contiguous())
        self.register_buffer("out_bias", source.out_proj.bias.detach().clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
        """B x HW x C cells, B x T x C tokens (twice) and B x 1 x 1 x T to B x HW x C."""
        batch, tokens, dim = k.shape
        cells, columns = q.shape[1], self.heads * tokens
        key, value = split_heads(self.k_proj(k), self.heads), split_heads(self.v_proj(v), self.heads)
        projected = torch.bmm(key, repeat_prompts(self.query_weight, batch)).reshape(batch, columns, dim)
        bias = torch.bmm(repeat_prompts(self.query_bias, batch), key.transpose(1, 2))
        bias = (bias.reshape(batch, self.heads, 1, tokens) + key_bias).reshape(batch, 1, columns)
        scores = torch.bmm(q, projected.transpose(1, 2)) + bias
        weights = scores.reshape(batch, cells, self.heads, tokens).softmax(-1).reshape(batch, cells, columns)
        update = torch.bmm(value, repeat_prompts(self.out_weight, batch)).reshape(batch, columns, dim)
        return torch.bmm(weights, update) + self.out_bias


class FoldedBlock(nn.Module):
    """A :class:`TwoWayBlock` with both cross-attentions folded."""

    def __init__(self, source: TwoWayBlock) -> None:
        super().__init__()
        self.first, self.self_attn, self.mlp = source.first, source.self_attn, source.mlp
        self.norm1, self.norm2, self.norm3, self.norm4 = source.norm1, source.norm2, source.norm3, source.norm4
        self.to_image = TokensToImage(source.cross_attn_token_to_image)
        self.to_tokens = ImageToTokens(source.cross_attn_image_to_token)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, key_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        q = tokens if self.first else tokens + token_pe
        attended = self.self_attn(q, q, tokens, key_bias)
        tokens = self.norm1(attended if self.first else tokens + attended)
        k = image + image_pe
        tokens = self.norm2(tokens + self.to_image(tokens + token_pe, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.to_tokens(k, tokens + token_pe, tokens, key_bias)
        # Flat rows: ONNX Runtime fuses a rank-3 add and norm into a kernel several times slower than both.
        return tokens, self.norm4(image.reshape(-1, image.shape[-1])).reshape(image.shape)


class FoldedTransformer(nn.Module):
    """SAM's two-way transformer, exactly, with folded cross-attentions; shares the source's other layers."""

    def __init__(self, source: TwoWayTransformer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FoldedBlock(layer) for layer in source.layers if isinstance(layer, TwoWayBlock))
        self.final = TokensToImage(source.final_attn_token_to_image)
        self.norm_final_attn = source.norm_final_attn

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor, key_bias: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`TwoWayTransformer.forward`."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, key_bias)
        update = self.final(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + update), image


def split_heads(x: Tensor, heads: int) -> Tensor:
    """B x T x C to B*heads x T x C/heads."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, -1).transpose(1, 2).reshape(batch * heads, tokens, width // heads)
