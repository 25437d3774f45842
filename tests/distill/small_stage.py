"""Models and batches of milliseconds for the stages, and prompt-by-prompt loops to hold them against."""

from __future__ import annotations

import torch
from small_teacher import SIDE, PoolingEncoder
from torch import Tensor

from distill.data.batch import Batch, Prompts
from distill.teacher import Teacher
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model

SIZES = ((48, 64), (64, 41), (33, 64))


def small_model(seed: int) -> Sam:
    """A real prompt encoder and decoder behind one convolution, at 64 x 64 pixels; its masks are of both signs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Sam(PoolingEncoder(), architecture="mobile-sam", image_size=SIDE).eval()
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            torch.nn.init.normal_(mlp.layers[-1].weight, std=0.5)
        return model


def tiny_model(seed: int) -> Sam:
    """The registry's smallest student, with batch norms, at 256 x 256 pixels."""
    return untrained_model("edge-sam-tiny", seed, image_size=256)


def frozen(model: Sam) -> Teacher:
    return Teacher(model.requires_grad_(False).eval())


def make_batch(
    kind: str, counts: tuple[int, ...] = (3, 2, 4), *, side: int = SIDE, rounds: int = 1, seed: int = 0
) -> Batch:
    """Padded pictures of noise with that many prompts each."""
    dice = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(SIZES[: len(counts)]) * side // SIDE
    frames = torch.randint(0, 256, (len(counts), 3, side, side), generator=dice, dtype=torch.uint8)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    limit = sizes[image].flip(1)
    points = torch.rand(len(image), 2, generator=dice) * limit
    low, high = torch.rand(len(image), 2, 2, generator=dice).mul(limit[:, None]).sort(1).values.unbind(1)
    uniform = torch.rand(len(image), rounds, generator=dice)
    prompts = Prompts(image, torch.cat([low, high], 1), points, uniform, "box" if kind == "box" else "point")
    return Batch([f"{number}.jpg" for number in range(len(counts))], frames, sizes, prompts)


def part(batch: Batch, rows: slice) -> Batch:
    """Some of a batch's pictures, as another process would get them."""
    picked = list(range(len(batch)))[rows]
    prompts = batch.prompts
    assert prompts is not None
    mine = torch.isin(prompts.image, torch.tensor(picked))
    image = prompts.image[mine] - min(picked, default=0)
    some = Prompts(image, prompts.boxes[mine], prompts.points[mine], prompts.uniform[mine], prompts.kind)
    return Batch(batch.names[rows], batch.frames[rows], batch.sizes[rows], some)


def inside(size: Tensor, side: int, step: int) -> list[tuple[int, int]]:
    """Cells (row, column) of the coarse grid whose centre's lower right pixel belongs to the picture."""
    height, width = size.tolist()
    grid = range(side // step)
    return [(y, x) for y in grid for x in grid if y * step + step // 2 < height and x * step + step // 2 < width]
