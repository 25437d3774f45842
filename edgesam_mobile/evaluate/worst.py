"""The objects a model segments worst, as pictures: the annotation to the left, the model's mask to the right."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesam_mobile.evaluate.accuracy import Evaluation, enlarge, first_prompt, usable_objects
from edgesam_mobile.evaluate.data.samples import Source
from edgesam_mobile.evaluate.subjects import Subject
from edgesam_mobile.picture import overlay, write_png

MOST = 12


def write_worst(subject: Subject, source: Source, result: Evaluation, folder: Path) -> list[Path]:
    """Predict the objects of lowest IoU under the first prompt again and draw them.

    Args:
        result: of this subject on this source.
        folder: gets one PNG an object, named after the subject, its IoU, the picture and the annotation.

    Returns:
        The files written, worst first; at most :data:`MOST`.

    Raises:
        StorageError: the folder cannot be written.
    """
    kind, best = result.settings.prompts[0], result.settings.mask == "best"
    worst = sorted(result.records, key=lambda record: (record["iou"][0], record["id"]))[:MOST]
    written = {}
    current = None
    for record in sorted(worst, key=lambda record: int(record["index"])):
        if record["index"] != current:
            current = record["index"]
            sample = source[current]
            image = sample.picture()
            subject.set_image(image)
        target = next(t for t in usable_objects(sample, image.shape[:2])[0] if t.instance.identifier == record["id"])
        truth = target.instance.mask(image.shape[:2])
        prompt = first_prompt(kind, target, truth)
        mask = enlarge(subject, subject.answer([prompt], best=best).logits[0], truth.shape)
        pair = [overlay(image, each, prompt.points, prompt.labels, prompt.box) for each in (truth, mask)]
        name = f"{subject.name}-{record['iou'][0]:.3f}-{Path(record['name']).stem}-{record['id']}.png"
        write_png(folder / name, np.concatenate(pair, axis=1))
        written[record["id"]] = folder / name
    return [written[record["id"]] for record in worst]
