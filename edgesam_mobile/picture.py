"""Reading photographs as a person sees them, writing masks, and drawing the one over the other."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.files import atomic_file

# The photographs that come along, cat.jpg and coffee.jpg: CC0, see examples/README.md.
PICTURES = Path(__file__).with_name("pictures")

# Pillow knows dozens of formats, some of which start other programs (EPS) or claim almost any bytes (PCX);
# these are the ones photographs come in.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_CONVERT = "convert it to an 8-bit JPEG or PNG"
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR = 258, 262, 284

_MASK, _OPACITY = (30, 144, 255), 0.45
_FOREGROUND, _BACKGROUND, _BOX, _WHITE = (24, 190, 92), (226, 48, 60), (255, 200, 40), (255, 255, 255)
# Markers are drawn this many times larger and shrunk: ImageDraw itself does not smooth edges.
_SMOOTH = 8


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture file: upright, in colour, without transparency.

    EXIF orientation is applied. Grey, palette, CMYK and 1-bit pictures become RGB; transparent parts lie on
    white; of several frames the first is read. Grey samples of 9 to 16 bits are rounded to 8 bits over their
    whole range (value / 257 for 16 bits); of 16-bit colour Pillow keeps the upper byte, at most 1 of 255
    away from that. Colour profiles are not applied, as segment-anything does not apply them.

    Args:
        path: a JPEG, PNG, WebP, TIFF, BMP, GIF, PPM/PGM, JPEG 2000 or AVIF file.

    Returns:
        RGB samples, uint8 ``H x W x 3``, 0 to 255.

    Raises:
        PictureError: the file is missing, empty, no picture, damaged, cut short, larger than Pillow's limit
            ``Image.MAX_IMAGE_PIXELS``, of a layout Pillow scrambles, or its samples have no agreed brightness
            (float, 32-bit, LAB).
    """
    with _opened(path) as stream, _decoding_errors(path):
        image = Image.open(stream, formats=_FORMATS)
        _refuse_misread(image, path)
        inverted, peak = _wide_samples(image)
        upright = ImageOps.exif_transpose(image)
        if not upright.mode.startswith("I;16"):
            return _to_rgb(upright)
        grey = _to_8_bit(np.asarray(upright), peak)
        if inverted:
            grey = 255 - grey
        if isinstance(clear := upright.info.get("transparency"), int):
            grey[np.asarray(upright) == clear] = 255
        return np.repeat(grey[..., None], 3, axis=2)


