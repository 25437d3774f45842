"""Mask AP of a detector's boxes: the model segments each box, pycocotools' COCOeval counts.

On LVIS this is COCO's AP over LVIS's annotations, not LVIS's federated AP, which leaves out classes that a picture
was not checked for; it comes out lower than that.
"""

from __future__ import annotations

import contextlib
import io
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesam_mobile.errors import PictureError
from edgesam_mobile.evaluate.data.coco import read_json
from edgesam_mobile.evaluate.data.masks import encode_mask, needs
from edgesam_mobile.evaluate.subjects import Prompt, Subject

_NAMES = ("ap", "ap50", "ap75", "small", "medium", "large")
_CHUNK = 32


@dataclass(frozen=True)
class Detection:
    """One box of a detector: (x1, y1, x2, y2) in pixels of the picture."""

    box: tuple[float, float, float, float]
    category: int
    score: float


Detections = Sequence[Detection]


def read_detections(path: Path, annotations: Path) -> dict[int, list[Detection]]:
    """A detector's boxes by picture, from COCO's results format.

    Args:
        path: a list of ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}``.
        annotations: what they were made for; pictures and categories must be in there.

    Raises:
        PictureError: the file cannot be read, is of another form, or does not fit the annotations.
    """
    content, truth = read_json(path), read_json(annotations)
    if not isinstance(content, list) or not content:
        raise PictureError(f"{path}: no list of detections", hint="give COCO's results format")
    pictures = {picture["id"] for picture in truth["images"]}
    categories = {annotation.get("category_id") for annotation in truth["annotations"]}
    if None in categories:
        raise PictureError(f"{annotations}: annotations without a category", hint="AP is over categories")
    categories |= {category["id"] for category in truth.get("categories", [])}
    found: dict[int, list[Detection]] = {}
    for number, entry in enumerate(content, 1):
        where = f"{path}: detection {number}"
        picture, detection = _detection(where, entry)
        for what, value, known in (("image", picture, pictures), ("category", detection.category, categories)):
            if value not in known:
                hint = "give detections made for these pictures"
                raise PictureError(f"{where} has {what}_id {value}, which {annotations} does not list", hint=hint)
        found.setdefault(picture, []).append(detection)
    return found


def _detection(where: str, entry: Any) -> tuple[int, Detection]:
    try:
        picture, category = operator.index(entry["image_id"]), operator.index(entry["category_id"])
        x, y, width, height, score = (float(value) for value in (*entry["bbox"], entry["score"]))
        if not all(map(math.isfinite, (x, y, width, height, score))):
            raise ValueError("a number that is not finite")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        hint = "each has image_id, category_id, bbox (x, y, width, height) and score"
        raise PictureError(f"{where} is malformed", hint=hint) from error
    return picture, Detection((x, y, x + width, y + height), category, score)


def masks_of(subject: Subject, detections: Detections, size: tuple[int, int], *, best: bool) -> list[dict[str, Any]]:
    """COCO results, without their ``image_id``, of boxes on the subject's current picture.

    A box that lies beside the picture or is empty gets an empty mask: it stays a false positive.
    """
    limit = np.array([size[1], size[0]] * 2, dtype=np.float64)
    results: list[dict[str, Any]] = []
    for start in range(0, len(detections), _CHUNK):
        chunk = detections[start : start + _CHUNK]
        boxes = [np.clip(np.array(d.box), 0, limit) for d in chunk]
        sound = [i for i, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1]]
        logits = dict(zip(sound, subject.answer([Prompt(boxes[i]) for i in sound], best=best).logits, strict=True))
        for i, detection in enumerate(chunk):
            mask = np.zeros(size, dtype=np.bool_)
            if i in logits:
                mask = subject.transform.upscale_masks(logits[i], size) > 0
            result = {"category_id": detection.category, "score": detection.score, "segmentation": encode_mask(mask)}
            results.append(result)
    return results


def average_precision(
    annotations: Path, results: Sequence[dict[str, Any]], pictures: Sequence[int]
) -> dict[str, float | None]:
    """COCO's mask AP over some pictures, in [0, 1]: over IoU 0.5 to 0.95, at 0.5, at 0.75, and by size.

    None where the pictures hold no object of a size.

    Raises:
        PictureError: the annotations cannot be read.
        EnvironmentMissing: pycocotools is not installed.
    """
    coco, cocoeval = needs("pycocotools.coco"), needs("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        truth = coco.COCO()
        truth.dataset = read_json(annotations)
        truth.dataset.setdefault("info", {})
        truth.dataset.setdefault("categories", _categories(truth.dataset["annotations"]))
        for annotation in truth.dataset["annotations"]:
            annotation.setdefault("iscrowd", 0)  # LVIS has none
        truth.createIndex()
        if not results:
            return dict.fromkeys(_NAMES, 0.0)
        # loadRes adds to what it is given.
        judge = cocoeval.COCOeval(truth, truth.loadRes([dict(result) for result in results]), "segm")
        judge.params.imgIds = list(pictures)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(_NAMES, judge.stats[:6], strict=True)}


def _categories(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": identifier} for identifier in sorted({a["category_id"] for a in annotations})]
