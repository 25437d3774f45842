"""``edgesam-mobile build``: weights to a package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import UsageError
from edgesam_mobile.weights.registry import DEFAULT

if TYPE_CHECKING:
    from edgesam_mobile.deploy.options import BuildOptions
    from edgesam_mobile.deploy.precision import Plan

app = typer.Typer()


@command(
    app,
    "build",
    examples=(
        "edgesam-mobile build --target all --model mobile-sam -o out",
        "edgesam-mobile build --target ios --precision fp16 --weights student.safetensors -o ios-package",
        "edgesam-mobile build --target android --input-size 512 --slots 4 --model mobile-sam -o small",
        "edgesam-mobile build --precision recommended --calibration images:photos -o small",
    ),
)
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the package to.")],
    target: Annotated[list[str], typer.Option(help="ios, android, host or all; can be repeated.")] = ["all"],  # noqa: B006
    model: Annotated[str | None, typer.Option(help=f"A model of `weights list`; {DEFAULT} by default.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="A checkpoint file of that model, instead of its registered weights.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="recommended, fp32, fp16, int8, int8-weights, …; can be repeated. fp32 and fp16 by default."
        ),
    ] = None,
    plan: Annotated[
        list[Path] | None, typer.Option(help="What `quantize` found for a graph: its plan.json; can be repeated.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Pictures to measure ranges on, such as images:FOLDER or coco:DIR; two built-in ones else."
        ),
    ] = None,
    calibration_pictures: Annotated[int, typer.Option(help="How many of them to take, spread evenly.")] = 32,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the encoder's input in pixels: 256 to 1024; as trained by default.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Points a prompt can have; a box takes two.")] = 6,
    prompts: Annotated[int, typer.Option(help="Prompts answered in one decoder call.")] = 1,
    mask_input: Annotated[
        bool, typer.Option("--mask-input", help="Let the decoder take a mask beside a point or box.")
    ] = False,
    score: Annotated[str | None, typer.Option(help="iou or stability; what suits the model by default.")] = None,
    image_dtype: Annotated[str, typer.Option(help="TFLite pictures as float32 or uint8, 0..255.")] = "float32",
    proposals: Annotated[
        Path | None, typer.Option(help="A proposal head trained on these weights: adds the third graph.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Turn weights into Core ML, ExecuTorch, TFLite and ONNX artefacts with a manifest and a model card.

    Unchanged exports come from a cache; an interrupted build leaves no half package.
    """
    from edgesam_mobile.deploy.build import build as build_package
    from edgesam_mobile.deploy.formats import TARGETS
    from edgesam_mobile.deploy.options import BuildOptions
    from edgesam_mobile.deploy.stages import parts

    options = BuildOptions(
        weights=weights or model or DEFAULT,
        model=model,
        targets=tuple(dict.fromkeys(t for name in target for t in (TARGETS if name == "all" else (name,)))),
        precisions=tuple(precision) if precision else None,
        input_size=input_size or 0,
        slots=slots,
        prompts=prompts,
        mask_input=mask_input,
        score=score,
        image_dtype=image_dtype,
        proposals=proposals,
        plans=_read_plans(plan or ()),
        offline=offline,
    )
    options = with_calibration(options, calibration, calibration_pictures)
    with out.progress("building", len(parts(options)) * len(options.chosen())) as report:
        result = build_package(options, output, report=report, note=out.note)
    manifest = result.manifest
    flag_weights(manifest.weights.commercial_use, manifest.weights.licence, manifest.weights.trained)

    def human() -> None:
        roles = [f"{role} MB" for role in manifest.artifacts[0].graphs()]
        columns = ("artefact", "for", *roles, "operation types")
        out.table(
            columns,
            [
                (
                    a.id,
                    ", ".join(a.targets),
                    *(f"{graph.file.bytes / 1e6:.1f}" for graph in a.graphs().values()),
                    len({kind for graph in a.graphs().values() for kind in graph.op_types}),
                )
                for a in manifest.artifacts
            ],
        )
        for artefact in manifest.artifacts:
            for role, graph in artefact.graphs().items():
                if (how := graph.quantisation) and how.reason:
                    out.say(f"{artefact.id}: {role} in {how.precision}: {how.reason}")
        cached = sum(stage.cached for stage in result.stages)
        peak = f", peak memory {result.peak_bytes / 2**30:.1f} GiB at most" if result.peak_bytes else ""
        taken = f"{cached} of {len(result.stages)} exports from the cache"
        out.say(f"{result.package}: built in {result.seconds:.0f} s, {taken}{peak}")

    data = {
        "package": str(result.package),
        "seconds": round(result.seconds, 2),
        "peak_bytes": result.peak_bytes,
        "stages": [
            {"name": s.name, "seconds": s.seconds, "peak_bytes": s.peak_bytes, "cached": s.cached}
            for s in result.stages
        ],
        "manifest": manifest.model_dump(by_alias=True, mode="json"),
    }
    out.result("edgesam.build/1", data, human=human, quiet=[result.package])


def _read_plans(paths: Sequence[Path]) -> dict[tuple[str, str], Plan]:
    plans = dict(map(_read_plan, paths))
    if len(plans) < len(paths):
        raise UsageError("two plans for the same graph of a format", hint="give one --plan for each")
    return plans


def _read_plan(path: Path) -> tuple[tuple[str, str], Plan]:
    """The format, the graph and the plan in a file that ``quantize`` wrote."""
    from edgesam_mobile.deploy.formats import FORMATS
    from edgesam_mobile.deploy.precision import PRECISIONS, Plan

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        name, part, found = str(data["format"]), str(data["part"]), Plan.from_json(data["plan"])
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no plan", hint="make one with `edgesam-mobile quantize`") from error
    form = FORMATS.get(name)
    if form is None or found.precision not in PRECISIONS or found.instead not in ("", *form.instead):
        said = f"{path} is a plan for {name} {found.precision}, which is not known"
        raise UsageError(said, hint="make one with `edgesam-mobile quantize`")
    if found.left_out and found.precision not in form.leaves_out:
        able = ", ".join(form.leaves_out)
        raise UsageError(f"{path}: {name} leaves no layer out of {found.precision}", hint=f"it can out of {able}")
    return (name, part), found


def with_calibration(options: BuildOptions, spec: str | None, pictures: int) -> BuildOptions:
    """The options with pictures to measure ranges on, where anything to build needs them."""
    refuse_no_pictures(pictures)
    if not options.calibrated():
        return options
    from edgesam_mobile.evaluate.calibration import calibration_set

    calibration, said = calibration_set(spec, pictures)
    for line in said:
        out.warn(line)
    return replace(options, calibration=calibration)


def refuse_no_pictures(pictures: int) -> None:
    """Calibration takes one at least."""
    if pictures < 1:
        raise UsageError(f"--calibration-pictures is at least 1, not {pictures}", hint="some tens are enough")


def flag_weights(commercial_use: bool | None, licence: str | None, trained: bool) -> None:
    """Warn of what must not be overlooked about a package's weights."""
    if not trained:
        out.warn("untrained stand-in weights: timing and structure only, the masks mean nothing")
    if commercial_use is False:
        out.warn(f"the weights' licence ({licence}) forbids commercial use")
    elif commercial_use is None:
        out.warn("the weights' licence is not known: find out before you ship them")
