"""How well a model's masks fit annotated objects, prompted with boxes and points taken from the annotations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.evaluate.average_precision import Detections, masks_of
from edgesam_mobile.evaluate.correction import FEWEST, GRID, correction_point
from edgesam_mobile.evaluate.data.masks import mask_point
from edgesam_mobile.evaluate.data.samples import CorruptSample, Instance, Sample, Source
from edgesam_mobile.evaluate.journal import Journal
from edgesam_mobile.evaluate.metrics import BOUNDARY_RATIO, boundary, mask_iou
from edgesam_mobile.evaluate.subjects import Prompt, Subject

PROMPTS = ("box", "centre")
# COCO's classes by the annotation's area in pixels.
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}
# Objects at a time: bounds the masks in memory, whatever the picture holds.
_CHUNK = 32

Bools = NDArray[np.bool_]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        prompts: ``box``: the annotation's box; ``centre``: the arg-max of its mask's distance transform.
        refine: points added one by one, each in the error of the mask before.
        mask: ``first``: the first mask token answers, the published protocol; ``best``: the one that an
            application shows (:mod:`edgesam_mobile.model.choice`).
        limit: the first pictures only; 0 is all.
        seed: of the added points.

    Raises:
        UsageError: a value is not one of these.
    """

    prompts: tuple[str, ...] = PROMPTS
    refine: int = 2
    mask: Literal["first", "best"] = "first"
    limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            if prompt not in PROMPTS:
                raise UsageError(f"no prompt is named {prompt!r}", hint=f"prompts: {', '.join(PROMPTS)}")
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise UsageError("each prompt is named once", hint=f"prompts: {', '.join(PROMPTS)}")
        if self.mask not in ("first", "best"):
            raise UsageError(f"no choice of masks is named {self.mask!r}", hint="first or best")
        if min(self.refine, self.limit, self.seed) < 0:
            raise UsageError("refinement points, limit and seed are not negative")

    @property
    def labels(self) -> list[str]:
        """Names of the results, such as box, box+1, box+2."""
        return [f"{p}+{n}" if n else p for p in self.prompts for n in range(self.refine + 1)]

    def protocol(self) -> dict[str, Any]:
        """The choices behind the numbers, in words; arXiv 2312.06660 leaves most of them to its code."""
        return {
            "mask": "first mask token" if self.mask == "first" else "mask 0 for boxes, best-scored mask for points",
            "resolution": "of the original picture; logits enlarged bilinearly, above 0 is the object",
            "mean": "over objects, not over classes or pictures",
            "box": "the annotation's, cut to the picture",
            "centre": "arg-max of the Euclidean distance transform of the annotated mask at original resolution",
            "refinement": (
                f"1 point a round, uniform over false positives and false negatives on the frame's {GRID} x {GRID} "
                f"grid; none where fewer than {FEWEST} cells are wrong"
            ),
            "boundary_iou": f"boundary of {BOUNDARY_RATIO:.0%} of the picture's diagonal (arXiv 2103.16562)",
            "sizes": "COCO's: area below 32 x 32, below 96 x 96, above",
            "excluded": "crowds",
            "seed": self.seed,
        }


