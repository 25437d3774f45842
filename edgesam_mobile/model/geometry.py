"""Between the pixels of a picture and the square frame the model sees: sizes, prompts and masks.

Sizes are ``(height, width)``, as segment-anything has them; coordinates are ``(x, y)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgesam_mobile.errors import UsageError

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class ResizeLongestSide:
    """Fits pictures into the top left of a square frame, longest side first, and takes results back out.

    Args:
        target_length: side of the model's input frame in pixels.
    """

    def __init__(self, target_length: int = 1024) -> None:
        self.target_length = target_length

    def get_preprocess_shape(self, height: int, width: int) -> tuple[int, int]:
        """The size ``(new_h, new_w)`` of a picture inside the frame; its longest side is ``target_length``.

        A side never falls below 1: a 1 x 5000 picture would otherwise round to no pixels at all.

        Raises:
            UsageError: a side is below 1.
        """
        if height < 1 or width < 1:
            raise UsageError(f"a picture of {width} x {height} pixels has nothing to segment")
        scale = self.target_length / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def apply_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize a picture to its size inside the frame.

        Pillow's bilinear filter, which smooths while it shrinks, is what segment-anything's predictor uses.

        Args:
            image: RGB, uint8 ``H x W x 3``.

        Returns:
            uint8 ``new_h x new_w x 3``.

        Raises:
            UsageError: ``image`` is of another kind.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(
                f"a picture of {image.dtype} and shape {image.shape} is not RGB",
                hint="give uint8 H x W x 3, as read_picture() returns it",
            )
        new_h, new_w = self.get_preprocess_shape(image.shape[0], image.shape[1])
        return np.array(Image.fromarray(image).resize((new_w, new_h), Image.Resampling.BILINEAR))

    def apply_coords(self, coords: npt.ArrayLike, original_size: tuple[int, int]) -> Floats:
        """Take points from the picture into the frame.

        Args:
            coords: ``... x 2``, (x, y) in pixels of the picture.
            original_size: (height, width) of the picture.

        Returns:
            A new array ``... x 2``, (x, y) in pixels of the frame; float32 stays float32, all else
            becomes float64.
        """
        return _scale(coords, self._factors(original_size))

    def apply_boxes(self, boxes: npt.ArrayLike, original_size: tuple[int, int]) -> Floats:
        """Take boxes ``... x 4``, (x1, y1, x2, y2), from the picture into the frame, as ``apply_coords``."""
        return _scale(boxes, np.tile(self._factors(original_size), 2))

    def invert_coords(self, coords: npt.ArrayLike, original_size: tuple[int, int]) -> Floats:
        """Take points ``... x 2``, (x, y), from the frame back into the picture; undoes ``apply_coords``."""
        return _scale(coords, 1.0 / self._factors(original_size))

    def pad_image(self, resized: npt.NDArray[Any], pad_rgb: Sequence[float]) -> npt.NDArray[Any]:
        """Fill the frame below and right of a resized picture with one colour.

        Args:
            resized: ``new_h x new_w x 3``, as ``apply_image`` returns it, of any dtype.
            pad_rgb: the colour, in the units of ``resized``; rounded where its dtype holds integers.

        Returns:
            ``target_length x target_length x 3`` of the same dtype.

        Raises:
            UsageError: ``resized`` does not fit into the frame.
        """
        side = self.target_length
        if resized.ndim != 3 or resized.shape[2] != 3 or max(resized.shape[:2]) > side:
            raise UsageError(f"a picture of shape {resized.shape} does not fit a {side} x {side} frame")
        colour = np.asarray(pad_rgb, dtype=np.float64)
        if np.issubdtype(resized.dtype, np.integer):
            colour = np.rint(colour)
        frame = np.empty((side, side, 3), dtype=resized.dtype)
        frame[:] = colour.astype(resized.dtype)
        frame[: resized.shape[0], : resized.shape[1]] = resized
        return frame

    def upscale_masks(
        self, low_res: npt.NDArray[np.float32], original_size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """Mask logits at the picture's own resolution, without the frame's padding.

        segment-anything enlarges the logits to the whole frame, crops the picture's part and resizes that,
        both times bilinearly. Each of these is linear and treats rows and columns apart, so all three
        together are one matrix an axis. Multiplying by these gives the same numbers without the
        1024 x 1024 maps in between, and needs neither torch nor its interpolation on the target.

        Args:
            low_res: logits, float32 ``... x h x w``, which cover the whole padded frame.
            original_size: (height, width) of the picture.

        Returns:
            Logits, float32 ``... x height x width``; above 0 is the object.
        """
        height, width = original_size
        new_h, new_w = self.get_preprocess_shape(height, width)
        low = np.asarray(low_res, dtype=np.float32)
        rows = _axis_matrix(low.shape[-2], self.target_length, new_h, height)
        columns = _axis_matrix(low.shape[-1], self.target_length, new_w, width)
        upscaled: npt.NDArray[np.float32] = np.matmul(np.matmul(rows, low), columns.T, dtype=np.float32)
        return upscaled

    @staticmethod
    def check_points(
        coords: npt.ArrayLike, labels: npt.ArrayLike, original_size: tuple[int, int]
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Check a point prompt against its picture and bring it into one form.

        Args:
            coords: ``N x 2`` with N at least 1, (x, y) in pixels, 0 <= x <= width and 0 <= y <= height.
            labels: ``N``, 1 for foreground, 0 for background.
            original_size: (height, width) of the picture.

        Returns:
            Coordinates float64 ``N x 2`` and labels int64 ``N``.

        Raises:
            UsageError: a shape, a label or a place is not as above; the first that is not, is named.
        """
        points = _numbers(coords, "point coordinates")
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise UsageError(f"point coordinates have shape {points.shape}", hint="give N x 2: (x, y) each")
        kinds = _numbers(labels, "point labels")
        if kinds.shape != (len(points),):
            raise UsageError(f"{len(points)} points, labels of shape {kinds.shape}", hint="one label a point")
        wrong = kinds[(kinds != 0) & (kinds != 1)]
        if len(wrong):
            raise UsageError(f"{wrong[0]:g} is no point label", hint="1 is foreground, 0 is background")
        beyond = points[_outside(points, original_size)]
        if len(beyond):
            raise UsageError(f"point ({_shown(beyond[0])}) is outside the picture", hint=_extent(original_size))
        return points, kinds.astype(np.int64)

    @staticmethod
    def check_box(box: npt.ArrayLike, original_size: tuple[int, int]) -> Floats:
        """Check a box prompt against its picture and bring it into one form.

        Args:
            box: (x1, y1, x2, y2) in pixels, x1 < x2 and y1 < y2, within 0..width and 0..height.
            original_size: (height, width) of the picture.

        Returns:
            float64 ``4``.

        Raises:
            UsageError: the shape, the order or the place is not as above.
        """
        corners = _numbers(box, "box")
        if corners.shape != (4,):
            raise UsageError(f"the box has shape {corners.shape}", hint="give four numbers: x1, y1, x2, y2")
        if corners[2] <= corners[0] or corners[3] <= corners[1]:
            raise UsageError(f"box ({_shown(corners)}) is empty", hint="give x1, y1, x2, y2: x1 < x2, y1 < y2")
        if _outside(corners.reshape(2, 2), original_size).any():
            raise UsageError(f"box ({_shown(corners)}) is outside the picture", hint=_extent(original_size))
        return corners

    @staticmethod
    def check_mask(mask_input: npt.ArrayLike, side: int) -> npt.NDArray[np.float32]:
        """Check a mask prompt and bring it into one form.

        Args:
            mask_input: logits ``1 x side x side``, usually from an earlier answer.
            side: of the low-resolution masks, a quarter of the frame's.

        Returns:
            float32 ``1 x side x side``.

        Raises:
            UsageError: the shape is another, or a number is not finite in single precision.
        """
        with np.errstate(over="ignore"):  # what single precision cannot hold becomes infinite
            logits = _numbers(mask_input, "mask_input").astype(np.float32)
        if logits.shape != (1, side, side):
            raise UsageError(f"mask_input is 1 x {side} x {side} logits, not {logits.shape}")
        if not np.isfinite(logits).all():
            raise UsageError("mask_input: not every number is finite in single precision")
        return logits

    def _factors(self, original_size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Frame pixels a picture pixel, (x, y); the two differ a little, since each side is rounded."""
        height, width = original_size
        new_h, new_w = self.get_preprocess_shape(height, width)
        return np.array([new_w / width, new_h / height])


def _numbers(values: npt.ArrayLike, what: str) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: not an array of numbers") from error
    if not np.isfinite(numbers).all():
        raise UsageError(f"{what}: not every number is finite")
    return numbers


def _outside(points: npt.NDArray[np.float64], original_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    limit = np.array([original_size[1], original_size[0]], dtype=np.float64)
    return np.asarray(np.any((points < 0) | (points > limit), axis=1))


def _shown(numbers: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{number:.10g}" for number in numbers)


def _extent(original_size: tuple[int, int]) -> str:
    height, width = original_size
    return f"the picture is {width} wide and {height} high; coordinates are (x, y) in its pixels"


def _scale(coords: npt.ArrayLike, factors: npt.NDArray[np.float64]) -> Floats:
    values = np.asarray(coords)
    scaled: npt.NDArray[np.float64] = values * factors
    return scaled.astype(np.float32) if values.dtype == np.float32 else scaled


def _taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Which two samples each of ``target`` bilinear samples mixes, and the share of the second.

    As torch's ``interpolate(mode="bilinear", align_corners=False)``: sample centres are half a step in, and
    what falls outside the first and last centre takes their value.
    """
    places = (np.arange(target) + 0.5) * (source / target) - 0.5
    places = np.clip(places, 0.0, source - 1)
    first = np.floor(places).astype(np.intp)
    return first, np.minimum(first + 1, source - 1), places - first


@lru_cache(maxsize=8)
def _axis_matrix(low_len: int, target_length: int, cropped_len: int, original_len: int) -> npt.NDArray[np.float32]:
    """The matrix ``original_len x low_len`` that enlarges one axis, crops it and resizes it.

    Shared by all callers, hence read-only. At most 1 KiB a pixel of the picture's side for 256 logits, and a
    picture needs two: the cache stays in the tens of MiB.
    """
    first, second, share = _taps(low_len, target_length)
    enlarge = np.zeros((target_length, low_len))
    every = np.arange(target_length)
    enlarge[every, first] += 1.0 - share
    enlarge[every, second] += share

    first, second, share = _taps(cropped_len, original_len)
    matrix = ((1.0 - share)[:, None] * enlarge[first] + share[:, None] * enlarge[second]).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
