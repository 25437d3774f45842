"""Prompt slots to tokens inside a deployable graph, without operations that phone accelerators reject."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.model.prompt_encoder import PromptEncoder

EMPTY_SLOT = -1
_SINE_TERMS = 6  # as exact in single precision as 7; 5 are ten times worse


class SlotEmbedding(nn.Module):
    """Point slots to tokens: the prompt encoder without comparisons, sine or gather.

    Coordinates B x N x 2 (pixels of the padded input) and labels B x N (-1 empty, 0 background, 1 foreground,
    2 and 3 a box's corners) to tokens B x (N + 1) x 256, their presence B x (N + 1) x 1 in {0, 1}, and whether
    there is a box, B x 1 x 1. The last token is SAM's padding token, present when there is no box.
    """

    per_x: Tensor
    per_y: Tensor
    start: Tensor
    kinds: Tensor
    any_kind: Tensor
    corner_kinds: Tensor
    kind_embeddings: Tensor
    padding_token: Tensor

    def __init__(self, source: PromptEncoder) -> None:
        super().__init__()
        # sin(2 pi t) and cos(2 pi t) = sin(2 pi (t + 1/4)), with t linear in x and y: one table for both halves.
        across, down = source.pe_layer.positional_encoding_gaussian_matrix.double().repeat(1, 2) * 2
        quarter = torch.cat([torch.zeros(source.dim // 2), torch.full((source.dim // 2,), 0.25)])
        start = (0.5 / source.image_size - 0.5) * (across + down) + quarter
        self.register_buffer("per_x", (across / source.image_size).float().view(1, 1, -1))
        self.register_buffer("per_y", (down / source.image_size).float().view(1, 1, -1))
        self.register_buffer("start", start.float().view(1, 1, -1))
        self.sine = sine_coefficients()
        self.register_buffer("kinds", torch.arange(4.0).view(1, 1, 4))
        self.register_buffer("any_kind", torch.ones(4, 1))
        self.register_buffer("corner_kinds", torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1))
        self.register_buffer("kind_embeddings", torch.cat([*source.point_embeddings.parameters()]).detach())
        self.register_buffer("padding_token", source.not_a_point_embed.weight.detach().view(1, 1, -1))

    def forward(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turns = coords[:, :, 0:1] * self.per_x + coords[:, :, 1:2] * self.per_y + self.start
        position = self._sine(turns)
        distance = labels.unsqueeze(-1) - self.kinds
        kind = F.relu(1.0 - distance * distance)  # one-hot for whole labels 0..3, nothing for -1
        present = kind @ self.any_kind
        tokens = position * present + kind @ self.kind_embeddings
        corners = (kind @ self.corner_kinds).sum(1, keepdim=True)
        no_box = F.relu(1.0 - corners)
        padding = repeat_prompts(self.padding_token, coords.shape[0])
        return torch.cat([tokens, padding], 1), torch.cat([present, no_box], 1), 1.0 - no_box

    def _sine(self, turns: Tensor) -> Tensor:
        """sin(2 pi turns), by reduction to half a turn around zero and an odd polynomial."""
        x = turns - torch.floor(turns + 0.5)
        square = x * x
        highest, *others = reversed(self.sine)
        y = square * highest + others[0]
        for coefficient in others[1:]:
            y = y * square + coefficient
        return y * x


class CellPositions(nn.Module):
    """Position encoding of the embedding's cells, 1 x HW x 256, from short tables for each side.

    Sine and cosine of a + b follow from those of a and b: of a cell's place across and down, and before that of a
    stretch's place and a cell's within it. So a graph stores 2 x (8 + 8) rows instead of 64 x 64: 4 MB less in single
    precision.
    """

    across_stretches: Tensor
    across_cells: Tensor
    down_stretches: Tensor
    down_cells: Tensor

    def __init__(self, source: PromptEncoder) -> None:
        super().__init__()
        stretch = _near_root(source.grid)
        side = torch.arange(source.grid, dtype=torch.float64) / source.grid * 2
        starts, centres = side[::stretch] - 1, side[:stretch] + 1 / source.grid
        for name, row in zip(("across", "down"), source.pe_layer.positional_encoding_gaussian_matrix, strict=True):
            for part, places in (("stretches", starts), ("cells", centres)):
                phase = 2 * torch.pi * places[:, None] * row.double()
                self.register_buffer(f"{name}_{part}", torch.cat([phase.sin(), phase.cos()], dim=1).float())

    def forward(self, has_box: Tensor) -> Tensor:
        """``has_box`` (B x 1 x 1, 0 or 1) only keeps converters from computing the whole map and storing it."""
        one = (has_box[0:1] + 2.0).clamp(0.0, 1.0)
        across = _of_sums(self.across_stretches * one, self.across_cells)
        down = _of_sums(self.down_stretches * one, self.down_cells)
        return _of_sums(down, across)


def repeat_prompts(x: Tensor, batch: int) -> Tensor:
    """A constant's first axis repeated for each prompt; left alone for one, where a copy would cost for nothing."""
    return x if batch == 1 else x.repeat(batch, *[1] * (x.dim() - 1))


def _of_sums(first: Tensor, second: Tensor) -> Tensor:
    """Sines and cosines of A and B angles (A x 2C and B x 2C, side by side) to those of all sums, 1 x AB x 2C."""
    half = first.shape[-1] // 2
    first, second = first.reshape(-1, 1, 2 * half), second.reshape(1, -1, 2 * half)
    sin_a, cos_a, sin_b, cos_b = first[..., :half], first[..., half:], second[..., :half], second[..., half:]
    return torch.cat([sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b], -1).reshape(1, -1, 2 * half)


def _near_root(grid: int) -> int:
    """The divisor of a grid's side that is nearest below its root, for the shortest tables."""
    return max(part for part in range(1, grid + 1) if part * part <= grid and grid % part == 0)


def sine_coefficients(terms: int = _SINE_TERMS) -> list[float]:
    """Coefficients of x, x^3, ... of a polynomial for sin(2 pi x) on [-1/2, 1/2], near the best possible."""
    nodes = np.cos(np.pi * (np.arange(400) + 0.5) / 800) / 2  # Chebyshev nodes, positive half
    powers = nodes[:, None] ** (2 * np.arange(terms) + 1)
    solution, *_ = np.linalg.lstsq(powers, np.sin(2 * np.pi * nodes), rcond=None)
    return [float(c) for c in solution]
