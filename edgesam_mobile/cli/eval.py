"""``edgesam-mobile eval``: how well masks fit annotated objects, for weights and for built artefacts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.command import Arithmetic, command
from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import EnvironmentMissing, PictureError, UsageError, VerificationFailed
from edgesam_mobile.files import atomic_file, sha256_of

if TYPE_CHECKING:
    from edgesam_mobile.evaluate.accuracy import Settings
    from edgesam_mobile.evaluate.average_precision import Detections
    from edgesam_mobile.evaluate.data.samples import Source
    from edgesam_mobile.evaluate.subjects import Subject
    from edgesam_mobile.package.manifest import Accuracy, Manifest

app = typer.Typer()

_SCHEMA = "edgesam.eval/1"
_NAMED = 5  # damaged pictures and unusable objects that a person is told by name


@dataclass(frozen=True)
class _Task:
    """What all subjects of one call have in common."""

    source: Source
    settings: Settings
    boxes: dict[int, Detections] | None
    boxes_sha256: str | None
    output: Path | None
    overlays: Path | None


@command(
    app,
    "eval",
    examples=(
        "edgesam-mobile eval --weights mobile-sam --data coco:coco-val100 -o eval.json",
        "edgesam-mobile eval out --data coco:instances_val2017.json:val2017 --limit 200 --prompts box",
        'edgesam-mobile eval out --data coco:coco-val100 --budget "miou_drop<=0.5" --record',
        "edgesam-mobile eval --weights student.safetensors --data generated:50 --input-size 512 --overlays worst",
        "edgesam-mobile eval --weights mobile-sam --data coco:coco-val100 --boxes detections.json --json",
    ),
)
def evaluate(
    data: Annotated[str, typer.Option(help="coco:DIR, coco:FILE.json:IMAGES, lvis:…, sa1b:PATH or generated:N.")],
    package: Annotated[Path | None, typer.Argument(help="Folder that `build` wrote; or give --weights.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Registered weights or a checkpoint file, run by PyTorch; beside a package: its own."),
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the input in pixels, if not the weights' own (with --weights).")
    ] = None,
    prompts: Annotated[str, typer.Option(help="box, centre, or both with a comma.")] = "box,centre",
    refine: Annotated[int, typer.Option(help="Points added one by one where the mask is wrong.")] = 2,
    mask: Annotated[
        str, typer.Option(help="first (mask token, as published) or best (as applications show).")
    ] = "first",
    boxes: Annotated[Path | None, typer.Option(help="A detector's boxes in COCO's results format: adds AP.")] = None,
    limit: Annotated[int, typer.Option(help="The first pictures only; 0 is all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the added points.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for the result; a run cut short goes on.")
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of the worst masks.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda (with --weights).")] = "cpu",
    budget: Annotated[
        str | None,
        typer.Option(
            help='What an artefact may lose, such as "miou_drop<=0.5"; else what the package has on record. '
            "Exit code 7 beyond, 5 where one is not executed."
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Put the table into the package's manifest and model card.")
    ] = False,
    arithmetic: Arithmetic = "device-like",
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Prompt for every annotated object and compare the masks: mIoU, boundary IoU and, with --boxes, AP.

    Of a package, every artefact is evaluated beside the PyTorch model it was built from; Core ML is interpreted.
    """
    from edgesam_mobile.evaluate.accuracy import Settings
    from edgesam_mobile.evaluate.data.open import open_source

    if package is None and weights is None:
        raise UsageError("give a package or --weights", hint="such as --weights mobile-sam")
    if package is None and (budget is not None or record):
        raise UsageError("--budget and --record go with a package", hint="name the folder that `build` wrote")
    if package is not None and (input_size is not None or device != "cpu"):
        raise UsageError("--input-size and --device go with --weights", hint="a package is built for one input size")
    if overlays is not None and overlays.exists() and not overlays.is_dir():
        raise UsageError(f"{overlays} is no folder", hint="name a folder for the pictures")
    settings = Settings(tuple(prompts.split(",")), refine, mask, limit, seed)  # type: ignore[arg-type]
    source = open_source(data)
    task = _Task(source, settings, *_read_boxes(boxes, source), output, overlays)
    if package is not None:
        _evaluate_package(package, weights, task, budget, record, arithmetic, offline)
        return
    assert weights is not None
    _tell([_evaluate(_pytorch(weights, input_size, device, offline), task)], task)


