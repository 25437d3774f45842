"""Networks that are not this project's, with the layers that others use: small, random, and in their right mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside a shorter way, and a norm that no convolution takes in."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(given)
        first, second = (
            nn.Conv2d(given, made, 3, stride, 1, bias=False),
            nn.Conv2d(made, made, 3, padding=1, bias=False),
        )
        self.body = nn.Sequential(first, nn.BatchNorm2d(made), nn.ReLU(), second, nn.BatchNorm2d(made))
        self.short = nn.Sequential(nn.Conv2d(given, made, 1, stride, bias=False), nn.BatchNorm2d(made))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.before(x), 0.1)
        return F.relu(self.body(x) + self.short(x))


class Residual(nn.Module):
    """A classifier with batch norms and pooling; answers scores, features and the best three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2))
        self.head = nn.Linear(32, 10)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        features = self.blocks(F.max_pool2d(self.stem(picture), 3, 2, ceil_mode=True))
        scores = self.head(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return scores, features, *scores.topk(3)


class Attention(nn.Module):
    """A causal transformer block on words; answers tokens, the largest of each, and the larger of two neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.places = nn.Parameter(torch.randn(1, 12, 32) / 10)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.projections, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, words: Tensor) -> tuple[Tensor, ...]:
        x = self.embedding(words) + self.places
        batch, count, width = x.shape
        heads = self.projections(self.norms[0](x)).reshape(batch, count, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        later = torch.full((count, count), -1e4).triu(1)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0), attn_mask=later)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        x = x + self.mlp(self.norms[1](x))
        return x, x.softmax(-1).argmax(-1), F.max_pool1d(x.transpose(1, 2), 2)


class Pyramid(nn.Module):
    """A segmenter that shrinks and enlarges; answers probabilities, and maps of other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU())
        second = nn.Conv2d(16, 32, 3, 2, 1, groups=16)
        self.second = nn.Sequential(second, nn.InstanceNorm2d(32, affine=True), nn.Hardswish())
        self.up = nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1)
        self.head, self.bend = nn.Conv2d(32, 5, 1), nn.PReLU(5)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        fine = self.first(F.pad(picture, (1, 1, 1, 1), mode="reflect"))
        coarse = self.second(fine)
        logits = self.bend(self.head(torch.cat([fine, self.up(coarse)[:, :, :-1]], 1)))
        whole = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        other = F.interpolate(logits, size=(20, 21), mode="bilinear", align_corners=True)
        blocks = F.interpolate(coarse, scale_factor=2, mode="nearest")
        return whole.softmax(1), other, F.avg_pool2d(blocks, 3, 2, 1), F.pixel_shuffle(blocks, 4)


class Recurrent(nn.Module):
    """What the interpreter does not run: ``kind`` is a layer that goes word by word."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.layer = kind(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer(x)[0],)


def seeded(network: type[nn.Module], *arguments: object) -> nn.Module:
    """A network with the same weights at every call, whose batch norms have something to do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = network(*arguments)
        for norm in made.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean, std=0.1)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return made.eval().requires_grad_(False)