@dataclass
class Mean:
    """Averages over objects, in [0, 1]; None where there are none."""

    objects: int
    miou: float | None
    boundary_iou: float | None
    small: float | None
    medium: float | None
    large: float | None


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        records: per object: its annotation's ``id``, picture's ``index`` and ``name``, ``area``, and in the order of
            :attr:`Settings.labels` ``iou``, ``boundary_iou`` and ``shown`` (which mask an application shows).
        objects: evaluated; ``sizes`` counts them by size.
        skipped: objects that could not be prompted, as (picture, annotation, reason).
        corrupt: pictures that could not be read, as (name, reason).
        detections: masks of a detector's boxes in COCO's results format, where boxes were given.
    """

    settings: Settings
    pictures: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, int, str]] = field(default_factory=list)
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    detections: list[dict[str, Any]] = field(default_factory=list)
    picture_ids: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def objects(self) -> int:
        return len(self.records)

    @property
    def sizes(self) -> dict[str, int]:
        return {name: sum(low <= r["area"] < high for r in self.records) for name, (low, high) in SIZES.items()}

    def mean(self, label: str) -> Mean:
        """Averages of one of :attr:`Settings.labels`."""

        place = self.settings.labels.index(label)

        def of(records: Sequence[dict[str, Any]], key: str = "iou") -> float | None:
            return float(np.mean([r[key][place] for r in records])) if records else None

        sized = {n: of([r for r in self.records if low <= r["area"] < high]) for n, (low, high) in SIZES.items()}
        return Mean(self.objects, of(self.records), of(self.records, "boundary_iou"), **sized)

    def means(self) -> dict[str, dict[str, float | None]]:
        """All averages by label, as JSON."""
        return {label: asdict(self.mean(label)) for label in self.settings.labels}

    def summary(self) -> dict[str, Any]:
        """Counts, averages and what was left out, as JSON."""
        return {
            "pictures": self.pictures,
            "objects": self.objects,
            "sizes": self.sizes,
            "results": self.means(),
            "corrupt": [{"picture": name, "reason": reason} for name, reason in self.corrupt],
            "skipped": [{"picture": name, "object": which, "reason": reason} for name, which, reason in self.skipped],
        }


def evaluate(
    subject: Subject,
    source: Source,
    settings: Settings,
    *,
    boxes: Mapping[int, Detections] | None = None,
    journal: Journal | None = None,
    report: Report = lambda text: None,
) -> Evaluation:
    """Prompt for every object of a data set and compare the masks; one picture is in memory at a time.

    Args:
        boxes: a detector's, by picture id; see :mod:`edgesam_mobile.evaluate.average_precision`.
        journal: notes finished pictures; those it holds are not evaluated again.
        report: told of each picture that is evaluated now.

    Raises:
        PictureError: not one picture could be read, or there is no object to evaluate.
        StorageError: the journal cannot be written.
    """
    result = Evaluation(settings)
    for index in range(pictures_of(source, settings)):
        record = journal.finished.get(index) if journal else None
        if record is None:
            record = _picture(subject, source, index, settings, boxes)
            if journal and "corrupt" not in record:  # damaged files get repaired
                journal.add(record)
            report(_line(record, settings))
        _take(result, record)
    if not result.pictures:
        name, reason = result.corrupt[0]
        raise PictureError(
            f"no picture of {source.spec} can be read, such as {name}: {reason}", hint="check the data"
        )
    if not result.records and boxes is None:
        raise PictureError(f"nothing to evaluate in {source.spec}: no objects", hint="give annotated pictures")
    return result


def pictures_of(source: Source, settings: Settings) -> int:
    """How many pictures an evaluation looks at."""
    return min(len(source), settings.limit) if settings.limit else len(source)


def _picture(
    subject: Subject, source: Source, index: int, settings: Settings, boxes: Mapping[int, Detections] | None
) -> dict[str, Any]:
    """All that is kept of a picture, as JSON."""
    started = time.perf_counter()
    try:
        sample = source[index]
        image = sample.picture()
    except CorruptSample as error:
        return {"index": index, "name": error.name, "corrupt": error.reason}
    usable, skipped = usable_objects(sample, image.shape[:2])
    found = boxes.get(sample.identifier) if boxes and sample.identifier is not None else None
    record: dict[str, Any] = {
        "index": index, "name": sample.name, "id": sample.identifier, "skipped": skipped, "objects": [],
    }  # fmt: skip
    if usable or found:
        subject.set_image(image)
    for start in range(0, len(usable), _CHUNK):
        record["objects"] += _objects(subject, usable[start : start + _CHUNK], image.shape[:2], settings)
    if found:
        record["detections"] = masks_of(subject, found, image.shape[:2], best=settings.mask == "best")
    record["seconds"] = time.perf_counter() - started
    return record


def _take(result: Evaluation, record: dict[str, Any]) -> None:
    if "corrupt" in record:
        result.corrupt.append((record["name"], record["corrupt"]))
        return
    where = {"index": record["index"], "name": record["name"]}
    result.pictures += 1
    result.records += [{**where, **entry} for entry in record["objects"]]
    result.skipped += [(record["name"], identifier, reason) for identifier, reason in record["skipped"]]
    found = record.get("detections", [])
    result.detections += [{**entry, "image_id": record["id"]} for entry in found]
    result.picture_ids += [record["id"]] if record["id"] is not None else []
    result.seconds += record["seconds"]


def _line(record: dict[str, Any], settings: Settings) -> str:
    if "corrupt" in record:
        return f"{record['name']}: {record['corrupt']}"
    ious = [entry["iou"][0] for entry in record["objects"]]
    told = f"{len(ious)} objects, {settings.labels[0]} {np.mean(ious):.3f}" if ious else "no objects"
    return f"{record['name']}: {told}"


@dataclass(frozen=True)
class Target:
    """An object to prompt for, and its box cut to the picture."""

    instance: Instance
    box: NDArray[np.float64]


def usable_objects(sample: Sample, size: tuple[int, int]) -> tuple[list[Target], list[tuple[int, str]]]:
    """Objects to evaluate, and the others but crowds with the reason."""
    usable, skipped = [], []
    limit = np.array([size[1], size[0]] * 2, dtype=np.float64)
    for instance in sample.instances:
        if instance.crowd:
            continue
        box = np.clip(np.array(instance.box, dtype=np.float64), 0, limit)
        try:
            if not instance.mask(size).any():
                skipped.append((instance.identifier, "the mask is empty"))
            elif box[2] <= box[0] or box[3] <= box[1]:
                skipped.append((instance.identifier, "the box is empty"))
            else:
                usable.append(Target(instance, box))
        except ValueError as error:
            skipped.append((instance.identifier, str(error)))
    return usable, skipped


def _objects(
    subject: Subject, chunk: Sequence[Target], size: tuple[int, int], settings: Settings
) -> list[dict[str, Any]]:
    """Results of some objects of the current picture, in the order of the settings' labels."""
    truths = [item.instance.mask(size) for item in chunk]
    edges = [boundary(truth) for truth in truths]
    records: list[dict[str, Any]] = [
        {"id": item.instance.identifier, "area": item.instance.area, "iou": [], "boundary_iou": [], "shown": []}
        for item in chunk
    ]
    for kind in settings.prompts:
        prompts = [first_prompt(kind, item, truth) for item, truth in zip(chunk, truths, strict=True)]
        identifiers = [item.instance.identifier for item in chunk]
        rounds = _rounds(subject, prompts, truths, identifiers, settings, PROMPTS.index(kind))
        for masks, shown in rounds:
            for record, mask, which, truth, edge in zip(records, masks, shown, truths, edges, strict=True):
                record["iou"].append(mask_iou(mask, truth))
                record["shown"].append(int(which))
                record["boundary_iou"].append(mask_iou(boundary(mask), edge))
    return records


