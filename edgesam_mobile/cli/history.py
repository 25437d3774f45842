"""``edgesam-mobile history``: what was measured, kept in the store; exports, imports and tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.cli.runs import Place, opened

if TYPE_CHECKING:
    from edgesam_mobile.lab.records import LaunchRecord, RunRecord
    from edgesam_mobile.lab.store.store import Imported, Store

_SHORT = 8  # digits of an id in a table
_COLUMNS = ("run", "date", "model", "devices", "cases", "launches", "status", "tags")
_TIMING_COLUMNS = ("run", "date", "device", "delegate", "threads", "launches", "frames", "p50 ms", "p90 ms", "tags")


class _ListByDefault(TyperGroup):
    """``history`` alone, or with options only, is ``history list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Typer keeps the context's type to itself
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListByDefault, help="Show what was measured; export, import and tag runs.")

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's tag, its id, or the id's first digits.")]


@command(
    app,
    "list",
    examples=(
        "edgesam-mobile history",
        "edgesam-mobile history --case tflite-fp16",
        "edgesam-mobile history list --device adb:R58M123ABC --json",
    ),
)
def list_(
    case: Annotated[
        str | None,
        typer.Option("--case", help="Only this artefact or baseline, with its time of a frame in each run."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only runs of this model.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Only runs on this device, by its key.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many runs, the newest first.")] = 20,
    store: Place = None,
) -> None:
    """List the runs in the store, the newest first."""
    kept = opened(store)
    runs = kept.runs(model=model, case=case, device=device, limit=limit)
    rows = [_run_data(run) for run in runs]
    timings = None if case is None else [row for run in runs for row in _timings(kept, run, case, device)]

    def human() -> None:
        if not runs:
            out.say(f"no such runs in {kept.name}")
        elif timings is None:
            out.table(_COLUMNS, map(_line, rows))
        else:
            out.table(_TIMING_COLUMNS, map(_timing_line, timings))

    data: dict[str, Any] = {"store": kept.name, "runs": rows}
    if timings is not None:
        data |= {"case": case, "timings": timings}
    out.result("edgesam.history/1", data, human=human, quiet=[run.id for run in runs])


@command(app, "export", examples=("edgesam-mobile history export release-1.2 release-1.2.jsonl",))
def export(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The JSON Lines file to write.")],
    store: Place = None,
) -> None:
    """Write a run with every raw sample to a file, for another store."""
    head = opened(store).export(run, file)
    data = {"path": file, "run": head.id, "bytes": file.stat().st_size}
    out.result("edgesam.history.export/1", data, human=lambda: out.say(f"wrote {file}"), quiet=[file])


@command(app, "import", examples=("edgesam-mobile history import release-1.2.jsonl",))
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An export, or a launch that could not be stored.")],
    store: Place = None,
) -> None:
    """Take in an exported run or a launch kept in a file; what is there already is not doubled."""
    from edgesam_mobile.lab.store import open_store

    taken = open_store(store).import_(file)
    for tag in taken.tags_left:
        out.warn(f"another run here is tagged {tag} and stays so")
    data = {
        "run": taken.run_id,
        "new": taken.new,
        "launches_added": taken.added,
        "launches_present": taken.present,
        "tags_left": taken.tags_left,
    }
    out.result("edgesam.history.import/1", data, human=lambda: _say_imported(taken), quiet=[taken.run_id])


@command(app, "tag", examples=("edgesam-mobile history tag 3f2a9c1d release-1.2",))
def tag(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tag; another run that has it loses it.")],
    store: Place = None,
) -> None:
    """Give a run a name."""
    found, before = opened(store).tag(run, name)

    def human() -> None:
        moved = f", no longer {before[:_SHORT]}" if before else ""
        out.say(f"{name} is {found[:_SHORT]}{moved}")

    out.result("edgesam.history.tag/1", {"tag": name, "run": found, "before": before}, human=human, quiet=[found])


def _run_data(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "created": run.created,
        "model": run.model,
        "trained": run.trained,
        "devices": sorted({launch.device.key for launch in run.launches}),
        "cases": sorted({launch.case.id for launch in run.launches}),
        "launches": len(run.launches),
        "status": run.status,
        "tags": run.tags,
    }


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    model = row["model"] if row["trained"] else f"{row['model']} (untrained)"
    devices, tags = ", ".join(row["devices"]) or "–", ", ".join(row["tags"])
    return row["id"][:_SHORT], _date(row), model, devices, len(row["cases"]), row["launches"], row["status"], tags


def _timings(store: Store, run: RunRecord, case: str, device: str | None) -> list[dict[str, Any]]:
    """Times of a frame in complete launches, one row for each way the case was run."""
    from edgesam_mobile.lab.statistics import summarise

    ways: dict[tuple[str, str | None, int | None], list[LaunchRecord]] = {}
    for launch in store.launches(run.id, case, stage="frame"):
        if launch.status == "complete" and device in (None, launch.device.key):
            ways.setdefault((launch.device.key, launch.case.delegate, launch.case.threads), []).append(launch)
    found = []
    for (key, delegate, threads), launches in ways.items():
        frames = [ms for launch in launches for ms in launch.times("frame")]
        summary = summarise(frames) if frames else None
        found.append(
            {
                "run": run.id,
                "created": run.created,
                "device": key,
                "delegate": delegate,
                "threads": threads,
                "launches": len(launches),
                "frames": len(frames),
                "p50_ms": summary.p50 if summary else None,
                "p90_ms": summary.p90 if summary else None,
                "tags": run.tags,
            }
        )
    return found


def _timing_line(row: dict[str, Any]) -> tuple[object, ...]:
    delegate, threads = row["delegate"] or "–", row["threads"] or "–"
    times = number(row["p50_ms"], ".2f"), number(row["p90_ms"], ".2f")
    counts = row["launches"], row["frames"]
    return row["run"][:_SHORT], _date(row), row["device"], delegate, threads, *counts, *times, ", ".join(row["tags"])


def _date(row: dict[str, Any]) -> str:
    return str(row["created"])[:16].replace("T", " ")


def _say_imported(taken: Imported) -> None:
    run = f"{'new run' if taken.new else 'run'} {taken.run_id[:_SHORT]}"
    out.say(f"{run}: {taken.added} launches added, {taken.present} were there")