def write_png(path: Path, array: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> None:
    """Write a picture or a mask as PNG, whatever the suffix of ``path``; replaces a file there as a whole.

    Args:
        path: where to write; missing folders are made.
        array: uint8 ``H x W`` (grey) or ``H x W x 3`` (RGB), or bool ``H x W`` (written as 0 and 255).

    Raises:
        UsageError: ``array`` is of another kind or empty.
        StorageError: the file cannot be written; what was at ``path`` is then untouched.
    """
    mask = array.dtype == np.bool_ and array.ndim == 2
    picture = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
    if not (mask or picture) or array.size == 0:
        raise UsageError(
            f"cannot write {array.dtype} of shape {array.shape} as PNG",
            hint="give uint8 H x W or H x W x 3, or bool H x W",
        )
    image = Image.fromarray(array.astype(np.uint8) * 255 if mask else array)
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


def overlay(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_],
    points: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    box: npt.ArrayLike | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a mask and the prompt it came from over a picture; line and dot sizes follow the picture's.

    Args:
        image: RGB, uint8 ``H x W x 3``.
        mask: bool ``H x W``, true on the object.
        points: ``N x 2``, (x, y) in pixels of ``image``.
        labels: ``N``, 1 for foreground (green), 0 for background (red); all foreground when absent.
        box: (x1, y1, x2, y2) in pixels of ``image``.

    Returns:
        A new picture, uint8 ``H x W x 3``.

    Raises:
        UsageError: ``mask`` has another size than ``image``, or ``labels`` another length than ``points``.
    """
    if mask.shape != image.shape[:2]:
        raise UsageError(f"a mask of {mask.shape} does not fit a picture of {image.shape[:2]}")
    stroke = max(1, round(max(mask.shape) / 300))
    canvas = Image.fromarray(_tint(image, mask.astype(np.bool_), stroke))
    if box is not None:
        _draw_box(canvas, np.asarray(box, dtype=np.float64).reshape(4), stroke)
    if points is not None:
        coords = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        kinds = np.ones(len(coords)) if labels is None else np.asarray(labels).reshape(-1)
        if len(kinds) != len(coords):
            raise UsageError(f"{len(coords)} points with {len(kinds)} labels")
        for (x, y), kind in zip(coords, kinds, strict=True):
            _draw_dot(canvas, x, y, 3.0 * stroke, _FOREGROUND if kind == 1 else _BACKGROUND)
    return np.array(canvas)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if not path.exists():
            raise PictureError(f"no such file: {path}", hint="check the path")
        if not path.is_file():
            raise PictureError(f"not a file: {path}", hint="give the path of one picture file")
        if path.stat().st_size == 0:
            raise PictureError(f"the file is empty: {path}", hint="copy or download it again")
        stream = path.open("rb")
    except OSError as error:
        raise PictureError(f"cannot open {path}: {error.strerror}", hint="check its permissions") from error
    with stream:
        yield stream


@contextmanager
def _decoding_errors(path: Path) -> Iterator[None]:
    """Turn whatever Pillow makes of a bad file into one ``PictureError``, and its remarks into silence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except PictureError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        hint = f"shrink it to at most {Image.MAX_IMAGE_PIXELS} pixels"
        raise PictureError(f"the picture is too large to open safely: {path}", hint=hint) from error
    except UnidentifiedImageError as error:
        hint = "JPEG, PNG, WebP and TIFF are; convert others (HEIC, RAW), copy or download damaged ones again"
        raise PictureError(f"not a picture that can be read: {path}", hint=hint) from error
    # Pillow's parsers let through what they stumble upon: struct.error, ValueError, KeyError, SyntaxError...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "the file is damaged or cut short: copy or download it again"
        raise PictureError(f"cannot read {path}: {reason}", hint=hint) from error


def _refuse_misread(image: ImageFile.ImageFile, path: Path) -> None:
    """Raise for pictures that Pillow opens but whose samples it scrambles or whose range nobody defined."""
    # A 16-bit PGM also opens as 32-bit integers, but Pillow scales it to 0..65535.
    if image.mode in {"F", "LAB"} or (image.mode == "I" and image.format != "PPM"):
        raise PictureError(f"pixels of kind {image.mode} have no agreed brightness: {path}", hint=_CONVERT)
    if "transparency" in image.info and any(tile.args == "RGB;16B" for tile in image.tile):
        raise PictureError(f"16-bit colour PNG with one transparent colour: {path}", hint=_CONVERT)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        planes = image.tag_v2.get(_TIFF_PLANAR) == 2 and len(image.getbands()) > 1
        if planes and max(image.tag_v2.get(_TIFF_BITS, (8,))) > 8:
            raise PictureError(f"16-bit TIFF with separate colour planes: {path}", hint=_CONVERT)


def _wide_samples(image: Image.Image) -> tuple[bool, int]:
    """Whether wide grey samples count from white, and their largest value: Pillow leaves both undone."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False, 65535
    bits = max(image.tag_v2.get(_TIFF_BITS, (1,)))
    return image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0, int(2**bits - 1)


def _to_8_bit(samples: npt.NDArray[np.generic], peak: int) -> npt.NDArray[np.uint8]:
    scaled = (samples.astype(np.uint32) * 255 + peak // 2) // peak
    return scaled.astype(np.uint8)


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode == "I":
        return np.repeat(_to_8_bit(np.asarray(image), 65535)[..., None], 3, axis=2)
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (*_WHITE, 255))
    return np.array(Image.alpha_composite(white, layer).convert("RGB"))


def _tint(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], stroke: int) -> npt.NDArray[np.uint8]:
    """Colour the mask's inside and line its edge in white, ``stroke`` pixels wide, within the mask."""
    inside = mask
    for step in range(stroke):
        inside = _shrink(inside, diagonal=step % 2 == 1)
    colour, white = np.array(_MASK, dtype=np.float32), np.array(_WHITE, dtype=np.float32)
    tinted = image.astype(np.float32)
    tinted[mask] += (colour - tinted[mask]) * _OPACITY
    edge = mask & ~inside
    tinted[edge] += (white - tinted[edge]) * 0.9
    return (tinted + 0.5).astype(np.uint8)


def _shrink(mask: npt.NDArray[np.bool_], *, diagonal: bool) -> npt.NDArray[np.bool_]:
    """Take one pixel off the mask's edge, not where the picture ends; alternating ``diagonal`` rounds it."""
    height, width = mask.shape
    around = np.pad(mask, 1, mode="edge")
    result = mask.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if diagonal or dy == 0 or dx == 0:
                result &= around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
    return result


def _draw_box(canvas: Image.Image, box: npt.NDArray[np.float64], stroke: int) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    # The far edges belong to the last pixel inside, so that a box over the whole picture stays visible.
    corners = (left, top, max(left, right - 1), max(top, bottom - 1))
    ImageDraw.Draw(canvas).rectangle(corners, outline=_BOX, width=stroke)


def _draw_dot(canvas: Image.Image, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    rim = radius * 1.4
    left, top = math.floor(x - rim), math.floor(y - rim)
    side = math.ceil(2 * rim) + 2
    shape = Image.new("L", (side * _SMOOTH, side * _SMOOTH))
    for size, fill in ((rim, _WHITE), (radius, colour)):
        shape.paste(0, (0, 0, *shape.size))
        centre = ((x - left) * _SMOOTH, (y - top) * _SMOOTH)
        reach = size * _SMOOTH
        spot = (centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach)
        ImageDraw.Draw(shape).ellipse(spot, fill=255)
        canvas.paste(fill, (left, top), shape.resize((side, side), Image.Resampling.BOX))
