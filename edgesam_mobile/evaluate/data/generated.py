"""Pictures made in code, with exact masks: for demonstrations and tests that need no data set."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgesam_mobile.evaluate.data.masks import encode_mask, mask_point
from edgesam_mobile.evaluate.data.samples import Instance, Sample

_SIZES = ((192, 256), (256, 192), (224, 224), (160, 288))
_SHARD = 64
_FEWEST, _MOST = 3, 7  # shapes a picture
_SMALLEST = 64  # visible pixels; what is covered further is no object any more

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class GeneratedSource:
    """Coloured, textured shapes that cover each other before a textured ground, as PNG.

    Picture ``i`` depends on the seed and ``i`` alone, whatever the count.

    Args:
        spec: as :func:`~edgesam_mobile.evaluate.data.open.open_source` was asked.
        count: pictures.
    """

    def __init__(self, spec: str, count: int, seed: int = 0) -> None:
        self.spec, self.count, self.seed = spec, count, seed
        self.shard_sizes: Sequence[int] = [min(_SHARD, count - start) for start in range(0, count, _SHARD)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        random = np.random.default_rng([self.seed, index])
        size = _SIZES[index % len(_SIZES)]
        picture, masks = _draw(random, size)
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, format="PNG", compress_level=1)
        instances = tuple(_instance(index * 100 + number, mask) for number, mask in enumerate(masks, 1))
        return Sample(f"generated-{self.seed}-{index:06d}.png", stream.getvalue(), instances, index, size)

    def digest(self) -> str:
        return hashlib.sha256(f"{self.count}:{self.seed}".encode()).hexdigest()


def _draw(random: np.random.Generator, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], list[Bools]]:
    """A picture and what can be seen of each shape, later shapes before earlier ones."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    canvas = _texture(random, x, y)
    masks: list[Bools] = []
    for _ in range(int(random.integers(_FEWEST, _MOST + 1))):
        shape = _shape(random, x, y)
        canvas[shape] = _texture(random, x[shape], y[shape])
        masks = [*(mask & ~shape for mask in masks), shape]
    canvas += random.normal(0, 3, canvas.shape)
    visible = [mask for mask in masks if np.count_nonzero(mask) >= _SMALLEST]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), visible


def _shape(random: np.random.Generator, x: Floats, y: Floats) -> Bools:
    """An ellipse, a rectangle, a polygon or a blob, somewhere, turned anyhow."""
    height, width = x.shape
    centre_x, centre_y = random.uniform(0.1, 0.9) * width, random.uniform(0.1, 0.9) * height
    radius = random.uniform(0.08, 0.3) * min(height, width)
    stretch, turn = random.uniform(0.5, 1.0), random.uniform(0, np.pi)
    dx, dy = x - centre_x, y - centre_y
    along, across = dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
    distance, angle = np.hypot(along, across), np.arctan2(across, along)
    kind = int(random.integers(4))
    if kind == 0:
        limit: Floats = np.full_like(x, radius)
    elif kind == 1:
        limit = radius / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    elif kind == 2:
        corners = int(random.integers(3, 7))
        limit = radius * np.cos(np.pi / corners) / np.cos(angle % (2 * np.pi / corners) - np.pi / corners)
    else:
        lobes, depth = int(random.integers(3, 6)), random.uniform(0.1, 0.35)
        limit = radius * (1 + depth * np.sin(lobes * angle))
    inside: Bools = distance <= limit
    return inside


def _texture(random: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Colours ``... x 3`` at places ``...``: two colours mixed evenly, by a gradient, in stripes or in checks."""
    first, second = random.uniform(0, 255, (2, 3))
    turn, period = random.uniform(0, np.pi), random.uniform(6, 24)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kind = int(random.integers(4))
    if kind == 0:
        share = np.full_like(x, 0.1)
    elif kind == 1:
        share = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif kind == 2:
        share = 0.25 * (np.sin(2 * np.pi * along / period) > 0)
    else:
        share = 0.25 * ((np.floor(along / period) + np.floor(across / period)) % 2)
    mixed: Floats = first + (second - first) * np.asarray(share)[..., None]
    return mixed


def _instance(identifier: int, mask: Bools) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    area = float(np.count_nonzero(mask))
    return Instance(identifier, encode_mask(mask), box, area, point=mask_point(mask))
