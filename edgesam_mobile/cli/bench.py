"""``edgesam-mobile bench``: a package's artefacts timed, here beside the baselines or on devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgesam_mobile.cli.bench_devices import StorePlace, bench_devices, kept
from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.devices import LabFile
from edgesam_mobile.cli.output import out
from edgesam_mobile.cli.runs import Place
from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError
from edgesam_mobile.files import atomic_file

if TYPE_CHECKING:
    from edgesam_mobile.lab.host import BenchResult
    from edgesam_mobile.lab.report import CaseReport, StageReport
    from edgesam_mobile.lab.statistics import Estimate

app = typer.Typer()

SCHEMA = "edgesam.bench/1"
_WAITED = 0.05  # share of time in the queue for a processor from which timings are doubtful
_COLUMNS = (
    "case", "executed by", "threads", "load ms", "first ms", "encode p50/p90", "decode p50/p90", "frame p50/p90/p99",
    "FPS", "vs PyTorch", "peak MB", "mask IoU",
)  # fmt: skip


@command(
    app,
    "bench",
    examples=(
        "edgesam-mobile bench out",
        "edgesam-mobile bench out --threads 1 --threads 2 --samples samples.json",
        "edgesam-mobile bench out --only tflite-fp32 --only pytorch-eager --launches 2 --seconds 2 --json",
        "edgesam-mobile bench out --only coreml-fp16 --only pytorch-eager --launches 1 --seconds 1",
        "edgesam-mobile bench out --device adb:R58M123ABC --device label:nightly --tag monday",
        "edgesam-mobile bench out --device all --only tflite-fp16 --sustain 10m",
        "edgesam-mobile bench out --device ios:00008110-001A2B3C4D5E6F70 --install --team ABCDE12345",
    ),
)
def bench(
    package: Annotated[Path, typer.Argument(help="Folder that `build` wrote.")],
    device: Annotated[
        list[str],
        typer.Option(
            help="host (this machine), adb:SERIAL, ios:UDID, loopback:PORT, loopback-swift, label:NAME or all; "
            "can be repeated."
        ),
    ] = ["host"],  # noqa: B006
    launches: Annotated[int, typer.Option(help="Processes for each case that is timed.")] = 5,
    threads: Annotated[list[int] | None, typer.Option(help="Threads; can be repeated. All by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Measured seconds in each process, after the warm-up.")] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="Id of a case to run; can be repeated.")] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave the baselines out, and so what is interpreted.")
    ] = False,
    weights: Annotated[str | None, typer.Option(help="The weights the package was built from, if not found.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to segment; a built-in one by default.")] = None,
    samples: Annotated[Path | None, typer.Option(help="JSON file to write every raw sample to.")] = None,
    delegate: Annotated[
        list[str] | None, typer.Option(help="Delegate or compute units on devices; can be repeated.")
    ] = None,
    sustain: Annotated[
        str | None,
        typer.Option(help="One long launch a case on devices instead of several short ones, such as 10m or 90s."),
    ] = None,
    hottest: Annotated[
        Literal["nominal", "fair", "serious"] | None,
        typer.Option(help="Thermal state in which a device may start; fair by default."),
    ] = None,
    apk: Annotated[Path | None, typer.Option(help="Android harness to install where it is missing or older.")] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Build, install and start the harness on iPhones first; needs Xcode.")
    ] = False,
    team: Annotated[str | None, typer.Option(help="Apple's development team to sign it with.")] = None,
    lab: LabFile = None,
    store: Place = None,
    no_store: Annotated[bool, typer.Option("--no-store", help="Keep nothing.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="Name for the run; can be repeated.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Time artefacts: on this machine, against PyTorch and a published-style ONNX export, or on devices.

    Every case runs in several processes of its own, interleaved, each after a warm-up. Every launch goes into the
    store as it ends; an interrupt keeps what was measured. Timings of this machine say nothing about a phone. Core ML
    artefacts are interpreted here, last and once: for their masks, which are held against PyTorch's. Nothing of that
    is timed or stored.
    """
    if team is not None and not install:
        raise UsageError("--team without --install signs nothing", hint="add --install, or leave --team out")
    on_devices = device != ["host"]
    _refuse_unused(
        {"--samples": samples, "--no-baselines": no_baselines}
        if on_devices
        else {
            "--delegate": delegate, "--sustain": sustain, "--hottest": hottest, "--apk": apk, "--install": install,
            "--lab": lab,
        },
        "is for this machine, not for devices" if on_devices else "is for devices, and --device names none",
    )  # fmt: skip
    place = None if no_store else StorePlace(store)
    if on_devices:
        from edgesam_mobile.lab.devices import Harness
        from edgesam_mobile.lab.jobs import JobOptions

        options = JobOptions(
            seconds=seconds,
            launches=launches,
            sustain=_seconds(sustain) if sustain else 0.0,
            delegates=tuple(delegate or ()),
            threads=tuple(threads or ()),
            hottest=hottest or "fair",
        )
        harness = Harness(apk, install, team)
        bench_devices(
            package, device, options, image, only or (), weights, lab, harness, place, tuple(tag or ()), offline
        )
        return
    from edgesam_mobile.deploy.place import refuse_unwritable
    from edgesam_mobile.lab.host import measure, prepare
    from edgesam_mobile.lab.host_records import HostRecorder
    from edgesam_mobile.lab.jobs import new_run
    from edgesam_mobile.lab.report import as_record, report

    if samples is not None:
        if samples.is_dir():
            raise StorageError(f"{samples} is a folder", hint="name a file for the samples")
        refuse_unwritable(samples)
    prepared = prepare(
        package,
        threads=threads or (),
        only=only or (),
        baselines=not no_baselines,
        weights=weights,
        image=image,
        offline=offline,
        note=out.note,
    )
    run = new_run(prepared.manifest, package, {"launches": launches, "seconds": seconds}, tuple(tag or ()))
    with kept(place, run) as keep:
        recorder = HostRecorder(prepared, keep)
        try:
            with out.progress("measuring", prepared.processes(launches)) as advance:
                take = recorder.take
                result = measure(prepared, launches=launches, seconds=seconds, report=advance, on_launch=take)
        finally:
            recorder.finish()  # what waits for PyTorch must survive whatever ended the run
        keep.status = "partial" if result.partial else "complete"
    reports = report(result)
    data = {"run": run.id if place else None, **as_record(result, reports)}
    warn(result, reports)
    out.result(SCHEMA, data, human=lambda: _show(result, reports), quiet=_quiet(reports))
    if samples is not None:
        with atomic_file(samples) as path:
            path.write_text(json.dumps({"schema": SCHEMA, **data}, indent=1) + "\n", encoding="utf-8")
    if result.partial:
        raise typer.Exit(130)
    refuse_unmeasured(reports)
    keep.refuse_unstored()


