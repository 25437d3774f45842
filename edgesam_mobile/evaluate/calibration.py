"""Sets of real pictures and prompts to calibrate with, from any data set or from the pictures that come along."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.deploy.calibration import Calibration, Points, View
from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.evaluate.accuracy import usable_objects
from edgesam_mobile.evaluate.data.masks import mask_point
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.evaluate.data.samples import CorruptSample, Sample
from edgesam_mobile.evaluate.probes import PROBES, Probe, builtin_pictures
from edgesam_mobile.picture import read_picture

BUILTIN = "built-in pictures"
RANDOM = "random"
_OBJECTS = 3  # of a picture, from the largest to the smallest, each prompted by its box and by its centre
# Shares of the built-in pictures that count as pictures of their own: whole, and closer to parts of it.
_CROPS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.7, 0.7),
    (0.3, 0.3, 1.0, 1.0),
    (0.25, 0.25, 0.75, 0.75),
    (0.4, 0.0, 1.0, 0.6),
)
# Without them, ranges of a decoder are those of objects that fill the picture.
_SMALL_BOXES = tuple(
    Probe("small box", box=(x, y, x + side, y + side))
    for x, y, side in ((0.1, 0.2, 0.02), (0.45, 0.5, 0.04), (0.8, 0.3, 0.06), (0.3, 0.75, 0.1), (0.6, 0.6, 0.2))
)


def calibration_set(spec: str | None, count: int) -> tuple[Calibration, list[str]]:
    """Pictures and prompts to measure ranges on.

    Args:
        spec: a data set (:data:`~edgesam_mobile.evaluate.data.open.FORMS`); annotated objects are prompted by box and
            centre, pictures without annotations by a fixed set of points and boxes. ``random:N`` for noise, which
            no photograph resembles. ``None`` takes parts of the two pictures that come with the package.
        count: pictures to take, spread evenly over the set.

    Returns:
        The set, and what the user should know about it.

    Raises:
        UsageError: no such kind of data.
        PictureError: the data cannot be read or holds no picture.
    """
    if spec is None:
        crops = tuple(View(part, probes(part)) for part in _builtin_parts())
        hint = "calibrated on two built-in pictures; --calibration names your own, such as images:FOLDER"
        return Calibration(BUILTIN, len(builtin_pictures()), crops), [hint]
    if spec.partition(":")[0] == RANDOM:
        return _random(spec), ["calibrated on random numbers: ranges of real pictures are others"]
    views, warnings = [], []
    source = open_source(spec)
    for index in _spread(len(source), count):
        try:
            sample = source[index]
            image = sample.picture()
        except CorruptSample as error:
            warnings.append(f"{error.name} left out of the calibration: {error.reason}")
            continue
        views.append(View(image, _prompts(sample, image)))
    if not views:
        raise PictureError(f"no picture of {spec} can be read", hint="check the data")
    if len(views) == 1:
        warnings.append("calibrated on a single picture: ranges of others may be wider")
    return Calibration(spec, len(views), tuple(views)), warnings


def _spread(total: int, count: int) -> list[int]:
    """``count`` numbers spread evenly over ``total``, or all."""
    return sorted({int(place) for place in np.linspace(0, total - 1, min(count, total)).round()}) if total else []


def _prompts(sample: Sample, image: NDArray[np.uint8]) -> tuple[tuple[Points, Points], ...]:
    size = image.shape[:2]
    by_area = sorted(usable_objects(sample, size)[0], key=lambda target: -target.instance.area)
    if not by_area:
        return probes(image)
    prompts = []
    for target in (by_area[place] for place in _spread(len(by_area), _OBJECTS)):
        prompts.append((target.box.reshape(2, 2).astype(np.float32), np.array([2, 3], np.float32)))
        centre = np.array([mask_point(target.instance.mask(size))], np.float32)
        prompts.append((centre, np.array([1], np.float32)))
    return tuple(prompts)


def probes(image: NDArray[np.uint8]) -> tuple[tuple[Points, Points], ...]:
    """The prompts that artefacts are verified with, and boxes of small objects, in pixels of a picture."""
    scale = np.array([image.shape[1], image.shape[0]], np.float32)
    prompts = []
    for probe in (*PROBES, *_SMALL_BOXES):
        corners = np.reshape(probe.box, (2, 2)) if probe.box else np.zeros((0, 2))
        places = np.array([*((x, y) for x, y, _ in probe.points), *corners], np.float32)
        labels = [*(label for _, _, label in probe.points), *([2, 3] if probe.box else [])]
        prompts.append((places * scale, np.array(labels, np.float32)))
    return tuple(prompts)


def _builtin_parts() -> Iterator[NDArray[np.uint8]]:
    for path in builtin_pictures():
        image = read_picture(path)
        height, width = image.shape[:2]
        for left, top, right, bottom in _CROPS:
            yield image[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def _random(spec: str) -> Calibration:
    count = spec.partition(":")[2]
    if not (count.isdecimal() and count.isascii() and int(count)):
        raise UsageError(f"{spec!r} is not random:N", hint="such as random:8")
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(int(count))]
    return Calibration(spec, int(count), tuple(View(image, probes(image)) for image in images), real=False)
