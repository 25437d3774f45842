"""``edgesam-mobile placement``: which of Apple's processors may take which operation."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import PackageError, UsageError

if TYPE_CHECKING:
    from edgesam_mobile.runtime.coreml.placement import Placement

app = typer.Typer()


@command(
    app,
    "placement",
    examples=("edgesam-mobile placement out", "edgesam-mobile placement out --each"),
)
def placement(
    package: Annotated[Path, typer.Argument(help="Folder that `build` wrote.")],
    each: Annotated[bool, typer.Option("--each", help="Print every operation (--json always has them).")] = False,
) -> None:
    """Estimate, without an Apple device, which of its processors may take each operation of the Core ML artefacts.

    Apple publishes no such rules; what is commonly known is used. Operations that the Neural Engine may not take
    are counted as fallbacks, with the reason. On a device, Core ML's own compute plan decides.
    """
    from edgesam_mobile.package.manifest import read_manifest
    from edgesam_mobile.runtime.session import RUNTIMES, require

    found: list[dict[str, Any]] = []
    for artifact in read_manifest(package).artifacts:
        runtime = RUNTIMES.get(artifact.format)
        if runtime is None or not runtime.interpreted:
            continue
        require(artifact.format)
        for role, graph in artifact.graphs().items():
            estimated = _estimate(package / graph.file.path)
            found.append({"artefact": artifact.id, "graph": role, **_record(estimated)})
    if not found:
        raise UsageError(f"{package} has no Core ML artefact", hint="build one with --target ios")

    def human() -> None:
        for entry in found if each else ():
            title = f"{entry['artefact']} {entry['graph']}"
            out.table(("", "operation", "may be taken by", "not ANE because of"), _each(entry), title=title)
        columns = ("artefact", "graph", "operations", "ANE", "GPU", "CPU", "fallbacks", "because of")
        out.table(columns, [_row(entry) for entry in found])
        out.say("an estimate by commonly known rules, not a measurement: Core ML decides on the device")

    data = {"package": str(package), "estimate": True, "graphs": found}
    bare = [f"{e['artefact']} {e['graph']} {e['counts']['fallbacks']}" for e in found]
    out.result("edgesam.placement/1", data, human=human, quiet=bare)


def _estimate(path: Path) -> Placement:
    from edgesam_mobile.runtime.coreml.embedded import extract
    from edgesam_mobile.runtime.coreml.placement import estimate
    from edgesam_mobile.runtime.coreml.program import read_program
    from edgesam_mobile.runtime.coreml.types import ProgramError

    try:
        if path.is_dir():
            return estimate(read_program(path))
        with tempfile.TemporaryDirectory() as folder:
            return estimate(read_program(extract(path, Path(folder)).package))
    except ProgramError as error:
        raise PackageError(f"cannot read {path}: {error}", hint="build the package again") from error


def _record(estimated: Placement) -> dict[str, Any]:
    return {
        "operations": len(estimated.operations),
        "counts": estimated.counts(),
        "fallbacks": [{"operation": p.operation, "reason": p.reason} for p in estimated.fallbacks],
        "placed": [{**asdict(p), "fallback": p.fallback} for p in estimated.operations],
    }


def _each(entry: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row an operation, in the program's order; its name begins with its type."""
    return [
        ("fallback" if p["fallback"] else "", p["operation"], ", ".join(p["units"]), p["reason"])
        for p in entry["placed"]
    ]


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    reasons = Counter(fallback["reason"] for fallback in entry["fallbacks"])
    because = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "–"
    counts = entry["counts"]
    return (entry["artefact"], entry["graph"], entry["operations"], *counts.values(), because)
