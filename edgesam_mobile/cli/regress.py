"""``edgesam-mobile regress``: whether a run is slower than an earlier one, case by case."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.cli.runs import (
    Junit,
    Markdown,
    Place,
    chosen_cases,
    chosen_runs,
    interval,
    named,
    opened,
    write_results,
)
from edgesam_mobile.errors import Inconclusive, UsageError, VerificationFailed

if TYPE_CHECKING:
    from edgesam_mobile.lab.outcomes import Result, State
    from edgesam_mobile.lab.regress import Change, Comparison
    from edgesam_mobile.lab.store.store import Store
    from edgesam_mobile.lab.summary import CaseSummary

app = typer.Typer()

_COLUMNS = (
    "device", "case", "then", "then ms", "now", "now ms", "now / then, 95 %", "by", "kernel", "effect", "verdict",
)  # fmt: skip

_STATES: dict[Change, State] = {
    "slower": "failed",
    "faster": "passed",
    "no difference shown": "passed",
    "cannot tell": "inconclusive",
}


@command(
    app,
    "regress",
    examples=(
        "edgesam-mobile regress --against release-1.2",
        "edgesam-mobile regress --against release-1.2 4f1c --tolerance 3% --junit regress.xml --markdown regress.md",
        "edgesam-mobile regress --against 4f1c:tflite-fp32 4f1c:tflite-fp16",
    ),
)
def regress(
    against: Annotated[str, typer.Option(metavar="RUN[:CASE]", help="Id or tag of the earlier run.")],
    run: Annotated[
        str | None, typer.Argument(metavar="RUN[:CASE]", help="Id or tag; the newest run by default.")
    ] = None,
    tolerance: Annotated[str, typer.Option(help="How much slower is still as fast.")] = "5%",
    junit: Junit = None,
    markdown: Markdown = None,
    store: Place = None,
) -> None:
    """Say case by case whether the median frame became slower since another run, and how sure that is.

    Exit code 7 if a case is slower by more than the tolerance, 4 if that cannot be told of one. Cases are the same
    artefact of the same model on the same device with the same delegate and threads; with :CASE on both sides, any
    two on one device. Launches that were cut off or cancelled do not count.
    """
    from edgesam_mobile.lab.regress import compare, same_cases

    allowed = _tolerance(tolerance)
    place = opened(store)
    (new, new_case), (old, old_case) = _figures(place, run), _figures(place, against)
    if new_case and old_case:
        pairs = [(now, then) for now in new for then in old if now.device.key == then.device.key]
    else:
        pairs = same_cases(new, old)
    if not pairs:
        raise UsageError(
            "the two have no case in common of the same model on the same device",
            hint="name a case of each (RUN:CASE), or another run: `edgesam-mobile history` lists them",
        )
    found = [compare(now, then, tolerance=allowed) for now, then in pairs]
    missing = [each for each in old if all(each is not then for _, then in pairs)]
    title = f"Regression against {against}, tolerance {allowed:.1%}"
    write_results(junit, markdown, title, [_result(each) for each in found], list(map(_gone, missing)))
    data = {
        "tolerance": allowed,
        "cases": [_record(each) for each in found],
        "not_measured_now": [{"case": each.label, "device": each.device.key} for each in missing],
    }
    bare = [f"{each.change}: {each.new.label}" for each in found]
    out.result("edgesam.regress/1", data, human=lambda: _show(found, missing), quiet=bare)
    if slower := [each.new.label for each in found if each.change == "slower"]:
        raise VerificationFailed(f"slower than {against}: {named(slower)}", hint="the output says by how much")
    if unclear := [each.new.label for each in found if each.change == "cannot tell"]:
        raise Inconclusive(
            f"cannot tell whether slower than {against}: {named(unclear)}", hint="the output gives all reasons"
        )


def _figures(store: Store, name: str | None) -> tuple[list[CaseSummary], str]:
    """The cases of a run, or the one named after a colon, which no tag can hold."""
    from edgesam_mobile.lab.summary import summarise

    run, _, case = (name or "").partition(":")
    (record,) = chosen_runs(store, [run] if run else None)
    return chosen_cases(summarise([record]), [case] if case else None), case


def _tolerance(text: str) -> float:
    number, percent, rest = text.partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 < value < 1:
        raise UsageError(f"{text!r} is no tolerance", hint="such as 5% or 0.05")
    return value


def _record(found: Comparison) -> dict[str, Any]:
    return {
        "case": found.new.label,
        "device": asdict(found.new.device),
        "now": {"run": found.new.run.id, "case": found.new.case.id, "ms": _median(found.new)},
        "then": {"run": found.old.run.id, "case": found.old.case.id, "ms": _median(found.old)},
        "ratio": asdict(found.ratio) if found.ratio else None,
        "raw": asdict(found.raw) if found.raw else None,
        "kernel": found.kernel,
        "effect": found.effect,
        "paired": found.paired,
        "change": found.change,
        "reasons": found.reasons,
    }


def _result(found: Comparison) -> Result:
    from edgesam_mobile.lab.outcomes import Result

    text = f"median frame now / then {interval(found.ratio, '.3f')}, {_way(found)}"
    median = _median(found.new)
    return Result(
        group=found.new.where,
        name=found.new.label,
        state=_STATES[found.change],
        word=found.change,
        text="; ".join([text, *found.reasons]),
        seconds=None if median is None else median / 1000,
    )


def _show(found: list[Comparison], missing: list[CaseSummary]) -> None:
    out.table(_COLUMNS, map(_row, found))
    for each in found:
        for reason in each.reasons:
            out.say(f"{each.new.label} on {each.new.where}: {reason}")
    for case in missing:
        out.say(_gone(case))
    out.say(
        "by: rounds of one run, or two runs resampled apart, in times of the reference kernel where both have it; "
        "effect: Cliff's delta, 1 if every frame is slower now"
    )


def _row(found: Comparison) -> tuple[object, ...]:
    return (
        found.new.where,
        found.new.label,
        found.old.short_run,
        number(_median(found.old), ".2f"),
        found.new.short_run,
        number(_median(found.new), ".2f"),
        interval(found.ratio, ".3f"),
        _way(found),
        number(found.kernel, ".3f"),
        number(found.effect, "+.2f"),
        found.change,
    )


def _way(found: Comparison) -> str:
    if found.paired:
        return "rounds"
    return "runs" if found.raw is None else "runs, by kernel"


def _median(figures: CaseSummary) -> float | None:
    return figures.frame.p50.value if figures.frame else None


def _gone(case: CaseSummary) -> str:
    return f"{case.label} on {case.where} was measured then, not now"
