"""What the report says, section by section, before it becomes HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgesam_mobile.lab.page import charts
from edgesam_mobile.lab.records import DeviceRecord
from edgesam_mobile.lab.statistics import Estimate
from edgesam_mobile.lab.summary import CaseSummary, case_key, device_name, run_name
from edgesam_mobile.lab.targets import Target
from edgesam_mobile.lab.verdict import Spent, Verdict, judge, overall, time_spent

PHONES = ("android", "ios")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEADLINES = {"pass": "Target met", "missed": "Target missed", "inconclusive": "Inconclusive"}


@dataclass(frozen=True)
class Entry:
    """One case of the report; its mark stands for it in charts."""

    mark: str
    verdict: Verdict
    spent: tuple[Spent, ...]
    bar: Markup | None

    @property
    def figures(self) -> CaseSummary:
        """What was measured."""
        return self.verdict.figures


@dataclass(frozen=True)
class Device:
    """A device with its cases, and what it told about itself."""

    name: str
    facts: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Chart:
    """A drawing with a heading and a line on how to read it."""

    title: str
    where: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Gap:
    """Something that was not verified, and for which cases if not for all."""

    text: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything on the page but the figures of others."""

    headline: str
    outcome: str
    counts: str
    target: Target
    models: tuple[str, ...]
    several: bool
    devices: tuple[Device, ...]
    distributions: tuple[Chart, ...]
    sustained: tuple[Chart, ...]
    accuracies: tuple[Chart, ...]
    scattered: tuple[Entry, ...]
    history: tuple[Chart, ...]
    once: tuple[str, ...]
    gaps: tuple[Gap, ...]
    runs: tuple[Any, ...]


def gather(figures: Sequence[CaseSummary], target: Target, history: Sequence[CaseSummary]) -> Report:
    """Sections of the report.

    Args:
        figures: of at least one case.
        history: the same cases in these and other runs; the order does not matter.
    """
    entries = _entries(figures, target)
    runs = list({each.run.id: each.run for each in figures}.values())
    refused = all(entry.verdict.refused for entry in entries)
    outcome = "refused" if refused else overall([entry.verdict for entry in entries])
    past, once = _histories(figures, history)
    scattered = [entry for entry in entries if entry.figures.frame and entry.figures.case.accuracy]
    return Report(
        headline="Not compared" if refused else _HEADLINES[outcome],
        outcome=outcome,
        counts=_counts(entries),
        target=target,
        models=tuple(dict.fromkeys(run.model for run in runs)),
        several=len(runs) > 1,
        devices=tuple(_devices(entries)),
        distributions=tuple(_distributions(entries, target)),
        sustained=tuple(_sustained(entries)),
        accuracies=tuple(_accuracies(scattered)),
        scattered=tuple(scattered),
        history=past,
        once=once,
        gaps=tuple(_gaps(figures)),
        runs=tuple(runs),
    )


def _entries(figures: Sequence[CaseSummary], target: Target) -> list[Entry]:
    verdicts = [judge(each, target) for each in figures]
    splits = [verdict.spent or time_spent(verdict.figures) for verdict in verdicts]
    longest = max((sum(part.ms for part in split) for split in splits), default=0.0)
    return [
        Entry(_mark(number), verdict, split, charts.stages(split, longest) if split else None)
        for number, (verdict, split) in enumerate(zip(verdicts, splits, strict=True))
    ]


def _counts(entries: Sequence[Entry]) -> str:
    words = Counter(entry.verdict.word for entry in entries)
    told = ", ".join(f"{count} {word}" for word, count in sorted(words.items(), key=lambda pair: (-pair[1], pair[0])))
    return f"{len(entries)} case{'s' if len(entries) > 1 else ''}: {told}"


def _mark(number: int) -> str:
    """A, B … Z, A1, B1 …"""
    turn, letter = divmod(number, len(_LETTERS))
    return _LETTERS[letter] + (str(turn) if turn else "")


def _devices(entries: Sequence[Entry]) -> Iterator[Device]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.figures.device.key, []).append(entry)
    for group in groups.values():
        device = group[0].figures.device
        yield Device(device_name(device), _facts(device), tuple(group))


def _facts(device: DeviceRecord) -> str:
    info = device.info
    system = " ".join(str(info[key]) for key in ("os", "os_version") if info.get(key))
    memory = info.get("memory_bytes")
    facts = [
        system,
        str(info.get("soc") or ""),
        f"{info['cores']} cores" if info.get("cores") else "",
        f"{memory / 2**30:.1f} GiB" if isinstance(memory, int | float) else "",
    ]
    return ", ".join(fact for fact in facts if fact)


