"""What every reader gives: pictures with their objects, addressed by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class CorruptSample(Exception):
    """A sample that cannot be used; whoever reads on counts it and names it.

    Args:
        name: of the sample, as :attr:`Sample.name`.
        reason: one line.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both: it travels between processes, which make it anew from these
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object; coordinates are (x, y) in pixels of the picture.

    Attributes:
        identifier: of the annotation, unique within its source.
        segmentation: as COCO has it: polygons, uncompressed RLE or compressed RLE.
        box: (x1, y1, x2, y2).
        area: in pixels.
        crowd: whether it marks a group; such are never evaluated nor trained on.
        point: the annotation's own prompt, where it has one (SA-1B).
    """

    identifier: int
    segmentation: Any
    box: tuple[float, float, float, float]
    area: float
    crowd: bool = False
    category: int | None = None
    point: tuple[float, float] | None = None

    def mask(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The object as bool ``H x W``; ``size`` is the picture's (height, width).

        Raises:
            ValueError: the segmentation is malformed or made for a picture of another size.
        """
        from edgesam_mobile.evaluate.data.masks import decode_segmentation

        return decode_segmentation(self.segmentation, size)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture as it was published, still encoded, and its objects.

    Attributes:
        name: unique within its source and stable, such as the file's name.
        encoded: the bytes of the JPEG, PNG or WebP file.
        identifier: the picture's number in COCO, LVIS and SA-1B files.
        size: (height, width) that the annotations were made for, where they say.
    """

    name: str
    encoded: bytes
    instances: tuple[Instance, ...] = ()
    identifier: int | None = None
    size: tuple[int, int] | None = None

    def picture(self) -> npt.NDArray[np.uint8]:
        """Decode to RGB, uint8 ``H x W x 3``, rows as stored: annotations do not follow EXIF's rotation.

        Raises:
            CorruptSample: the bytes are not a picture that can be read, or one of another size than annotated.
        """
        from edgesam_mobile.evaluate.data.masks import decode_picture

        picture = decode_picture(self.name, self.encoded)
        if self.size is not None and picture.shape[:2] != self.size:
            (height, width), (high, wide) = self.size, picture.shape[:2]
            raise CorruptSample(self.name, f"annotated at {width} x {height} pixels, the picture has {wide} x {high}")
        return picture


class Source(Protocol):
    """Samples by number, in an order that depends on nothing but the files.

    Attributes:
        spec: how :func:`~edgesam_mobile.evaluate.data.open.open_source` was asked for it.
        shard_sizes: samples per shard (a tar, or a run of a folder); numbers run through the shards, and
            reading those of one shard near each other is what is fast.
    """

    spec: str
    shard_sizes: Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Raises: CorruptSample where the sample's files are damaged; IndexError past the end."""
        ...

    def digest(self) -> str:
        """SHA-256 of what can be told without reading pictures: names, sizes, and a file of all annotations.

        Raises: PictureError where the files cannot be looked at.
        """
        ...
