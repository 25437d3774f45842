"""SA-1B as it is published (arXiv 2304.02643): ``sa_N.jpg`` beside ``sa_N.json``, in tars or unpacked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgesam_mobile.evaluate.data.folders import find_shards
from edgesam_mobile.evaluate.data.samples import CorruptSample, Instance, Sample


class Sa1bSource:
    """Pictures with class-agnostic masks as compressed RLE and a point on each; JSON is read sample by sample.

    Raises:
        PictureError: nothing is there, a tar is damaged or compressed, or no picture is found.
    """

    def __init__(self, spec: str, path: Path) -> None:
        self.spec = spec
        self._shards = find_shards(path, annotated=True)
        self.shard_sizes: Sequence[int] = self._shards.sizes

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Sample:
        shard, number = self._shards.place(index)
        name = shard.name(number)
        encoded = shard.picture(number)
        try:
            record = json.loads(shard.annotations(number))
            size = (int(record["image"]["height"]), int(record["image"]["width"]))
            instances = tuple(_instance(annotation, size) for annotation in record["annotations"])
            return Sample(name, encoded, instances, int(record["image"]["image_id"]), size)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise CorruptSample(name, f"its annotations cannot be read: {_told(error)}") from error

    def digest(self) -> str:
        return self._shards.digest()


def _instance(annotation: dict[str, Any], size: tuple[int, int]) -> Instance:
    identifier = int(annotation["id"])
    segmentation = annotation["segmentation"]
    if tuple(segmentation["size"]) != size:
        height, width = segmentation["size"]
        raise ValueError(f"mask {identifier} is of {width} x {height} pixels, its picture of {size[1]} x {size[0]}")
    x, y, width, height = (float(number) for number in annotation["bbox"])
    point_x, point_y = (float(number) for number in annotation["point_coords"][0])
    box = (x, y, x + width, y + height)
    return Instance(identifier, segmentation, box, float(annotation["area"]), point=(point_x, point_y))


def _told(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