def _distributions(entries: Sequence[Entry], target: Target) -> Iterator[Chart]:
    for entry in entries:
        figures = entry.figures
        limit = None if entry.verdict.refused else target.p90_ms
        svg = charts.distribution(figures, limit)
        if svg is not None and figures.frame is not None:
            slowest = max(time for launch in figures.counted for time in launch.times("frame"))
            note = f"{figures.frame.summary.count} frames, slowest {slowest:.1f} ms"
            yield Chart(_title(entry), figures.where, svg, note)


def _sustained(entries: Sequence[Entry]) -> Iterator[Chart]:
    for entry in entries:
        figures = entry.figures
        if (svg := charts.sustained(figures)) is not None:
            yield Chart(_title(entry), figures.where, svg, _drift(figures))


def _drift(figures: CaseSummary) -> str:
    if figures.drift is None:
        return "too few frames to tell a drift"
    change = f"a launch's last third against its first: {figures.drift.ratio - 1:+.1%} time a frame"
    return f"{change}, more than chance" if figures.drift.flagged else change


def _accuracies(scattered: Sequence[Entry]) -> Iterator[Chart]:
    prompts = dict.fromkeys(prompt for entry in scattered for prompt in entry.figures.case.accuracy)
    for prompt in prompts:
        having = [(e.mark, e.figures) for e in scattered if prompt in e.figures.case.accuracy]
        yield Chart(f"mIoU from prompt: {prompt}", "", charts.accuracy(prompt, having))


def _histories(
    figures: Sequence[CaseSummary], history: Sequence[CaseSummary]
) -> tuple[tuple[Chart, ...], tuple[str, ...]]:
    """Charts of cases measured in several runs, and names of those measured once."""
    here = frozenset(each.run.id for each in figures)
    known = {_identity(each): each for each in figures}
    drawn, once = [], []
    for identity, case in known.items():
        # The report's own runs know more of a case than what was read for its history.
        found = {each.run.id: each for each in [*history, *figures] if _identity(each) == identity and each.frame}
        past = sorted(found.values(), key=lambda each: (each.run.created, each.run.id))
        if len(past) > 1:
            drawn.append(Chart(case.label, case.where, charts.over_runs(past, here)))
        else:
            once.append(f"{case.label} on {case.where}")
    return tuple(drawn), tuple(once)


def _identity(figures: CaseSummary) -> tuple[str, ...]:
    return (figures.device.key, figures.run.model, *case_key(figures.case))


def _title(entry: Entry) -> str:
    return f"{entry.mark} · {entry.figures.label}"


def _gaps(figures: Sequence[CaseSummary]) -> Iterator[Gap]:
    """What a reader might take for verified and is not."""
    if not any(each.device.kind in PHONES for each in figures):
        yield Gap("Nothing here was measured on a phone; these times say nothing about one.")
    questions: tuple[tuple[str, Callable[[CaseSummary], bool]], ...] = (
        (
            "Emulated and simulated devices: their times say nothing about a real one.",
            lambda s: s.device.kind in ("emulator", "simulated"),
        ),
        ("Nothing was timed.", lambda s: s.frame is None),
        ("The weights are untrained, so that masks mean nothing.", lambda s: not s.run.trained),
        ("Masks: no agreement with PyTorch was told.", lambda s: s.mask_iou is None),
        ("Masks: a check failed, or not every launch told one.", lambda s: s.checked is not True),
        ("mIoU on annotated pictures: not in the manifest.", lambda s: not s.case.accuracy),
        ("Heat: no thermal state was told.", lambda s: s.thermal is None),
        ("Intervals: one launch cannot tell how launches differ.", lambda s: len(s.counted) == 1),
        ("Loading without what the runtime keeps on disk.", lambda s: s.load_cold is None),
        ("Loading with what the runtime keeps on disk.", lambda s: s.load_cached is None),
        ("Comparison with other days: no reference kernel was timed.", lambda s: s.kernel is None),
        (
            "Launches that failed, were cancelled or cut off.",
            lambda s: any(launch.status != "complete" for launch in s.launches),
        ),
    )
    for text, is_open in questions:
        found = [f"{each.label} on {each.where}" for each in figures if is_open(each)]
        if len(found) == len(figures):
            yield Gap(text)
        elif found:
            yield Gap(text, tuple(dict.fromkeys(found)))
    if partial := [run_name(each.run) for each in figures if each.run.status != "complete"]:
        yield Gap(f"Runs that did not get to their end: {', '.join(dict.fromkeys(partial))}.")
    yield Gap("Figures published by others were not measured here.")


def milliseconds(value: float | None) -> str:
    """As many digits as mean something."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def interval(estimate: Estimate | None) -> str:
    """The ends of an interval in milliseconds; empty without one."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{milliseconds(estimate.low)} to {milliseconds(estimate.high)}"