def _refuse_unused(options: dict[str, object], why: str) -> None:
    """What would change nothing is refused: somebody counts on it.

    Raises:
        UsageError: one of ``options`` was given.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} {why}", hint=f"leave {name} out, or look at --device")


def refuse_unmeasured(reports: list[CaseReport]) -> None:
    """End with an error where a case has no numbers because every launch of it failed.

    Raises:
        EdgeSamError: it names the cases; :func:`warn` has said why.
    """
    if failed := [r.case.key for r in reports if not r.launches]:
        raise EdgeSamError(f"no launch succeeded of {', '.join(failed)}", hint="the warnings above say why")


def _seconds(text: str) -> float:
    """A duration such as ``10m``, ``90s``, ``2h`` or plain seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in "smh" else (text, "s")
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        raise UsageError(f"{text!r} is no duration", hint="write 10m, 90s or 2h") from None


def warn(result: BenchResult, reports: list[CaseReport]) -> None:
    """What makes the numbers doubtful, in every mode."""
    said = result.prepared.manifest.weights
    flag_weights(said.commercial_use, said.licence, said.trained)
    if result.partial:
        out.warn("interrupted: these are partial results")
    for launch in result.launches:
        if launch.status == "failed":
            out.warn(f"{launch.case.key} launch {launch.index + 1} failed: {launch.error}")
    for r in reports:
        if r.unstable:
            out.warn(f"{r.case.key}: the warm-up of {r.unstable} of {r.launches} launches did not settle")
        if r.drift and r.drift.flagged:
            out.warn(f"{r.case.key}: frames of a launch's last third took {r.drift.ratio:.2f} x those of its first")
        if r.mask_iou is not None and r.mask_iou < 0.9:
            out.warn(f"{r.case.key}: its mask is not PyTorch's (IoU {r.mask_iou:.3f}): see `edgesam-mobile verify`")
    waited = max((r.waited for r in reports if r.waited is not None), default=0.0)
    if waited > _WAITED:
        out.warn(
            f"other processes held the processors: cases waited for one up to {waited:.0%} of the time. Threads that "
            "wait for each other suffer most, so no ratio here is to be trusted; stop the others, or try --threads 1"
        )