def first_prompt(kind: str, item: Target, truth: Bools) -> Prompt:
    """The prompt of one of :data:`PROMPTS`, before any added point."""
    return Prompt(item.box) if kind == "box" else Prompt().with_point(mask_point(truth), 1)


def _rounds(
    subject: Subject,
    prompts: list[Prompt],
    truths: Sequence[Bools],
    identifiers: Sequence[int],
    settings: Settings,
    stream: int,
) -> Iterator[tuple[list[Bools], NDArray[np.int64]]]:
    """Masks of the first prompts, then after each added point, at the picture's size; and which one is to show."""
    best, transform = settings.mask == "best", subject.transform
    logits, shown = subject.answer(prompts, best=best)
    masks = [enlarge(subject, one, truths[0].shape) for one in logits]
    yield masks, shown
    for number in range(settings.refine):
        changed = []
        for i, (truth, identifier) in enumerate(zip(truths, identifiers, strict=True)):
            # The draw belongs to the object, not to the order or the number of those before it.
            random = np.random.default_rng([settings.seed, abs(identifier), stream, number])
            if point := correction_point(logits[i], truth, transform, random):
                prompts[i] = prompts[i].with_point(*point)
                changed.append(i)
        if changed:
            logits[changed], shown[changed] = subject.answer([prompts[i] for i in changed], best=best)
            for i in changed:
                masks[i] = enlarge(subject, logits[i], truths[i].shape)
        yield masks, shown


def enlarge(subject: Subject, logits: NDArray[np.float32], size: tuple[int, ...]) -> Bools:
    """The mask of s x s logits at the picture's (height, width)."""
    return np.asarray(subject.transform.upscale_masks(logits, (size[0], size[1])) > 0)
