"""Masks and pictures as data sets store them, and the point that stands for a mask."""

from __future__ import annotations

import importlib
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.evaluate.data.samples import CorruptSample

# Pillow knows dozens of formats; these are the ones that data sets are published in.
_FORMATS = ("JPEG", "PNG", "WEBP")
# Annotators draw a little past the border; a polygon further out than this share of a side is of another picture.
_BEYOND = 0.1

Bools = npt.NDArray[np.bool_]


def needs(module: str) -> Any:
    """Import a module of the ``eval`` extra.

    Raises:
        EnvironmentMissing: it is not installed; the hint is the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise EnvironmentMissing(f"{package} is not installed", hint='pip install "edgesam-mobile[eval]"') from error


def decode_picture(name: str, encoded: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP to RGB, uint8 ``H x W x 3``.

    Rows are as stored (EXIF's rotation is not applied, since annotations do not follow it); transparency is dropped.

    Raises:
        CorruptSample: the bytes are cut short or damaged, larger than Pillow's limit, or not 8 bits a colour.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
                if image.mode.startswith(("I", "F")):
                    raise CorruptSample(name, "the picture has more than 8 bits a colour")
                return np.array(image.convert("RGB"))
    except CorruptSample:
        raise
    # Pillow's parsers let through what they stumble upon: struct.error, ValueError, KeyError, SyntaxError...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptSample(name, f"not a picture that can be read: {reason}") from error


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> Bools:
    """COCO's polygons, uncompressed RLE or compressed RLE to bool ``H x W``.

    RLE is decoded here, not by pycocotools, which trusts the counts it is given. Polygons are pycocotools' own:
    which pixels an edge takes is a convention.

    Args:
        segmentation: a list of polygons ``[x1, y1, x2, y2, x3, y3, ...]``, or ``{"size": [H, W], "counts": ...}``.
        size: (height, width) of the picture.

    Raises:
        ValueError: the segmentation is malformed or made for a picture of another size.
        EnvironmentMissing: pycocotools is not installed (polygons only).
    """
    if isinstance(segmentation, dict):
        return _decode_rle(segmentation, size)
    if isinstance(segmentation, list | tuple):
        return _draw_polygons(segmentation, size)
    raise ValueError(f"a segmentation is polygons or RLE, not {type(segmentation).__name__}")


def encode_mask(mask: Bools) -> dict[str, Any]:
    """Bool ``H x W`` to compressed RLE that JSON can hold: ``{"size": [H, W], "counts": str}``.

    Raises:
        EnvironmentMissing: pycocotools is not installed.
    """
    encoded = needs("pycocotools.mask").encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def mask_point(mask: Bools) -> tuple[float, float]:
    """The pixel of a mask that lies deepest inside: arg-max of the Euclidean distance to the background.

    Where the object is cut off by the picture's border, the border counts as no edge, as in the published
    protocols. The first pixel, row by row, wins among equals.

    Args:
        mask: bool ``H x W``.

    Returns:
        (x, y), whole numbers: column and row of the pixel.

    Raises:
        ValueError: the mask is empty.
        EnvironmentMissing: scipy is not installed.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("an empty mask has no point")
    # One pixel around the object holds all the background that can be nearest.
    top, left = max(0, int(rows[0]) - 1), max(0, int(columns[0]) - 1)
    part = mask[top : rows[-1] + 2, left : columns[-1] + 2]
    if part.all():  # the object is the whole picture: there is no background but the border
        return float((mask.shape[1] - 1) // 2), float((mask.shape[0] - 1) // 2)
    distance = needs("scipy.ndimage").distance_transform_edt(part)
    y, x = np.unravel_index(int(np.argmax(distance)), part.shape)
    return float(left + x), float(top + y)


def _decode_rle(segmentation: dict[str, Any], size: tuple[int, int]) -> Bools:
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        runs = _parse_counts(counts) if isinstance(counts, str | bytes) else np.array(counts, dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"malformed RLE: {error}") from error
    if (height, width) != size:
        raise ValueError(f"RLE of {width} x {height} pixels on a picture of {size[1]} x {size[0]}")
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(f"malformed RLE: its runs do not fill {width} x {height} pixels")
    values = np.zeros(len(runs), dtype=np.bool_)
    values[1::2] = True
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _parse_counts(text: str | bytes) -> npt.NDArray[np.int64]:
    """Run lengths from COCO's compressed counts.

    Six bits a character, from "0" on: five of a little-endian two's complement number and one that says that more
    follow. From the fourth run on, a number is the difference from the run before the previous one.
    """
    raw = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, dtype=np.uint8).astype(np.int64) - 48
    if not len(raw):
        return raw
    last = (raw & 32) == 0
    if (raw < 0).any() or (raw > 63).any() or not last[-1]:
        raise ValueError("characters that are no run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 8:  # 40 bits are more than any picture has pixels
        raise ValueError("a run longer than any picture")
    place = np.arange(len(raw)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((raw & 31) << (5 * place), starts)
    numbers -= np.where(raw[ends] & 16, np.int64(1) << (5 * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _draw_polygons(polygons: list[Any] | tuple[Any, ...], size: tuple[int, int]) -> Bools:
    height, width = size
    if not len(polygons):
        raise ValueError("no polygon")
    for polygon in polygons:
        try:
            corners = np.array(polygon, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError("a polygon that is no list of numbers") from error
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError("a polygon has at least three corners, x and y each")
        place = corners.reshape(-1, 2) / (width, height)
        if not ((place >= -_BEYOND) & (place <= 1 + _BEYOND)).all():
            raise ValueError(f"a polygon reaches beyond the picture of {width} x {height} pixels")
    coco = needs("pycocotools.mask")
    drawn = coco.decode(coco.merge(coco.frPyObjects([list(map(float, p)) for p in polygons], height, width)))
    return np.ascontiguousarray(drawn, dtype=np.bool_)
