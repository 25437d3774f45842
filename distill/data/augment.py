"""How a picture is put into the model's frame: as it is, or changed at random, its prompts with it.

Coordinates are continuous: pixel (i, j) covers x from i to i + 1 and y from j to j + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from edgesam_mobile.model.geometry import ResizeLongestSide

if TYPE_CHECKING:
    from distill.recipe import AugmentRecipe

Prompt = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""A box, 4, and a point, 2."""


@dataclass(frozen=True)
class View:
    """What of a picture the frame shows, and how large.

    Attributes:
        original: (height, width) of the picture.
        longest: the longest side of the picture after resizing.
        corner: (top, left) of what is shown, in the resized picture.
        size: (height, width) of what is shown.
        flipped: left and right are exchanged.
    """

    original: tuple[int, int]
    longest: int
    corner: tuple[int, int]
    size: tuple[int, int]
    flipped: bool

    def picture(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture uint8 H x W x 3 as shown, uint8 height x width x 3."""
        (top, left), (height, width) = self.corner, self.size
        shown = ResizeLongestSide(self.longest).apply_image(picture)[top : top + height, left : left + width]
        return shown[:, ::-1] if self.flipped else shown

    def prompt(self, box: npt.ArrayLike, point: npt.ArrayLike) -> Prompt | None:
        """A prompt where the frame shows it.

        Args:
            box: (x1, y1, x2, y2) in pixels of the picture.
            point: (x, y) on the same object.

        Returns:
            The box, clipped to what is shown, and the point, in pixels of the frame; None where the point is not
            shown or the box is empty.
        """
        shown, place = self.box(box), self._moved(np.asarray(point, dtype=np.float64)[None])[0]
        if shown is None or not ((place >= 0).all() and (place <= self.size[::-1]).all()):
            return None
        return shown, place

    def box(self, box: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
        """A box (x1, y1, x2, y2) of the picture, clipped to what is shown; None where nothing of it is."""
        moved = self._moved(np.asarray(box, dtype=np.float64).reshape(2, 2))
        if self.flipped:
            moved[:, 0] = moved[::-1, 0]
        corners = np.clip(moved, 0, self.size[::-1])
        return corners.reshape(4) if (corners[1] > corners[0]).all() else None

    def _moved(self, coordinates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Coordinates N x 2 of the picture in pixels of the frame, wherever they fall."""
        resize = ResizeLongestSide(self.longest)
        moved: npt.NDArray[np.float64] = resize.apply_coords(coordinates, self.original) - self.corner[::-1]
        if self.flipped:
            moved[:, 0] = self.size[1] - moved[:, 0]
        return moved

    def whole(self, image_size: int) -> View:
        """The same view, but of the whole picture, filling the frame."""
        size = ResizeLongestSide(image_size).get_preprocess_shape(*self.original)
        return replace(self, longest=image_size, corner=(0, 0), size=size)


def random_view(original: tuple[int, int], image_size: int, augment: AugmentRecipe, rng: np.random.Generator) -> View:
    """A view chosen at random.

    Args:
        original: (height, width) of the picture.
        augment: ``flip``, the probability of a flip; ``scale``, (lowest, highest) of a factor, uniformly drawn. Below
            1 the picture fills less of the frame; above 1 a random part of it is shown.
    """
    flip, factor, *place = rng.random(4)
    lowest, highest = augment.scale
    longest = max(1, round(image_size * (lowest + (highest - lowest) * factor)))
    height, width = ResizeLongestSide(longest).get_preprocess_shape(*original)
    size = (min(height, image_size), min(width, image_size))
    corner = (int(place[0] * (height - size[0] + 1)), int(place[1] * (width - size[1] + 1)))
    return View(original, longest, corner, size, bool(flip < augment.flip))


def jitter(picture: npt.NDArray[np.uint8], strength: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Change brightness, contrast and saturation, each by a factor from 1 - strength to 1 + strength.

    Args:
        picture: uint8 H x W x 3.
        strength: 0 (the picture is returned as it is) to 1.
    """
    if strength == 0:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    factors = 1 + strength * (2 * rng.random(3) - 1)
    for change, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors.tolist(), strict=True
    ):
        image = change(image).enhance(factor)
    return np.array(image)
