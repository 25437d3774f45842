"""How much faster the best artefact of a package is on this machine than PyTorch and than a published-style ONNX
export, in one interleaved run: ``python benchmarks/host.py DIR``. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.lab.cases import PUBLISHED, PYTORCH
from edgesam_mobile.lab.host import BenchResult, bench
from edgesam_mobile.lab.report import CaseReport, as_record, report, speed_up
from edgesam_mobile.lab.statistics import Estimate

TARGETS = {PYTORCH: 1.5, PUBLISHED: 1.0}
SMALL = "-recommended"  # compressed artefacts, whose encoders have targets of their own
SMALL_TARGETS = {PYTORCH: 2.5, "onnx-fp32": 1.8}
MOST_WAITED = 0.1  # share of the time; ONNX Runtime alone makes up to 0.09 of it: its threads spin beside NumPy's
LEAST_IOU = 0.95  # a fast wrong answer is not a candidate


def main() -> None:
    """Run the benchmark and print the two comparisons as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="measured time in each process")
    parser.add_argument("--threads", type=int, action="append", help="can be repeated; all processors by default")
    parser.add_argument("--samples", type=Path, help="JSON file for every raw sample")
    chosen = parser.parse_args()
    try:
        result = bench(
            chosen.package,
            launches=chosen.launches,
            seconds=chosen.seconds,
            threads=chosen.threads or (),
            interpreted=False,
            report=lambda line: print(line, file=sys.stderr),
        )
    except EdgeSamError as error:
        sys.exit(f"error: {error.message}")
    reports = report(result)
    if chosen.samples is not None:
        chosen.samples.write_text(json.dumps({"schema": "edgesam.bench/1", **as_record(result, reports)}))
    print_results(result, reports)


def print_results(result: BenchResult, reports: list[CaseReport]) -> None:
    """The machine, medians of every case, and the comparisons."""
    machine = result.machine
    waited = max((r.waited or 0.0 for r in reports), default=0.0)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.system}; {result.prepared.manifest.model}; ", end="")
    print(f"{result.settings['launches']} launches of {result.settings['seconds']:g} s", end="")
    print(", interrupted" if result.partial else "")
    print(f"load {machine.load_before:.2f} before, {machine.load_after:.2f} after; ", end="")
    print(f"waited for a processor at most {waited:.0%} of the time\n")
    if waited > MOST_WAITED:
        print("**The machine was busy with something else: do not quote these ratios.**\n")
    print("| case | threads | encode p50 ms | decode p50 ms | frame p50 / p90 / p99 ms | mask IoU |")
    print("|--|--|--|--|--|--|")
    for r in reports:
        if "frame" in r.stages:
            frame = r.stages["frame"].summary
            parts = (f"{r.stages[part].summary.p50:.1f}" for part in ("encode", "decode"))
            iou = "–" if r.mask_iou is None else f"{r.mask_iou:.4f}"
            percentiles = f"{frame.p50:.1f} / {frame.p90:.1f} / {frame.p99:.1f}"
            print(f"| {r.case.id} | {r.case.threads} | {' | '.join(parts)} | {percentiles} | {iou} |")
    print("\n| against | threads | part | artefact | times faster [95 %] | of processor time | target | met |")
    print("|--|--|--|--|--|--|--|--|")
    for threads in sorted({r.case.threads for r in reports}):
        candidates = [r for r in reports if r.case.threads == threads and is_candidate(r)]
        if candidates:
            best = min(candidates, key=lambda r: r.stages["frame"].summary.p50)
            print_comparisons(result, best, TARGETS, ("encode", "decode"))
    for r in reports:
        if r.case.id.endswith(SMALL) and "frame" in r.stages:
            print_comparisons(result, r, SMALL_TARGETS, ("encode",))


def is_candidate(r: CaseReport) -> bool:
    """An artefact that was measured and answers as PyTorch does."""
    return r.case.kind == "artifact" and "frame" in r.stages and (r.mask_iou or 0.0) >= LEAST_IOU


def print_comparisons(
    result: BenchResult, one: CaseReport, targets: dict[str, float], parts: tuple[str, ...]
) -> None:
    """One row a baseline and part."""
    for baseline, target in targets.items():
        for part in parts:
            wall = speed_up(result, one.case, baseline, part)
            used = speed_up(result, one.case, baseline, part, cpu=True)
            if wall is None or used is None:
                continue
            sign = "more than" if target == 1 else "at least"
            print(
                f"| {baseline} | {one.case.threads} | {part} | {one.case.id} | {shown(wall)} | {shown(used)} "
                f"| {sign} {target:g} | {verdict(wall, target)} |"
            )


def shown(estimate: Estimate) -> str:
    """A ratio with its interval."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def verdict(estimate: Estimate, target: float) -> str:
    """Met or missed if the whole interval says so."""
    if estimate.low is None or estimate.high is None:
        return "inconclusive"
    if estimate.low > target:
        return "yes"
    return "no" if estimate.high < target else "inconclusive"


if __name__ == "__main__":
    main()
