"""Small pictures with objects, as the data tests need them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distill.recipe import AugmentRecipe, DataRecipe, PromptsRecipe, SourceRecipe
from edgesam_mobile.evaluate.data.samples import Instance, Sample


def png(height: int, width: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def rectangle(identifier: int, size: tuple[int, int], box: tuple[int, int, int, int], **options: object) -> Instance:
    """An object that fills a box (x1, y1, x2, y2), as uncompressed RLE."""
    mask = np.zeros(size, dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    flat = mask.ravel(order="F")
    ends = np.r_[0, np.flatnonzero(np.diff(np.r_[0, flat])), flat.size]
    counts = np.diff(ends).tolist()
    segmentation = {"size": list(size), "counts": counts}
    return Instance(identifier, segmentation, tuple(map(float, box)), float(mask.sum()), **options)  # type: ignore[arg-type]


class Samples:
    """A source of given samples."""

    spec = "samples"

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples
        self.shard_sizes = [len(samples)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def data_recipe(
    *sources: str | tuple[str, float],
    augment: AugmentRecipe | None = None,
    prompts: PromptsRecipe | None = None,
    **options: object,
) -> DataRecipe:
    named = [SourceRecipe(spec=s) if isinstance(s, str) else SourceRecipe(spec=s[0], weight=s[1]) for s in sources]
    named = named or [SourceRecipe(spec="samples")]
    parts = {"augment": augment or AugmentRecipe(), "prompts": prompts or PromptsRecipe()}
    return DataRecipe(sources=tuple(named), **{"workers": 0, **parts, **options})  # type: ignore[arg-type]


def write_sa1b(folder: Path, count: int, *, broken: Sequence[int] = ()) -> str:
    """A folder of ``count`` small pictures with one to three objects each, some of them cut short; gives its spec."""
    folder.mkdir()
    for number in range(count):
        height, width = 12 + number % 5, 20 - number % 7
        encoded = png(height, width, number)
        (folder / f"sa_{number}.jpg").write_bytes(encoded[:60] if number in broken else encoded)
        objects = [rectangle(100 * number + k, (height, width), (k, 2, k + 5, 9)) for k in range(1 + number % 3)]
        record = {
            "image": {"image_id": number, "height": height, "width": width},
            "annotations": [
                {
                    "id": found.identifier,
                    "segmentation": found.segmentation,
                    "bbox": [found.box[0], found.box[1], 5, 7],
                    "area": 35,
                    "point_coords": [[found.box[0] + 2.5, 4.5]],
                }
                for found in objects
            ],
        }
        (folder / f"sa_{number}.json").write_text(json.dumps(record))
    return f"sa1b:{folder}"
