"""A package's accuracy table: every artefact beside the PyTorch model that it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.accuracy import Evaluation
from edgesam_mobile.files import atomic_file
from edgesam_mobile.package.card import CARD_NAME, model_card
from edgesam_mobile.package.manifest import Accuracy, AccuracyRow, Manifest, read_manifest, write_manifest
from edgesam_mobile.runtime.session import Arithmetic, runtime_of

_BUDGET = re.compile(r"miou_drop\s*<=\s*(\d+(?:\.\d+)?)")


def parse_budget(text: str) -> float:
    """Points of mean IoU in ``miou_drop<=0.5``.

    Raises:
        UsageError: it is not of that form.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"no budget {text!r}", hint='such as "miou_drop<=0.5", in points of mean IoU')
    return float(found[1])


def accuracy_table(
    manifest: Manifest,
    data: str,
    reference: Evaluation,
    artefacts: Mapping[str, Evaluation],
    *,
    arithmetic: Arithmetic,
    budget: float | None = None,
) -> Accuracy:
    """What was found, as the manifest keeps it; all evaluations are of the same data and settings, with objects."""
    rows = [
        AccuracyRow(
            artifact=name,
            executed_by=runtime_of(manifest.artifact(name).format, arithmetic),
            bytes=sum(graph.file.bytes for graph in manifest.artifact(name).graphs().values()),
            miou=_means(found, "miou"),
            boundary_iou=_means(found, "boundary_iou"),
            same_best=_same_best(found, reference),
        )
        for name, found in artefacts.items()
    ]
    return Accuracy(
        data=data,
        pictures=reference.pictures,
        objects=reference.objects,
        protocol={name: str(said) for name, said in reference.settings.protocol().items()},
        measured=datetime.now(UTC).strftime("%Y-%m-%d"),
        reference=_means(reference, "miou"),
        budget=budget,
        rows=rows,
    )


def over_budget(table: Accuracy) -> list[str]:
    """Artefacts that lose more of the first prompt's mean IoU than the budget allows."""
    if table.budget is None:
        return []
    first = next(iter(table.reference))
    return [row.artifact for row in table.rows if table.reference[first] - row.miou[first] > table.budget]


def record(package: Path, table: Accuracy) -> None:
    """Put the table into a package's manifest and model card.

    Raises:
        StorageError: the package cannot be written.
    """
    manifest = read_manifest(package).model_copy(update={"accuracy": table})
    write_manifest(package, manifest)
    with atomic_file(package / CARD_NAME) as path:
        path.write_text(model_card(manifest), encoding="utf-8")


def _means(found: Evaluation, kind: str) -> dict[str, float]:
    means = {label: getattr(found.mean(label), kind) for label in found.settings.labels}
    return {label: round(100 * value, 3) for label, value in means.items() if value is not None}


def _same_best(found: Evaluation, reference: Evaluation) -> float | None:
    """Of the prompts that are the same for both: those before any added point, and not boxes, which mean mask 0."""
    if "centre" not in found.settings.labels:
        return None
    place = found.settings.labels.index("centre")
    expected = {_key(entry): entry["shown"][place] for entry in reference.records}
    same: Sequence[bool] = [entry["shown"][place] == expected[_key(entry)] for entry in found.records]
    return sum(same) / len(same)


def _key(entry: Mapping[str, object]) -> tuple[object, object]:
    return entry["index"], entry["id"]
