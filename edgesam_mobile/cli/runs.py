"""What commands that read measured runs have in common: which runs, which cases, and verdicts written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import UsageError
from edgesam_mobile.files import atomic_file

if TYPE_CHECKING:
    from edgesam_mobile.lab.outcomes import Result
    from edgesam_mobile.lab.records import RunRecord
    from edgesam_mobile.lab.statistics import Estimate
    from edgesam_mobile.lab.store.store import Store
    from edgesam_mobile.lab.summary import CaseSummary

Place = Annotated[
    str | None,
    typer.Option("--store", help="File or postgresql:// URL; EDGESAM_STORE or the user's data folder otherwise."),
]
Runs = Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Ids or tags of runs; the newest by default.")]
Cases = Annotated[list[str] | None, typer.Option("--case", help="Id of an artefact to keep; can be repeated.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the verdicts as JUnit's XML too.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the verdicts as Markdown too.")]

_NAMED = 4  # cases that an error's one line names


def opened(place: str | None) -> Store:
    """A store that must be there, after a word about launches that wait for being imported."""
    from edgesam_mobile.lab.store import open_store

    store = open_store(place, create=False)
    if waiting := store.waiting():
        out.warn(f"launches not in the store yet: edgesam-mobile history import {waiting[0]}")
        for path in waiting[1:]:
            out.warn(f"and {path}")
    return store


def chosen_runs(store: Store, names: Sequence[str] | None) -> list[RunRecord]:
    """Whole runs by their names, the newest if none is named; a run named twice comes once.

    Raises:
        UsageError: one is not there, or none is.
    """
    if not names:
        newest = store.runs(limit=1)
        if not newest:
            raise UsageError(f"no runs in {store.name}", hint="measure with `edgesam-mobile bench`")
        names = [newest[0].id]
    found = [store.run(name) for name in names]
    return list({run.id: run for run in found}.values())


def chosen_cases(figures: Sequence[CaseSummary], ids: Sequence[str] | None) -> list[CaseSummary]:
    """Those of the artefacts named, or all.

    Raises:
        UsageError: one is in no run, or there is none at all.
    """
    known = list(dict.fromkeys(each.case.id for each in figures))
    if not known:
        raise UsageError("nothing was measured in these runs", hint="`edgesam-mobile history` lists the runs")
    if unknown := [name for name in ids or () if name not in known]:
        raise UsageError(f"no case {unknown[0]!r} in these runs", hint=f"there are {', '.join(known)}")
    return [each for each in figures if not ids or each.case.id in ids]


def write_results(
    junit: Path | None, markdown: Path | None, title: str, results: Sequence[Result], notes: Sequence[str] = ()
) -> None:
    """Write verdicts for continuous integration, where asked for.

    Raises:
        StorageError: a file cannot be written.
    """
    from edgesam_mobile.lab import outcomes

    texts = {junit: outcomes.junit(title, results), markdown: outcomes.markdown(title, results, notes)}
    for path, text in texts.items():
        if path is not None:
            with atomic_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


def named(labels: Sequence[str]) -> str:
    """The first few of some names and how many more there are, for a line."""
    distinct = list(dict.fromkeys(labels))
    more = len(distinct) - _NAMED
    return "; ".join(distinct[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def interval(estimate: Estimate | None, form: str = ".2f") -> str:
    """A value with its interval, for a table."""
    return "–" if estimate is None else format(estimate, form)
