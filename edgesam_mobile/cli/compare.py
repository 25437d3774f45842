"""``edgesam-mobile compare``: measured runs against a target, with every reason that keeps it from a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.cli.runs import (
    Cases,
    Junit,
    Markdown,
    Place,
    Runs,
    chosen_cases,
    chosen_runs,
    interval,
    named,
    opened,
    write_results,
)
from edgesam_mobile.errors import Inconclusive, TargetMissed

if TYPE_CHECKING:
    from edgesam_mobile.lab.outcomes import Result, State
    from edgesam_mobile.lab.targets import Published, Target
    from edgesam_mobile.lab.verdict import Outcome, Verdict

app = typer.Typer()

NOT_OURS = "figures of others, not measured here"
_COLUMNS = (
    "run", "device", "case", "frames", "launches", "frame p50 ms", "frame p90 ms, 95 %", "FPS", "load cold / cached",
    "first ms", "thermal", "mask IoU", "verdict",
)  # fmt: skip
_STATES: dict[Outcome, State] = {"pass": "passed", "missed": "failed", "inconclusive": "inconclusive"}
_PUBLISHED_COLUMNS = ("published by others, not measured here", "device", "what of it", "ms", "FPS", "source")


@command(
    app,
    "compare",
    examples=(
        "edgesam-mobile compare --target iphone14-30fps",
        "edgesam-mobile compare release-1.2 4f1c --case coreml-fp16 --target iphone14-30fps --json",
        "edgesam-mobile compare --target kiosk.toml --junit verdict.xml --markdown verdict.md",
    ),
)
def compare(
    target: Annotated[str, typer.Option(help="A target that comes along (iphone14-30fps), or a TOML file.")],
    runs: Runs = None,
    case: Cases = None,
    junit: Junit = None,
    markdown: Markdown = None,
    store: Place = None,
) -> None:
    """Say whether what was measured meets a target: by the p90 of the whole frame and its 95 % interval.

    Pass (exit code 0) if the interval is within the limit for every case, missed (3) if it is beyond for one.
    Inconclusive (4), with all reasons: the interval holds the limit, too few frames or launches, a hot device,
    wrong masks, a debug build, or another device than the target's.
    """
    from edgesam_mobile.lab.summary import summarise
    from edgesam_mobile.lab.targets import load_target, published
    from edgesam_mobile.lab.verdict import judge, overall

    wanted = load_target(target)
    figures = chosen_cases(summarise(chosen_runs(opened(store), runs)), case)
    verdicts = [judge(each, wanted) for each in figures]
    outcome = overall(verdicts)
    results = [_result(verdict) for verdict in verdicts]
    write_results(junit, markdown, _title(wanted), results, [_line(figure) for figure in published()])
    data = {
        "target": {"name": target, **asdict(wanted)},
        "outcome": outcome,
        "cases": [_record(verdict) for verdict in verdicts],
        "published": {"note": NOT_OURS, "figures": [asdict(figure) for figure in published()]},
    }
    bare = [f"{verdict.outcome} {verdict.figures.label}" for verdict in verdicts]
    out.result("edgesam.compare/1", data, human=lambda: _show(verdicts, wanted, published()), quiet=bare)
    concerned = named([verdict.figures.label for verdict in verdicts if verdict.outcome == outcome])
    if outcome == "missed":
        raise TargetMissed(f"{wanted.title}: missed by {concerned}", hint="the output says where the time goes")
    if outcome == "inconclusive":
        raise Inconclusive(f"{wanted.title}: inconclusive for {concerned}", hint="the output gives all reasons")


def _title(target: Target) -> str:
    return f"{target.title}: p90 of the whole frame within {target.p90_ms:g} ms on {target.device.name}"


def _record(verdict: Verdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome,
        "refused": verdict.refused,
        "reasons": verdict.reasons,
        "p90": asdict(verdict.p90) if verdict.p90 else None,
        "spent": [asdict(part) for part in verdict.spent],
        **verdict.figures.to_json(),
    }


def _result(verdict: Verdict) -> Result:
    from edgesam_mobile.lab.outcomes import Result

    figures = verdict.figures
    texts = [f"frame p90 {interval(verdict.p90)} ms", *verdict.reasons, *(part.text for part in verdict.spent)]
    return Result(
        group=figures.where,
        name=f"{figures.label} ({figures.short_run})",
        state=_STATES[verdict.outcome],
        word=verdict.word,
        text="; ".join(texts),
        seconds=figures.frame.p50.value / 1000 if figures.frame else None,
    )


def _show(verdicts: Sequence[Verdict], target: Target, others: Sequence[Published]) -> None:
    out.say(_title(target))
    out.table(_COLUMNS, map(_row, verdicts))
    for verdict in verdicts:
        figures, lines = verdict.figures, [*verdict.reasons, *(part.text for part in verdict.spent)]
        if figures.drift and figures.drift.flagged:
            lines.append(f"frames of a launch's last third took {figures.drift.ratio:.2f} x those of its first")
        if lines:
            out.say(f"{figures.label} on {figures.where}, run {figures.short_run}:")
        for line in lines:
            out.say(f"  {line}")
    out.say()
    rows = [(f.what, f.device, f.stage, f.ms_text, number(f.fps, "g"), f.source) for f in others]
    out.table(_PUBLISHED_COLUMNS, rows)


def _row(verdict: Verdict) -> tuple[object, ...]:
    figures = verdict.figures
    frame = figures.frame
    loads = [number(load.value if load else None, ".0f") for load in (figures.load_cold, figures.load_cached)]
    return (
        figures.short_run,
        figures.where,
        figures.label,
        frame.summary.count if frame else 0,
        len(figures.counted),
        number(frame.p50.value if frame else None, ".2f"),
        interval(verdict.p90),
        number(figures.fps.value if figures.fps else None, ".1f"),
        " / ".join(loads),
        number(figures.first.value if figures.first else None, ".1f"),
        figures.thermal or "–",
        number(figures.mask_iou, ".4f"),
        verdict.word,
    )


def _line(figure: Published) -> str:
    parts = [f"{figure.ms_text} ms"] if figure.ms else []
    parts += [f"{figure.fps:g} FPS"] if figure.fps else []
    return f"{figure.what} on {figure.device}, {figure.stage}: {', '.join(parts)} ({figure.source}; {NOT_OURS})"
