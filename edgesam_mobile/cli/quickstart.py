"""``edgesam-mobile quickstart``: weights to measured artefacts in one command and one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.bench import refuse_unmeasured, warn
from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import number, out

if TYPE_CHECKING:
    from edgesam_mobile.evaluate.verify import Verification
    from edgesam_mobile.lab.host import BenchResult
    from edgesam_mobile.lab.report import CaseReport
    from edgesam_mobile.package.manifest import Artifact

app = typer.Typer()
_DASH = "–"


@command(
    app,
    "quickstart",
    examples=(
        "edgesam-mobile quickstart -o out",
        "edgesam-mobile quickstart --weights student.safetensors -o out --launches 5",
    ),
)
def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the package to.")],
    weights: Annotated[str, typer.Option(help="Registered weights or a checkpoint file.")] = "mobile-sam",
    launches: Annotated[int, typer.Option(help="Processes for each timing.")] = 2,
    seconds: Annotated[float, typer.Option(help="Measured seconds in each process.")] = 2.0,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Build every format, check each against PyTorch, time each on this machine, print one table.

    A mask of a built-in photograph by each artefact goes to OUTPUT/pictures. Exit code 7 if an artefact's masks
    are not PyTorch's. Ctrl-C while it times keeps the package, and shows what was measured by then.
    """
    from edgesam_mobile.deploy.build import build
    from edgesam_mobile.deploy.options import BuildOptions
    from edgesam_mobile.evaluate.probes import builtin_pictures
    from edgesam_mobile.evaluate.verify import verify
    from edgesam_mobile.lab.host import measure, prepare
    from edgesam_mobile.lab.report import report as summarise
    from edgesam_mobile.package.manifest import PICTURES
    from edgesam_mobile.picture import overlay, read_picture, write_png

    options = BuildOptions(weights=weights, offline=offline)
    out.note(f"1/3 building {weights} for every target")
    with out.progress("building", 2 * len(options.chosen())) as report:
        built = build(options, output, report=report)
    drawn: list[Path] = []

    def keep(artifact: str, picture: Path, mask: Any) -> None:
        drawn.append(output / PICTURES / f"{picture.stem}-{artifact}.png")
        write_png(drawn[-1], overlay(read_picture(picture), mask))

    out.note("2/3 checking each artefact against PyTorch")
    with out.progress("verifying", len(built.manifest.artifacts)) as report:
        verified = verify(output, builtin_pictures(), offline=offline, report=report, keep=keep)
    out.note("3/3 timing each artefact on this machine")
    prepared = prepare(output, interpreted=False, offline=offline, note=out.note)  # whose masks were just compared
    with out.progress("measuring", prepared.processes(launches)) as report:
        timed = measure(prepared, launches=launches, seconds=seconds, report=report)
    reports = summarise(timed)
    warn(timed, reports)
    rows = _rows(built.manifest.artifacts, verified, {r.case.id: r for r in reports})

    def human() -> None:
        _show(rows, timed)
        out.say(f"package in {output}, masks of {len(drawn)} pictures in {output / PICTURES}")

    data = {
        "package": str(output),
        "passed": verified.passed,
        "partial": timed.partial,
        "seconds": built.seconds,
        "rows": rows,
    }
    out.result("edgesam.quickstart/1", data, human=human, quiet=[output])
    if timed.partial:
        raise typer.Exit(130)
    verified.require_pass(hint=f"see `edgesam-mobile verify {output}`")
    refuse_unmeasured(reports)


def _rows(artifacts: list[Artifact], verified: Verification, timed: dict[str, CaseReport]) -> list[dict[str, Any]]:
    """One record per artefact, then one per baseline; what was not measured is ``None``."""
    checks = {check.id: check for check in verified.checks}
    rows = []
    for artifact in artifacts:
        check = checks[artifact.id]
        row = {
            "artefact": artifact.id,
            "for": ", ".join(artifact.targets),
            "bytes": sum(graph.file.bytes for graph in artifact.graphs().values()),
            "mask_iou": check.mask_iou_mean,
            "worst_mask_iou": check.mask_iou_min,
            "executed": check.executed,
        }
        rows.append({**row, **_times(timed.pop(artifact.id, None))})
    for name, case in timed.items():
        row = {"artefact": name, "for": "baseline", "bytes": None, "mask_iou": case.mask_iou, "worst_mask_iou": None}
        rows.append({**row, "executed": True, **_times(case)})
    return rows


def _times(case: CaseReport | None) -> dict[str, float | None]:
    """Medians in milliseconds, and how many times as long PyTorch's frame takes."""
    stages = {} if case is None else {stage: s.summary.p50 for stage, s in case.stages.items()}
    ratio = case.vs_pytorch.value if case and case.vs_pytorch else None
    return {**{f"{stage}_ms": stages.get(stage) for stage in ("encode", "decode", "frame")}, "vs_pytorch": ratio}


def _show(rows: list[dict[str, Any]], timed: BenchResult) -> None:
    machine = timed.machine
    out.say(f"{machine.cpu}, {machine.cores} cores, {machine.system}; host timings say nothing about a phone")
    columns = ("artefact", "for", "MB", "mask IoU", "worst", "encode ms", "decode ms", "frame ms", "vs PyTorch")
    out.table(columns, [_cells(row) for row in rows])
    out.say(
        "mask IoU: against PyTorch over both pictures and six prompts each (baselines: one prompt); "
        "ms: medians of a quick run (use `bench` for figures); Core ML is interpreted here and so not timed"
    )


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    if not row["executed"]:
        times: list[str] = ["not executed", *[_DASH] * 5]
    else:
        ratio = row["vs_pytorch"]
        times = [
            number(row["mask_iou"], ".4f"),
            number(row["worst_mask_iou"], ".4f"),
            *(number(row[f"{stage}_ms"], ".0f") for stage in ("encode", "decode", "frame")),
            _DASH if ratio is None else f"{ratio:.2f} x",
        ]
    size = _DASH if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
    return (row["artefact"], row["for"], size, *times)