def _evaluate_package(
    package: Path,
    weights: str | None,
    task: _Task,
    budget: str | None,
    record: bool,
    arithmetic: Arithmetic,
    offline: bool,
) -> None:
    from edgesam_mobile.evaluate import table
    from edgesam_mobile.evaluate.reference import reference_model, weights_source
    from edgesam_mobile.evaluate.subjects import TorchSubject
    from edgesam_mobile.package.manifest import read_manifest
    from edgesam_mobile.runtime.session import install_hint

    allowed = table.parse_budget(budget) if budget is not None else None
    manifest = read_manifest(package)
    if allowed is None and manifest.accuracy is not None:
        allowed = manifest.accuracy.budget
    subjects, idle = _artifacts(package, arithmetic)
    if record and len(idle) == len(manifest.artifacts):
        raise EnvironmentMissing(
            "nothing to record: no artefact can be executed here",
            hint=install_hint(artifact.format for artifact in manifest.artifacts),
        )
    model = reference_model(manifest, weights_source(manifest, weights, offline=offline), offline=offline)
    entries = [_evaluate(TorchSubject(model, score=manifest.mask.score), task)]
    measurable = entries[0]["objects"] > 0  # a detector's boxes are evaluated without any, for AP alone
    if not measurable and (budget is not None or record):
        raise PictureError(
            f"no objects in {task.source.spec} for --budget or --record", hint="give annotated pictures, or AP alone"
        )
    entries += [_evaluate(subject, task) for subject in subjects]
    reference, *found = [entry.pop("evaluation") for entry in entries]
    accuracy, failed = None, []
    if measurable:
        accuracy = table.accuracy_table(
            manifest,
            task.source.spec,
            reference,
            {entry["subject"]: one for entry, one in zip(entries[1:], found, strict=True)},
            arithmetic=arithmetic,
            budget=allowed,
        )
        failed = table.over_budget(accuracy)
        if record:
            table.record(package, accuracy)
    entries += [{"subject": name, "executed": False, "note": note} for name, note in idle]
    _tell(entries, task, accuracy)
    if measurable and allowed is not None:
        _require_budget(manifest, f"miou_drop<={allowed:g}", failed, [name for name, _ in idle])


def _require_budget(manifest: Manifest, budget: str, failed: list[str], idle: list[str]) -> None:
    """End with an error where an artefact is over the budget, or was not executed and so may be."""
    from edgesam_mobile.runtime.session import install_hint

    if failed:
        raise VerificationFailed(f"over the budget {budget}: {', '.join(failed)}", hint="the table says by how much")
    if idle:
        raise EnvironmentMissing(
            f"not executed, so not held to the budget {budget}: {', '.join(idle)}",
            hint=install_hint(manifest.artifact(name).format for name in idle),
        )


def _pytorch(weights: str, input_size: int | None, device: str, offline: bool) -> Subject:
    import torch

    from edgesam_mobile.evaluate.subjects import TorchSubject
    from edgesam_mobile.model import load_model

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UsageError(f"no device {device!r} here", hint="use --device cpu")
    model = load_model(weights, image_size=input_size, offline=offline)
    said = model.provenance
    assert said is not None
    flag_weights(said.commercial_use, said.licence, said.trained)
    return TorchSubject(model.to(device))


def _artifacts(package: Path, arithmetic: Arithmetic) -> tuple[Iterator[Subject], list[tuple[str, str]]]:
    """Artefacts to run, opened one after the other, and those that are not executed with the reason."""
    from edgesam_mobile.evaluate.subjects import ArtifactSubject
    from edgesam_mobile.package.manifest import read_manifest
    from edgesam_mobile.runtime.session import RUNTIMES, runnable

    manifest = read_manifest(package)
    said = manifest.weights
    flag_weights(said.commercial_use, said.licence, said.trained)
    able = [a.id for a in manifest.artifacts if runnable(a.format)]
    missing = {name: " and ".join(runtime.missing()) for name, runtime in RUNTIMES.items()}
    idle = [
        (a.id, f"{missing[a.format]} not installed" if a.format in missing else "nothing executes this format here")
        for a in manifest.artifacts
        if a.id not in able
    ]
    return (ArtifactSubject(package, name, arithmetic=arithmetic) for name in able), idle


def _read_boxes(path: Path | None, source: Source) -> tuple[dict[int, Detections] | None, str | None]:
    from edgesam_mobile.evaluate.average_precision import read_detections
    from edgesam_mobile.evaluate.data.coco import CocoSource

    if path is None:
        return None, None
    if not isinstance(source, CocoSource):
        raise UsageError(f"--boxes does not go with {source.spec}", hint="AP needs coco: or lvis: data")
    return dict(read_detections(path, source.annotations)), sha256_of(path)