def _show(result: BenchResult, reports: list[CaseReport]) -> None:
    machine, settings = result.machine, result.settings
    load = f"load {machine.load_before:.2f} before, {machine.load_after:.2f} after"
    out.say(f"{machine.cpu}, {machine.cores} cores, {machine.system}, {load}")
    out.say("host timings say nothing about a phone")
    rows = [_row(r) for r in reports]
    rows += [(s.id, "–", "–", "not timed", *["–"] * 8) for s in result.prepared.skipped]
    out.table(_COLUMNS, rows)
    for skipped in result.prepared.skipped:
        out.say(f"{skipped.id}: {skipped.reason}")
    out.say(
        f"{result.prepared.manifest.model} on {result.prepared.image.name}, one point; ms; "
        f"{settings['launches']} launches of {settings['seconds']:g} s each, {result.seconds:.0f} s in all; "
        "vs PyTorch: how many times as long its frame takes, with 95 % interval; "
        "peak MB: of the process, in brackets the growth from loading the model on"
    )
    if any(r.case.kind == "interpreted" for r in reports):
        out.say(
            "interpreter: on a device something else executes it; it ran once, for its mask, was not timed and is "
            "not in the store"
        )
    if any(r.quick for r in reports):
        out.say("quick run: good for a look; for a figure to publish take 5 launches and 60 s or 1024 frames a case")


def _row(r: CaseReport) -> tuple[object, ...]:
    peak = "–"
    if r.peak_bytes is not None and r.growth_bytes is not None:
        peak = f"{r.peak_bytes / 1e6:.0f} (+{r.growth_bytes / 1e6:.0f})"
    frame = r.stages.get("frame")
    return (
        r.case.id,
        r.case.runtime,
        r.case.threads,
        _number(r.load_ms) if r.launches else "failed",
        _number(r.first_ms),
        _percentiles(r.stages.get("encode")),
        _percentiles(r.stages.get("decode")),
        _percentiles(frame, tail=True),
        f"{1000 / frame.summary.p50:.2f}" if frame else "–",
        _times(r.vs_pytorch),
        peak,
        "–" if r.mask_iou is None else f"{r.mask_iou:.4f}",
    )


def _percentiles(stage: StageReport | None, *, tail: bool = False) -> str:
    if stage is None:
        return "–"
    summary = stage.summary
    values = (summary.p50, summary.p90, summary.p99) if tail else (summary.p50, summary.p90)
    return " / ".join(_number(value) for value in values)


def _times(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}x"
    return f"{estimate.value:.2f}x [{estimate.low:.2f}, {estimate.high:.2f}]"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _quiet(reports: list[CaseReport]) -> list[Any]:
    """Case and median frame in milliseconds, one case a line."""
    return [f"{r.case.key} {r.stages['frame'].summary.p50:.3f}" for r in reports if "frame" in r.stages]
