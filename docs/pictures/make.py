"""Draws the pictures of masks beside this file; ``python docs/pictures/make.py out`` with a package of MobileSAM's.

``masks.png``: two taps on the coffee picture, by PyTorch and by every runnable artefact.
``edge-sam-open.png``: three boxes, by MobileSAM and by the weights that come with the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from edgesam_mobile import SamPredictor, load_model
from edgesam_mobile.model.choice import best_mask
from edgesam_mobile.package.manifest import read_manifest
from edgesam_mobile.picture import overlay, read_picture, write_png
from edgesam_mobile.runtime.predictor import ArtifactPredictor
from edgesam_mobile.runtime.session import runnable
from edgesam_mobile.weights.registry import DEFAULT

HERE = Path(__file__).parent
COFFEE = HERE.parent.parent / "examples" / "coffee.jpg"
TAPS = ([[290, 150]], [[365, 290]])
BOXES = ([175, 15, 412, 300], [75, 15, 480, 395], [325, 240, 408, 328])


def main(package: Path) -> None:
    picture = read_picture(COFFEE)
    draw_boxes(picture)
    manifest = read_manifest(package)
    torch_predictor = SamPredictor(load_model(manifest.weights.name))
    torch_predictor.set_image(picture)
    columns = [("PyTorch", [_pytorch(torch_predictor, tap, manifest.mask.point_masks) for tap in TAPS])]
    for artifact in manifest.artifacts:
        if runnable(artifact.format) and artifact.id != "tflite-fp32":
            predictor = ArtifactPredictor(package, artifact.id)
            predictor.set_image(picture)
            columns.append((artifact.id, [_artifact(predictor, tap) for tap in TAPS]))
    drawn = [_column(picture, name, masks) for name, masks in columns]
    sheet = Image.fromarray(np.concatenate(drawn, axis=1))
    sheet.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
    write_png(HERE / "masks.png", np.asarray(sheet))


def draw_boxes(picture: np.ndarray) -> None:
    rows = []
    for name in ("mobile-sam", DEFAULT):
        predictor = SamPredictor(load_model(name, image_size=512))
        predictor.set_image(picture)
        masks = [predictor.predict(box=box, num_multimask_outputs=1)[0][0] for box in BOXES]
        shown = [overlay(picture, mask, box=box) for mask, box in zip(masks, BOXES, strict=True)]
        row = np.concatenate(shown, axis=1)
        rows += [_caption(f"{name}, 512 pixels", row.shape[1]), row]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
    write_png(HERE / "edge-sam-open.png", np.asarray(sheet))


def _pytorch(predictor: SamPredictor, tap: list[list[int]], point_masks: int) -> np.ndarray:
    masks, scores, _ = predictor.predict(tap, [1], num_multimask_outputs=4)
    return np.asarray(masks[best_mask(scores, has_box=False, point_masks=point_masks)])


def _artifact(predictor: ArtifactPredictor, tap: list[list[int]]) -> np.ndarray:
    return predictor.full_mask(predictor.decode(predictor.prompt(tap, [1])))


def _column(picture: np.ndarray, name: str, masks: list[np.ndarray]) -> np.ndarray:
    shown = [overlay(picture, mask, tap, [1]) for mask, tap in zip(masks, TAPS, strict=True)]
    return np.concatenate([_caption(name, picture.shape[1]), *shown])


def _caption(text: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, 44), "white")
    ImageDraw.Draw(strip).text((width / 2, 22), text, fill="black", anchor="mm", font_size=30)
    return np.asarray(strip)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