def _evaluate(subject: Subject, task: _Task) -> dict[str, Any]:
    """One subject's part of the result; finished pictures are noted beside the output until the end."""
    from dataclasses import asdict

    from edgesam_mobile.evaluate.accuracy import evaluate as evaluate_subject
    from edgesam_mobile.evaluate.accuracy import pictures_of
    from edgesam_mobile.evaluate.average_precision import average_precision
    from edgesam_mobile.evaluate.data.coco import CocoSource
    from edgesam_mobile.evaluate.journal import Journal
    from edgesam_mobile.evaluate.worst import write_worst

    listed = task.source.annotations if isinstance(task.source, CocoSource) else None
    run = {
        "model": subject.identity,
        "data": {
            "spec": task.source.spec,
            "pictures": len(task.source),
            "annotations_sha256": listed and sha256_of(listed),
        },
        "settings": {**asdict(task.settings), "limit": 0},  # more pictures later change none of these
        "boxes": task.boxes_sha256,
    }
    journal = None
    if task.output is not None:
        journal = Journal(task.output.with_name(f"{task.output.name}.{subject.name}.jsonl"), run)
    with journal or nullcontext():
        if journal and journal.finished:
            out.note(f"going on after {len(journal.finished)} pictures of {journal.path}")
        left = set(range(pictures_of(task.source, task.settings))) - set(journal.finished if journal else ())
        with out.progress(f"evaluating {subject.name}", len(left)) as report:
            result = evaluate_subject(
                subject, task.source, task.settings, boxes=task.boxes, journal=journal, report=report
            )
    precision = None
    if task.boxes is not None and listed is not None:
        precision = average_precision(listed, result.detections, result.picture_ids)
    written = write_worst(subject, task.source, result, task.overlays) if task.overlays else []
    for name, reason in result.corrupt[:_NAMED]:
        out.warn(f"{name} left out: {reason}")
    if len(result.corrupt) > _NAMED:
        out.warn(f"{len(result.corrupt) - _NAMED} more pictures left out: the JSON names them")
    return {
        "subject": subject.name,
        "executed": True,
        "model": subject.identity,
        **result.summary(),
        "ap": precision,
        "seconds_per_picture": result.seconds / result.pictures,
        "overlays": [str(path) for path in written],
        "journal": journal.path if journal else None,
        "evaluation": result,
    }


def _tell(entries: list[dict[str, Any]], task: _Task, accuracy: Accuracy | None = None) -> None:
    """Write and print the result; only then is what helps to go on removed."""
    journals = [path for entry in entries if (path := entry.pop("journal", None))]
    for entry in entries:
        entry.pop("evaluation", None)
    ap = "COCO's, by pycocotools' COCOeval" + (", not LVIS's federated AP" if task.source.spec[:4] == "lvis" else "")
    protocol = {**task.settings.protocol(), **({"ap": ap} if task.boxes is not None else {})}
    data = {"data": task.source.spec, "protocol": protocol, "entries": entries}
    if accuracy is not None:
        data["accuracy"] = accuracy.model_dump(mode="json")
    if task.output is not None:
        with atomic_file(task.output) as temporary:
            temporary.write_text(json.dumps({"schema": _SCHEMA, **data}, indent=2) + "\n", encoding="utf-8")
    for path in journals:
        path.unlink(missing_ok=True)
    executed = [entry for entry in entries if entry["executed"]]

    def human() -> None:
        if accuracy is not None:
            _show_accuracy(accuracy)
        out.table(("subject", "prompt", "mIoU", "boundary IoU", "small", "medium", "large"), list(_rows(entries)))
        if task.boxes is not None:
            columns = ("subject", "mask AP", "AP50", "AP75", "small", "medium", "large")
            out.table(columns, [(e["subject"], *map(_percent, e["ap"].values())) for e in executed])
        for entry in executed[:1]:
            sizes = ", ".join(f"{count} {name}" for name, count in entry["sizes"].items())
            out.say(f"{entry['objects']} objects ({sizes}) on {entry['pictures']} pictures of {task.source.spec}")
            for skipped in entry["skipped"][:_NAMED]:
                out.say(f"left out: object {skipped['object']} of {skipped['picture']}: {skipped['reason']}")
            if (more := len(entry["skipped"]) - _NAMED) > 0:
                out.say(f"left out: {more} more objects, named in the JSON")
        out.say("; ".join(f"{name}: {said}" for name, said in protocol.items()))
        if task.output is not None:
            out.say(f"wrote {task.output}")

    label = task.settings.labels[0]
    bare = [f"{e['subject']} {_percent(e['results'][label]['miou'])}" for e in executed] or ["not executed"]
    out.result(_SCHEMA, data, human=human, quiet=bare)


def _rows(entries: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for entry in entries:
        if not entry["executed"]:
            yield (entry["subject"], f"not executed: {entry['note']}", *["–"] * 5)
            continue
        for label, mean in entry["results"].items():
            shown = (mean[key] for key in ("miou", "boundary_iou", "small", "medium", "large"))
            yield (entry["subject"], label, *map(_percent, shown))


def _show_accuracy(accuracy: Accuracy) -> None:
    """One row an artefact: mean IoU by prompt, with the points lost against PyTorch."""
    full = accuracy.reference
    rows = [("pytorch", "PyTorch", "–", *(f"{value:.1f}" for value in full.values()), "–")]
    for row in accuracy.rows:
        means = (f"{row.miou[label]:.1f} ({row.miou[label] - value:+.2f})" for label, value in full.items())
        same = "–" if row.same_best is None else f"{row.same_best:.1%}"
        rows.append((row.artifact, row.executed_by, f"{row.bytes / 1e6:.1f}", *means, same))
    out.table(("artefact", "executed by", "MB", *full, "same best"), rows)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
