"""``edgesam-mobile report``: measured runs as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out
from edgesam_mobile.cli.runs import Cases, Place, Runs, chosen_cases, chosen_runs, opened
from edgesam_mobile.files import atomic_file

if TYPE_CHECKING:
    from edgesam_mobile.lab.store.store import Store
    from edgesam_mobile.lab.summary import CaseSummary

app = typer.Typer()

_PAST = 20  # runs, the newest, that the page's history reaches back


@command(
    app,
    "report",
    examples=(
        "edgesam-mobile report -o report.html",
        "edgesam-mobile report release-1.2 4f1c --target kiosk.toml -o report.html",
    ),
)
def report(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")],
    runs: Runs = None,
    case: Cases = None,
    target: Annotated[
        str, typer.Option(help="What to hold the figures against: a target that comes along, or a TOML file.")
    ] = "iphone14-30fps",
    store: Place = None,
) -> None:
    """Write one HTML page: verdicts, figures, distributions, heat, mIoU against time, history.

    It loads nothing and runs no script, so it can be mailed or kept as it is. A missed target is on the page and
    changes no exit code: `edgesam-mobile compare` does that.
    """
    from edgesam_mobile.lab.page import page
    from edgesam_mobile.lab.summary import summarise
    from edgesam_mobile.lab.targets import load_target, published

    wanted = load_target(target)
    place = opened(store)
    figures = chosen_cases(summarise(chosen_runs(place, runs)), case)
    html = page(figures, wanted, others=published(), history=_past(place, figures))
    with atomic_file(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    data = {
        "path": str(output.resolve()),
        "bytes": output.stat().st_size,
        "runs": list(dict.fromkeys(each.run.id for each in figures)),
        "cases": len(figures),
    }
    out.result("edgesam.report/1", data, human=lambda: out.say(f"wrote {output}"), quiet=[output])


def _past(store: Store, figures: Sequence[CaseSummary]) -> list[CaseSummary]:
    """The frames of the same cases in other runs of the same models, without their parts and states."""
    from edgesam_mobile.lab.summary import summarise

    here = {each.run.id for each in figures}
    found = []
    for model in dict.fromkeys(each.run.model for each in figures):
        ids = dict.fromkeys(each.case.id for each in figures if each.run.model == model)
        for run in store.runs(model=model, limit=_PAST):
            if run.id not in here:
                launches = [launch for case in ids for launch in store.launches(run.id, case, stage="frame")]
                found += summarise([replace(run, launches=tuple(launches))])
    return found
