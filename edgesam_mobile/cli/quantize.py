"""``edgesam-mobile quantize``: which layers to leave out of a compression, found by what it does to masks."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgesam_mobile.cli.build import flag_weights, refuse_no_pictures
from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.errors import UsageError, VerificationFailed
from edgesam_mobile.files import atomic_file
from edgesam_mobile.weights.registry import DEFAULT

if TYPE_CHECKING:
    from edgesam_mobile.evaluate.quantise import Candidate, Search

app = typer.Typer()


@command(
    app,
    "quantize",
    examples=(
        'edgesam-mobile quantize --format tflite --calibration images:photos --budget "miou_drop<=2" -o search',
        "edgesam-mobile build --target android --precision int8 --plan search/plan.json -o small",
        "edgesam-mobile quantize --format coreml --precision palette4-grouped --instead palette6 -o search-ios",
    ),
)
def quantize(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is found; a search goes on there.")],
    form: Annotated[str, typer.Option("--format", help="tflite, onnx, executorch-xnnpack or coreml.")] = "tflite",
    part: Annotated[Literal["encoder", "decoder"], typer.Option(help="Which graph.")] = "encoder",
    precision: Annotated[str, typer.Option(help="Of what is not left out.")] = "int8",
    instead: Annotated[
        str | None, typer.Option(help="Precision of what is left out, where not floating point (coreml).")
    ] = None,
    weights: Annotated[str, typer.Option(help="Registered weights or a checkpoint file.")] = DEFAULT,
    input_size: Annotated[int | None, typer.Option(help="Side of the input, if not the weights' own.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Pictures to measure on, such as images:FOLDER or coco:DIR.")
    ] = None,
    calibration_pictures: Annotated[int, typer.Option(help="How many of them.")] = 16,
    budget: Annotated[
        str, typer.Option(help="Points of mean mask IoU with PyTorch that may be lost, in calibration.")
    ] = "miou_drop<=2",
    objective: Annotated[
        Literal["size", "latency"],
        typer.Option(help="What to have least of; latency where this machine can time it."),
    ] = "size",
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Compress a graph block by block, rank blocks by damage to masks, and leave out the worst within a budget.

    Writes the plan for `build --plan`, all candidates as JSON and the front as a picture. Exit code 7 if nothing
    keeps the budget.
    """
    from edgesam_mobile.deploy.cache import source_digest, tool_versions
    from edgesam_mobile.deploy.formats import FORMATS
    from edgesam_mobile.deploy.stages import EXPORTED_UPSAMPLE
    from edgesam_mobile.evaluate.calibration import calibration_set
    from edgesam_mobile.evaluate.journal import Journal
    from edgesam_mobile.evaluate.quantise import Masks, search, steps
    from edgesam_mobile.evaluate.table import parse_budget
    from edgesam_mobile.model.load import load_model, read_weights
    from edgesam_mobile.model.registry import architecture, refuse_undeployable
    from edgesam_mobile.runtime.session import RUNTIMES

    if form not in FORMATS or precision not in FORMATS[form].leaves_out:
        offers = "; ".join(f"{f.name}: {', '.join(f.leaves_out)}" for f in FORMATS.values())
        raise UsageError(f"{form} does not offer {precision} to search", hint=offers)
    if objective == "latency" and RUNTIMES[form].interpreted:
        raise UsageError(f"{form} is interpreted here, and its times say nothing", hint="use --objective size")
    refuse_no_pictures(calibration_pictures)
    if instead and (instead not in FORMATS[form].instead or instead == precision):
        offers = ", ".join(p for p in FORMATS[form].instead if p != precision) or "floating point only"
        raise UsageError(f"layers that {form} leaves out cannot be {instead}", hint=f"they can be: {offers}")
    allowed = parse_budget(budget)
    refuse_undeployable(weights)
    _, _, said = read_weights(weights, offline=offline)
    refuse_undeployable(said.architecture)
    flag_weights(said.commercial_use, said.licence, said.trained)
    upsample = EXPORTED_UPSAMPLE if architecture(said.architecture).upsample else None
    model = load_model(weights, image_size=input_size, upsample=upsample, offline=offline)
    pictures, warnings = calibration_set(calibration, calibration_pictures)
    for line in warnings:
        out.warn(line)
    run = {
        "weights": said.weights_sha256,
        "input_size": model.image_size,
        "format": form,
        "part": part,
        "precision": precision,
        "instead": instead or "",
        "calibration": pictures.sha256,
        "tools": tool_versions(FORMATS[form].packages),
        "sources": source_digest(),  # a changed exporter would measure otherwise, too
    }
    with tempfile.TemporaryDirectory() as scratch, Journal(output / "candidates.jsonl", run) as journal:
        masks = Masks(model, FORMATS[form], pictures, Path(scratch), part)
        with out.progress("searching", steps(masks.graph) - len(journal.finished)) as report:
            found = search(
                masks,
                precision,
                budget=allowed,
                objective=objective,
                instead=instead or "",
                journal=journal,
                report=report,
            )
    _write(output, {**run, "architecture": said.architecture, "budget": allowed, "objective": objective}, found)
    _tell(output, found)
    if found.chosen is None:
        raise VerificationFailed(f"nothing tried keeps {budget}", hint="allow more, or choose another precision")


def _write(output: Path, about: dict[str, Any], found: Search) -> None:
    from edgesam_mobile.evaluate.front import draw_front

    record = {
        **about,
        "sensitivity": [c.to_json() for c in found.sensitivity],
        "tried": [c.to_json() for c in found.tried],
        "front": [c.step for c in found.front()],
    }
    files = {"search.json": record}
    if found.chosen is not None:
        plan = replace(found.chosen.plan, architecture=about["architecture"])
        files["plan.json"] = {"format": about["format"], "part": about["part"], "plan": plan.to_json()}
    else:
        (output / "plan.json").unlink(missing_ok=True)  # an earlier search's, with a looser budget
    for name, content in files.items():
        with atomic_file(output / name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draw_front(found, about["part"], output / "front.png")


def _tell(output: Path, found: Search) -> None:
    def human() -> None:
        out.table(("block compressed alone", "points lost", "same best"), [_alone(c) for c in found.sensitivity[:10]])
        columns = ("worst blocks", "MB", "ms", "points lost", "same best", "front", "chosen")
        out.table(columns, [_row(c, found) for c in found.tried])
        out.say("points of mean mask IoU with PyTorch on the calibration pictures; `eval` judges on annotated ones")
        out.say(f"wrote {output}")

    data = {
        "output": str(output),
        "chosen": found.chosen.to_json() if found.chosen else None,
        "sensitivity": [c.to_json() for c in found.sensitivity],
        "tried": [c.to_json() for c in found.tried],
    }
    out.result("edgesam.quantize/1", data, human=human, quiet=[output / "plan.json"] if found.chosen else ["none"])


def _alone(candidate: Candidate) -> tuple[object, ...]:
    return candidate.step, f"{100 * candidate.damage:.2f}", f"{candidate.same_best:.1%}"


def _row(candidate: Candidate, found: Search) -> tuple[object, ...]:
    marks = ["yes" if candidate in found.front() else "", ""]
    if found.chosen is not None and candidate.step == found.chosen.step:
        marks[1] = "yes"
    return (
        candidate.step,
        f"{candidate.bytes / 1e6:.2f}",
        number(candidate.run_ms, ".1f"),
        f"{100 * candidate.damage:.2f}",
        f"{candidate.same_best:.1%}",
        *marks,
    )
