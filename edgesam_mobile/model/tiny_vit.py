"""MobileSAM's image encoder: TinyViT-5M at stride 16 and SAM's neck.

TinyViT: "Fast Pretraining Distillation for Small Vision Transformers", arXiv 2207.10666. MobileSAM: arXiv
2306.14289. MobileSAM leaves out the last stage's stride, so its embedding has SAM's 64 x 64 cells.
Module names follow the keys of the published ``mobile_sam.pt``; the classification head (``norm_head``,
``head``) is in that file, is never used, and is kept so that the file loads strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.model.layers import ConvNorm, Neck, fuse_convolutions

DIMS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
STRIDES = (2, 2, 1)  # of the down-sampling after stages 0, 1 and 2


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion by 4, depthwise 3x3, 1x1 projection, residual, GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y)


class Downsample(nn.Module):
    """1x1, depthwise 3x3 with the stride, 1x1; GELU between."""

    def __init__(self, in_chs: int, out_chs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chs, out_chs)
        self.conv2 = ConvNorm(out_chs, out_chs, 3, stride=stride, padding=1, groups=out_chs)
        self.conv3 = ConvNorm(out_chs, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class WindowAttention(nn.Module):
    """Multi-head self-attention within a window, with one learned bias per head and absolute offset."""

    shifts: Tensor | None

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window = heads, dim // heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))  # by rows, then columns apart
        self.register_buffer("shifts", None, persistent=False)

    def fused(self) -> WindowAttention:
        """With biases as they are spread: halved where both triangles have them."""
        self.shifts = self._halved().detach().clone()
        del self.attention_biases
        return self

    def forward(self, x: Tensor) -> Tensor:
        windows, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).reshape(windows, tokens, self.heads, 3 * self.head_dim)
        q, k, v = qkv.transpose(1, 2).split(self.head_dim, dim=3)
        weights = (q * self.head_dim**-0.5) @ k.transpose(2, 3) + self.biases()
        y = (weights.softmax(-1) @ v).transpose(1, 2).reshape(windows, tokens, dim)
        z: Tensor = self.proj(y)
        return z

    def biases(self) -> Tensor:
        """heads x cells x cells, spread by copying and transposing: a phone's accelerator refuses to gather.

        Stored spread, MobileSAM's are 1.2 million numbers: in single precision, a third of a file of 8-bit ones.
        """
        n = self.window
        shifts = self._halved() if self.shifts is None else self.shifts
        columns = _upper(shifts.reshape(-1, n, 1), n).reshape(-1, n, n)
        columns = (columns + columns.transpose(1, 2)).reshape(self.heads, n, n * n)
        rows = _upper(columns, n).reshape(-1, n, n, n)  # rows of both cells, then their columns
        cells = rows.transpose(1, 2).reshape(self.heads, n * n, n * n)
        return cells + cells.transpose(1, 2)

    def _halved(self) -> Tensor:
        """heads x n x n biases by absolute shift, rows' and columns'; shifts of 0, met in both triangles, halved."""
        weights = torch.ones(self.window).index_fill(0, torch.tensor([0]), 0.5)
        return self.attention_biases.view(self.heads, self.window, self.window) * weights * weights[:, None]


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return y


class TinyVitBlock(nn.Module):
    """Window attention, depthwise 3x3 convolution, feed-forward; on B x H x W x C maps."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = FeedForward(dim)
        self.local_conv = ConvNorm(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = x + self.mlp(x)
        return y

    def _attend(self, x: Tensor) -> Tensor:
        """Attention in windows; the map is padded with zeros on the right and bottom to whole windows."""
        batch, height, width, dim = x.shape
        side = self.window
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        x = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
        # B x rows x side x (columns*side) x C first: no tensor above rank 5, which Core ML cannot express.
        x = x.reshape(batch * rows, side, columns, side * dim).transpose(1, 2)
        x = self.attn(x.reshape(batch * rows * columns, side * side, dim))
        x = x.reshape(batch * rows, columns, side, side * dim).transpose(1, 2)
        return x.reshape(batch, rows * side, columns * side, dim)[:, :height, :width]


class ConvStage(nn.Module):
    def __init__(self, dim: int, depth: int, downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(MBConv(dim) for _ in range(depth)))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.downsample(self.blocks(x))
        return y


class AttentionStage(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, window: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TinyVitBlock(dim, heads, window) for _ in range(depth)))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        first = ConvNorm(3, dim // 2, 3, stride=2, padding=1)
        self.seq = nn.Sequential(first, nn.GELU(), ConvNorm(dim // 2, dim, 3, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seq(x)
        return y


class TinyVitEncoder(nn.Module):
    """B x 3 x S x S normalised pictures to B x 256 x S/16 x S/16 embeddings; S is a multiple of 16."""

    def __init__(self) -> None:
        super().__init__()
        downs = [Downsample(DIMS[i], DIMS[i + 1], STRIDES[i]) for i in range(3)]
        self.patch_embed = PatchEmbed(DIMS[0])
        stages: list[nn.Module] = [ConvStage(DIMS[0], DEPTHS[0], downs[0])]
        for i in (1, 2, 3):
            stages.append(AttentionStage(DIMS[i], DEPTHS[i], HEADS[i], WINDOWS[i], downs[i] if i < 3 else None))
        self.layers = nn.ModuleList(stages)
        self.norm_head = nn.LayerNorm(DIMS[-1])
        self.head = nn.Linear(DIMS[-1], 1000)
        self.neck = Neck(DIMS[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        y: Tensor = self.neck(x)
        return y

    @torch.no_grad()
    def fuse(self) -> TinyVitEncoder:
        """A copy for inference: batch norms folded, attention biases reflected, unused head dropped."""
        fused = fuse_convolutions(self)
        assert isinstance(fused, TinyVitEncoder)
        del fused.norm_head, fused.head
        return fused


def _upper(shifts: Tensor, n: int) -> Tensor:
    """B x n x C to B x n x n x C, with entry ``j - i`` at i, j, and zeros below the diagonal.

    With n - 1 zeros before them and one behind, n copies are read as rows of 2n - 1: each begins one entry on.
    """
    padded = F.pad(shifts, (0, 0, n - 1, 1))
    copies = padded.unsqueeze(1).expand(-1, n, -1, -1).flatten(1, 2)[:, : n * (2 * n - 1)]
    return copies.reshape(-1, n, 2 * n - 1, shifts.shape[2])[:, :, n - 1 :]
