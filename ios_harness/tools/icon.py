"""Draws the app's icon: ``python -m ios_harness.tools.icon``. An object, the tap on it, and the mask that answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

APP = Path(__file__).parents[1] / "App"
NAME = "AppIcon"
_SIDE = 1024  # pixels: Xcode 14 and later make all other sizes of this one
_GROUND, _MASK, _TAP = (24, 30, 44), (255, 148, 0), (255, 255, 255)
_INFO = {"author": "xcode", "version": 1}


def icon() -> Image.Image:
    """The icon, 1024 x 1024 and opaque, as Apple wants it."""
    y, x = np.mgrid[:_SIDE, :_SIDE] + 0.5
    across, down = x - _SIDE / 2, y - _SIDE / 2
    turn = np.arctan2(down, across)
    edge = 330 + 34 * np.cos(3 * turn + 0.5) + 20 * np.cos(2 * turn - 1.0)
    pixels = np.empty((_SIDE, _SIDE, 3))
    pixels[:] = _GROUND
    away = np.hypot(across, down)
    _paint(pixels, edge - away, _MASK)
    tapped = np.hypot(across + 60, down - 40)
    _paint(pixels, 26 - abs(tapped - 110), _GROUND)
    _paint(pixels, 62 - tapped, _TAP)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _paint(pixels: np.ndarray, inside: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Where ``inside``, in pixels from the edge, is positive; a pixel on the edge in part."""
    share = np.clip(inside + 0.5, 0, 1)[..., None]
    pixels += share * (np.array(colour) - pixels)


def write_icon(app: Path) -> Path:
    """Write the catalogue of assets into the folder of the app's sources.

    Returns:
        The catalogue's own folder.
    """
    catalogue = app / "Assets.xcassets"
    folder = catalogue / f"{NAME}.appiconset"
    folder.mkdir(parents=True, exist_ok=True)
    image = {"filename": "icon.png", "idiom": "universal", "platform": "ios", "size": f"{_SIDE}x{_SIDE}"}
    for place, content in ((catalogue, {}), (folder, {"images": [image]})):
        (place / "Contents.json").write_text(json.dumps(content | {"info": _INFO}, indent=2) + "\n")
    icon().save(folder / "icon.png", optimize=True)
    return catalogue


if __name__ == "__main__":
    print(write_icon(APP))
