"""A teacher of milliseconds, and pictures for it; also a process that writes a cache until it is killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batch import Batch
from distill.data.teacher_prompts import PromptSettings
from distill.teacher import Teacher, write_cache
from edgesam_mobile.model.sam import Provenance, Sam

SIDE = 64
EVERY_MASK = PromptSettings(points_per_side=2, min_predicted_iou=0, min_stability=0, min_area=0, max_area=1)


class PoolingEncoder(nn.Module):
    """B x 3 x S x S to B x 256 x S/16 x S/16; counts the pictures it saw and may take its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 256, 16, stride=16)
        self.seen, self.seconds = 0, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        time.sleep(self.seconds)
        y: Tensor = self.mix(x)
        return y


def small_teacher(*, sha256: str = "a" * 64, side: int = SIDE, seconds: float = 0.0) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sam(PoolingEncoder(seconds), architecture="mobile-sam", image_size=side).eval()
    model.provenance = Provenance("mobile-sam", "small", sha256, None, None, None, None)
    return Teacher(model.requires_grad_(False))


def pictures(count: int, *, batch_size: int = 4, side: int = SIDE) -> Iterator[Batch]:
    """Landscape pictures of 3/4 of the frame, of coloured patches; published at twice the frame's size."""
    patches = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    frames = F.interpolate(patches, size=(side, side)).to(torch.uint8)
    frames[:, :, side * 3 // 4 :] = 0
    sizes = torch.tensor([[side * 3 // 4, side]]).expand(count, 2)
    names = [f"picture {number}.jpg" for number in range(count)]
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        yield Batch(names[rows], frames[rows], sizes[rows], originals=2 * sizes[rows])


if __name__ == "__main__":
    write_cache(
        small_teacher(seconds=0.02),
        pictures(400),
        Path(sys.argv[1]) / "cache",
        shard_size=8,
        prompts=Path(sys.argv[1]) / "prompts",
        settings=EVERY_MASK,
    )
