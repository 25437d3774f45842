"""``edgesam-mobile bench --device …``: a package on phones and other harnesses, several at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.devices import discovered
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.errors import DeviceError, EdgeSamError, StorageError, UsageError

if TYPE_CHECKING:
    from edgesam_mobile.lab.devices import Harness
    from edgesam_mobile.lab.fleet import Outcome
    from edgesam_mobile.lab.jobs import JobOptions
    from edgesam_mobile.lab.records import LaunchRecord, RunRecord
    from edgesam_mobile.lab.store.store import Store
    from edgesam_mobile.lab.summary import CaseSummary

SCHEMA = "edgesam.bench-devices/1"
_COLUMNS = (
    "device", "artefact", "launches", "load ms", "first ms", "encode p50", "decode p50", "frame p50 / p90", "FPS",
    "thermal", "mask IoU",
)  # fmt: skip


@dataclass(frozen=True)
class StorePlace:
    """Where launches are kept; ``None`` is the default store."""

    where: str | None


class Keeper:
    """Keeps launches of one run as they end.

    Attributes:
        launches: all of them.
        unstored: one line for each that the store did not take, and where it is instead.
        status: what the run is called at its end; never complete where something is not stored.
    """

    def __init__(self, store: Store | None, run: RunRecord) -> None:
        self.launches: list[LaunchRecord] = []
        self.unstored: list[str] = []
        self.status: Literal["complete", "partial"] = "partial"
        self._store, self._run = store, run

    def __call__(self, launch: LaunchRecord) -> None:
        self.launches.append(launch)
        if self._store is not None:
            try:
                self._store.add_launch(self._run.id, launch)
            except StorageError as error:
                self._note(error)

    def finish(self) -> None:
        """Note in the store how the run ended; a store that fails now takes no figure from the table."""
        if self.unstored:
            self.status = "partial"
        if self._store is not None:
            try:
                self._store.finish(self._run.id, self.status)
            except EdgeSamError as error:
                self._note(error)

    def refuse_unstored(self) -> None:
        """End with an error where the store has not everything.

        Raises:
            StorageError: the warnings before it have said what is missing.
        """
        if self.unstored:
            raise StorageError(
                f"not everything of run {self._run.id[:8]} is in the store: {self.unstored[0]}",
                hint="the warnings above say where it is; `edgesam-mobile history import FILE` takes it in",
            )

    def _note(self, error: EdgeSamError) -> None:
        self.unstored.append(error.message)
        out.warn(f"{error.message} ({error.hint})" if error.hint else error.message)


@contextmanager
def kept(place: StorePlace | None, run: RunRecord) -> Iterator[Keeper]:
    """A run in the store, from its beginning to its end; without a place nothing is kept."""
    if place is None:
        yield Keeper(None, run)
        return
    from edgesam_mobile.lab.store import open_store

    store = open_store(place.where)
    store.begin(run)
    keeper = Keeper(store, run)
    try:
        yield keeper
    finally:
        keeper.finish()


def bench_devices(
    package: Path,
    addresses: Sequence[str],
    options: JobOptions,
    image: Path | None,
    only: Sequence[str],
    weights: str | None,
    lab: Path | None,
    harness: Harness,
    place: StorePlace | None,
    tags: tuple[str, ...],
    offline: bool,
) -> None:
    """Measure, show, keep, and end with the exit code that tells what happened."""
    from edgesam_mobile.cli.live import LiveView
    from edgesam_mobile.evaluate.probes import builtin_pictures
    from edgesam_mobile.lab.devices import open_link, select, stands_for_several
    from edgesam_mobile.lab.fleet import measure_on, refuse_unoffered
    from edgesam_mobile.lab.inputs import make_inputs
    from edgesam_mobile.lab.jobs import new_run
    from edgesam_mobile.package.manifest import read_manifest

    manifest = read_manifest(package)
    keys = select(addresses, discovered(lab) if any(map(stands_for_several, addresses)) else ())
    if "host" in keys:
        hint = "measure this machine in a run of its own: it is busy with the devices"
        raise UsageError("host beside other devices", hint=hint)
    view = LiveView()
    links = [open_link(key, harness=harness, say=view.said) for key in keys]
    run = new_run(manifest, package, {**asdict(options), "devices": keys}, tags)
    with tempfile.TemporaryDirectory() as folder:
        out.note("asking PyTorch for the masks that devices are checked by")
        inputs = make_inputs(manifest, image or builtin_pictures()[0], Path(folder), weights=weights, offline=offline)
        with kept(place, run) as keep, view.shown():
            outcomes, interrupted = measure_on(
                links, package, manifest, inputs, options, store=keep, watcher=view, only=only
            )
            whole = not interrupted and all(outcome.whole for outcome in outcomes)
            keep.status = "complete" if whole else "partial"
    said = manifest.weights
    flag_weights(said.commercial_use, said.licence, said.trained)
    _tell(run, keep, outcomes, kept_in=place)
    if interrupted:
        raise typer.Exit(130)
    refuse_unoffered(outcomes, options.delegates)
    if failed := [outcome for outcome in outcomes if not outcome.whole]:
        raise DeviceError(
            f"not everything was measured on {', '.join(outcome.device for outcome in failed)}",
            hint="the lines above say why; what was measured is kept",
        )
    keep.refuse_unstored()


def _tell(run: RunRecord, keep: Keeper, outcomes: Sequence[Outcome], *, kept_in: StorePlace | None) -> None:
    from dataclasses import replace

    from edgesam_mobile.lab.summary import summarise

    figures = summarise([replace(run, launches=tuple(keep.launches), status=keep.status)])

    def human() -> None:
        out.table(_COLUMNS, map(_row, figures))
        for outcome in outcomes:
            for line in outcome.skipped:
                out.say(f"{outcome.device}: {line}")
        if kept_in is not None:
            out.say(f"run {run.id[:8]} ({keep.status}); `edgesam-mobile report {run.id[:8]} -o report.html` draws it")

    data: dict[str, Any] = {
        "run": run.id if kept_in is not None else None,
        "status": keep.status,
        "devices": [
            {
                "device": outcome.device,
                "planned": outcome.planned,
                "launches": [{"id": o.id, "status": o.status, "error": o.error} for o in outcome.launches],
                "skipped": outcome.skipped,
                "error": outcome.error.message if outcome.error else None,
            }
            for outcome in outcomes
        ],
        "cases": [figure.to_json() for figure in figures],
    }
    for outcome in outcomes:
        if outcome.error is not None:
            hint = f" ({outcome.error.hint})" if outcome.error.hint else ""
            out.warn(f"{outcome.device}: {outcome.error.message}{hint}")
        for launch in outcome.launches:
            if launch.status not in ("complete", "cancelled"):
                out.warn(
                    f"{outcome.device}: {launch.case.id} launch {launch.index + 1} {launch.status}: {launch.error}"
                )
    out.result(SCHEMA, data, human=human, quiet=[run.id] if kept_in is not None else [])


def _row(figures: CaseSummary) -> tuple[object, ...]:
    frame = figures.frame
    load = figures.load_cold or figures.load_cached
    parts = [
        number(figures.parts[part].p50 if part in figures.parts else None, ".1f") for part in ("encode", "decode")
    ]
    return (
        figures.where,
        figures.label,
        f"{len(figures.counted)}/{len(figures.launches)}",
        number(load.value if load else None, ".0f"),
        number(figures.first.value if figures.first else None, ".1f"),
        *parts,
        f"{frame.p50.value:.1f} / {frame.p90.value:.1f}" if frame else "–",
        number(figures.fps.value if figures.fps else None, ".1f"),
        figures.thermal or "–",
        number(figures.mask_iou, ".4f"),
    )
