"""What a device is asked: a picture with a point to time, and prompts with PyTorch's own masks to check it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgesam_mobile.evaluate.probes import PROBES, Probe
from edgesam_mobile.evaluate.reference import reference_model, weights_source
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.protocol.requests import Golden, Label, Point, Prompted
from edgesam_mobile.model import SamPredictor
from edgesam_mobile.model.choice import best_mask
from edgesam_mobile.package.manifest import Manifest
from edgesam_mobile.picture import read_picture


@dataclass(frozen=True)
class Inputs:
    """Pictures, prompts and expected masks of a run, the same for every device.

    Attributes:
        frame: what is timed.
        golden: what is checked; of compressed artefacts, only the boxes (see :meth:`golden_for`).
        files: local files by their paths on a device.
    """

    frame: Prompted
    golden: tuple[Golden, ...]
    files: Mapping[str, Path]

    def golden_for(self, precision: str) -> tuple[Golden, ...]:
        """The prompts to check an artefact of this precision by.

        A box means one mask. For a point, an artefact in integers may show another of four masks that score alike,
        which is no fault of the runtime that executes it.
        """
        if precision in ("fp32", "fp16"):
            return self.golden
        return tuple(golden for golden in self.golden if 2 in golden.labels)


def make_inputs(
    manifest: Manifest, image: Path, folder: Path, *, weights: str | None = None, offline: bool = False
) -> Inputs:
    """Ask PyTorch, and write pictures and masks as the protocol has them.

    Args:
        image: the picture; what is timed is a point at its centre.
        folder: for the files.

    Raises:
        PictureError: the picture cannot be read.
        WeightsError, FetchError: the package's own weights are not at hand.
    """
    picture = read_picture(image)
    height, width = picture.shape[:2]
    predictor = SamPredictor(
        reference_model(manifest, weights_source(manifest, weights, offline=offline), offline=offline),
        score=manifest.mask.score,
    )
    predictor.set_image(picture)
    files: dict[str, Path] = {}
    name = _keep(Image.fromarray(picture), "picture.ppm", folder, files)
    golden = []
    for probe in PROBES:
        if probe.slots() <= manifest.prompt.slots:
            mask, best = _answer(predictor, probe, picture, manifest.mask.point_masks)
            # In a PBM, 1 is black, and Pillow writes what is false as black.
            expected = _keep(Image.fromarray(~mask), "mask.pbm", folder, files)
            points, labels = _slots(probe, height, width)
            golden.append(Golden(image=name, points=points, labels=labels, mask=expected, best=best))
    frame = Prompted(image=name, points=((width / 2, height / 2),), labels=(1,))
    return Inputs(frame, tuple(golden), files)


def _answer(
    predictor: SamPredictor, probe: Probe, picture: NDArray[np.uint8], point_masks: int
) -> tuple[NDArray[np.bool_], int]:
    """PyTorch's mask of the picture's size, and which of the four it is."""
    masks, scores, _ = predictor.predict(num_multimask_outputs=4, **probe.on(*picture.shape[:2]))  # type: ignore[arg-type]
    best = best_mask(scores, has_box=probe.box is not None, point_masks=point_masks)
    return np.asarray(masks[best], bool), best


def _slots(probe: Probe, height: int, width: int) -> tuple[tuple[Point, ...], tuple[Label, ...]]:
    """A prompt as points with labels, in pixels of the picture; a box is its corners with labels 2 and 3."""
    prompted: list[tuple[float, float, Any]] = [(x * width, y * height, label) for x, y, label in probe.points]
    if probe.box is not None:
        x1, y1, x2, y2 = probe.box
        prompted += [(x1 * width, y1 * height, 2), (x2 * width, y2 * height, 3)]
    return tuple((x, y) for x, y, _ in prompted), tuple(label for *_, label in prompted)


def _keep(image: Image.Image, name: str, folder: Path, files: dict[str, Path]) -> str:
    """Write a picture or mask into ``folder`` and note its path on a device."""
    local = folder / f"{len(files)}-{name}"
    image.save(local, "PPM")
    remote = f"inputs/{sha256_of(local)}/{name}"
    files[remote] = local
    return remote
