"""Writes the fixtures of the Java tests from the Python side: ``python android_harness/tools/make_fixtures.py``.

For each case a picture, the frame that the encoder sees, logits, and the mask at the picture's size. A logit near the
threshold could fall on either side by the order of additions alone; the cases have none within ``MARGIN``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from edgesam_mobile.model.choice import stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide

FIXTURES = Path(__file__).parents[1] / "core" / "src" / "test" / "resources" / "fixtures"
PAD = (123.675, 116.28, 103.53)
# Width, height and frame: shrinking, enlarging, neither, one side below a pixel, and sides that round.
CASES = [(37, 23, 16), (20, 31, 64), (32, 32, 32), (3, 90, 24), (61, 48, 40)]
MARGIN = 1e-4


def write_fixtures(folder: Path) -> None:
    """Write every case into ``folder``, always the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, (width, height, size) in enumerate(CASES):
        random = np.random.default_rng(number)
        transform = ResizeLongestSide(size)
        picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        frame = transform.pad_image(transform.apply_image(picture), PAD)
        logits, mask = logits_and_mask(transform, (height, width), random)
        Image.fromarray(picture).save(folder / f"{number}.ppm")
        Image.fromarray(frame).save(folder / f"{number}.frame.ppm")
        (folder / f"{number}.logits").write_bytes(logits.astype("<f4").tobytes())
        Image.fromarray(~mask).save(folder / f"{number}.pbm")  # Pillow writes black, which is 1, for False
        point = [0.3 * width, 0.7 * height]
        framed = transform.apply_coords(np.array([point], np.float64), (height, width))[0].astype(np.float32)
        case = {"size": size, "point": point, "framed": [float(value) for value in framed]}
        cases.append(case | {"stability": float(stability_score(logits))})
    times = np.random.default_rng(0).gamma(2, 10, size=38)
    percentiles = {str(percent): float(np.percentile(times, percent)) for percent in (0, 10, 50, 90, 99, 100)}
    statistics = {"times": times.tolist(), "percentiles": percentiles}
    (folder / "cases.json").write_text(json.dumps({"pad_rgb": PAD, "cases": cases, "statistics": statistics}) + "\n")


def logits_and_mask(
    transform: ResizeLongestSide, size: tuple[int, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a quarter of the frame's side, and their mask."""
    side = transform.target_length // 4
    while True:
        logits = random.normal(size=(side, side)).astype(np.float32)
        upscaled = transform.upscale_masks(logits, size)
        if np.abs(upscaled).min() > MARGIN:
            return logits, upscaled > 0


if __name__ == "__main__":
    write_fixtures(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURES)
