"""SAM's prompt encoder: points, boxes and masks to embeddings (arXiv 2304.02643, section 3 and appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgesam_mobile.model.layers import LayerNorm2d

NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT, NOT_A_POINT = 0, 1, 2, 3, -1


class RandomFourierPosition(nn.Module):
    """Position encoding by sine and cosine of random projections; the matrix is part of the weights."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, unit: Tensor) -> Tensor:
        """... x 2 positions (x, y) in [0, 1] to ... x 2*features."""
        phase = 2 * math.pi * ((2 * unit - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Encodes prompts given in pixels of the padded input frame (S x S, x to the right, y down).

    Args:
        image_size: S, the side of the model's input in pixels.
    """

    def __init__(self, image_size: int = 1024, dim: int = 256) -> None:
        super().__init__()
        self.image_size, self.dim = image_size, dim
        self.grid = image_size // 16
        self.pe_layer = RandomFourierPosition(dim // 2)
        # One embedding per label: negative, positive, box's top-left, box's bottom-right.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def get_dense_pe(self) -> Tensor:
        """Position encoding of the embedding's cell centres, 1 x 256 x S/16 x S/16."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(self.grid, dtype=matrix.dtype, device=matrix.device) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode one set of prompts per batch item.

        Args:
            points: coordinates B x N x 2 and labels B x N (0 negative, 1 positive, -1 no point at all).
            boxes: B x 4, as x1, y1, x2, y2.
            masks: B x 1 x S/4 x S/4 logits.

        Returns:
            Sparse embeddings B x T x 256 (without a box, T counts one padding token more than points) and
            dense embeddings B x 256 x S/16 x S/16.
        """
        tokens, batch = [], 1
        if points is not None:
            coords, labels = points
            if boxes is None:
                coords = torch.cat([coords, coords.new_zeros(len(coords), 1, 2)], dim=1)
                labels = torch.cat([labels, labels.new_full((len(labels), 1), NOT_A_POINT)], dim=1)
            tokens.append(self._embed(coords, labels))
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2)
            tokens.append(self._embed(corners, corners.new_tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(len(boxes), 2)))
        if tokens:
            sparse, batch = torch.cat(tokens, dim=1), len(tokens[0])
        elif masks is not None:
            batch = len(masks)
        if not tokens:
            sparse = self.no_mask_embed.weight.new_zeros(batch, 0, self.dim)
        if masks is not None:
            return sparse, self.mask_downscaling(masks)
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, self.grid, self.grid)
        return sparse, dense

    def _embed(self, coords: Tensor, labels: Tensor) -> Tensor:
        """B x N x 2 pixels and B x N labels to B x N x 256; half a pixel moves corners to pixel centres."""
        encoded: Tensor = self.pe_layer((coords + 0.5) / self.image_size)
        encoded = encoded * (labels != NOT_A_POINT)[..., None]
        encoded = encoded + (labels == NOT_A_POINT)[..., None] * self.not_a_point_embed.weight
        for label, embedding in enumerate(self.point_embeddings.parameters()):
            encoded = encoded + (labels == label)[..., None] * embedding
        return encoded
