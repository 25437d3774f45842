"""From a package to the jobs of a run: which artefact, with which options, on which device."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgesam_mobile import __version__
from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.metrics import LEAST_IOU
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.inputs import Inputs
from edgesam_mobile.lab.protocol.events import Hello
from edgesam_mobile.lab.protocol.requests import (
    GraphFile,
    Job,
    JobMask,
    JobPicture,
    JobPrompt,
    Measure,
    Tensor,
    ThermalGate,
    WarmUp,
)
from edgesam_mobile.lab.records import CaseRecord, RunRecord
from edgesam_mobile.package.manifest import FILE_NAME, Artifact, GraphRecord, Manifest, TensorSpec, check_file

# Of an artefact compressed beyond half precision, on any one prompt. `verify` asks more of the mean over prompts, and
# `eval` on annotated pictures judges; this is to find a runtime that computes something else.
_LEAST_COMPRESSED = 0.7
WARM_UP = WarmUp(rounds=100, seconds=20.0, window=3, tolerance=0.05)


@dataclass(frozen=True)
class JobOptions:
    """How every launch is measured.

    Attributes:
        seconds: measured time of each launch, at the least.
        rounds: frames of each launch, at the least.
        launches: processes for each case.
        sustain: seconds of one long launch a case, instead of ``launches`` short ones; 0 for none.
        delegates: those to ask for; empty for the first that the device offers for a format.
        hottest: thermal state that may start.
        wait: seconds to wait for it.
        seed: of the order of the cases in each round.
    """

    seconds: float = 5.0
    rounds: int = 20
    launches: int = 5
    sustain: float = 0.0
    delegates: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    hottest: str = "fair"
    wait: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.launches < 1 or self.rounds < 1 or not 0 < self.seconds <= 24 * 3600:
            raise UsageError("launches and seconds must be positive", hint="a job takes 24 hours at most")
        if not 0 <= self.sustain <= 24 * 3600 or not 0 <= self.wait <= 24 * 3600:
            raise UsageError("a job takes 24 hours at most", hint="lower --sustain")


@dataclass(frozen=True)
class Planned:
    """One case of one device: an artefact with a delegate and a number of threads."""

    artifact: Artifact
    runtime: str
    delegate: str | None
    threads: int | None


def new_run(manifest: Manifest, package: Path, settings: Mapping[str, Any], tags: tuple[str, ...] = ()) -> RunRecord:
    """A run that is about to begin, on whatever device."""
    weights = manifest.weights
    return RunRecord(
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status="running",
        model=manifest.model,
        weights_sha256=weights.sha256,
        trained=weights.trained,
        package_sha256=sha256_of(package / FILE_NAME),
        settings=dict(settings),
        tools={"edgesam-mobile": __version__, **manifest.tools},
        tags=tags,
    )


def least_iou(precision: str) -> float:
    """Mask IoU with PyTorch below which a launch is wrong."""
    return LEAST_IOU.get(precision, _LEAST_COMPRESSED)


def case_record(
    manifest: Manifest, artifact: Artifact, runtime: str, *, delegate: str | None = None, threads: int | None = None
) -> CaseRecord:
    """What is kept of an artefact that is measured."""
    table = manifest.accuracy
    row = next((row for row in table.rows if row.artifact == artifact.id), None) if table else None
    graphs = (artifact.encoder, artifact.decoder)
    return CaseRecord(
        id=artifact.id,
        format=artifact.format,
        precision=artifact.precision,
        runtime=runtime,
        delegate=delegate,
        threads=threads,
        sha256=tuple(graph.file.sha256 for graph in graphs),
        bytes=sum(graph.file.bytes for graph in graphs),
        accuracy=dict(row.miou) if row else {},
        reference=dict(table.reference) if table and row else {},
    )


def plan_cases(
    manifest: Manifest, hello: Hello, options: JobOptions, only: Sequence[str] = ()
) -> tuple[list[Planned], list[str]]:
    """The cases that a device can run, and a line for each artefact, or delegate asked for, that it cannot.

    Args:
        only: ids of artefacts; all of them if empty.

    Raises:
        UsageError: an artefact of ``only`` is not in the package.
    """
    known = [artifact.id for artifact in manifest.artifacts]
    if unknown := [name for name in only if name not in known]:
        raise UsageError(f"there is no artefact {unknown[0]!r}", hint=f"there are {', '.join(known)}")
    cases, skipped = [], []
    for artifact in manifest.artifacts:
        if only and artifact.id not in only:
            continue
        runtime = next((r for r in hello.runtimes if artifact.format in r.formats), None)
        if runtime is None:
            skipped.append(f"{artifact.id}: the harness has no runtime for {artifact.format}")
            continue
        wanted: Sequence[str | None] = options.delegates or runtime.delegates[:1] or (None,)
        for delegate in wanted:
            if delegate is not None and delegate not in runtime.delegates:
                offered = ", ".join(runtime.delegates) or "none at all"
                skipped.append(f"{artifact.id}: {runtime.name} has no delegate {delegate} (it has {offered})")
                continue
            cases += [Planned(artifact, runtime.name, delegate, n) for n in options.threads or (None,)]
    return cases, skipped


def schedule(cases: Sequence[Planned], options: JobOptions) -> Iterator[tuple[int, Planned]]:
    """Launch 0 of every case, then launch 1 of every case, each round in an order of its own."""
    generator = random.Random(options.seed)
    for index in range(1 if options.sustain else options.launches):
        yield from ((index, case) for case in generator.sample(list(cases), len(cases)))


def uploads(package: Path, artifact: Artifact) -> dict[str, Path]:
    """An artefact's files by their paths on a device, after hashing them again.

    Raises:
        PackageError: one is missing or was altered.
    """
    return {_place(graph): check_file(package, graph.file) for graph in (artifact.encoder, artifact.decoder)}


def make_job(manifest: Manifest, case: Planned, inputs: Inputs, options: JobOptions, index: int) -> Job:
    """One launch of a case as a request."""
    artifact, rounds = case.artifact, 1 if options.sustain else options.launches
    return Job(
        job=uuid.uuid4().hex,
        label=f"{artifact.id}{f' on {case.delegate}' if case.delegate else ''}, launch {index + 1} of {rounds}",
        format=artifact.format,
        delegate=case.delegate,
        threads=case.threads,
        encoder=_graph(artifact.encoder),
        decoder=_graph(artifact.decoder),
        picture=JobPicture(size=manifest.picture.size, pad_rgb=manifest.picture.pad_rgb),
        prompt=JobPrompt(
            slots=manifest.prompt.slots,
            prompts_per_call=manifest.prompt.prompts_per_call,
            mask_input=manifest.prompt.mask_input,
        ),
        mask=JobMask(
            low_resolution=manifest.mask.low_resolution,
            threshold=manifest.mask.threshold,
            score=manifest.mask.score,
            point_masks=manifest.mask.point_masks,
        ),
        frame=inputs.frame,
        golden=inputs.golden_for(artifact.precision),
        least_iou=least_iou(artifact.precision),
        warm_up=WARM_UP,
        measure=Measure(seconds=options.sustain or options.seconds, rounds=options.rounds),
        state_every=5.0,
        thermal_gate=ThermalGate(thermal=options.hottest, wait=options.wait),  # type: ignore[arg-type]
        seed=options.seed,
    )


def _place(graph: GraphRecord) -> str:
    return f"models/{graph.file.sha256}/{Path(graph.file.path).name}"


def _graph(graph: GraphRecord) -> GraphFile:
    return GraphFile(
        path=_place(graph),
        sha256=graph.file.sha256,
        inputs=tuple(map(_tensor, graph.inputs)),
        outputs=tuple(map(_tensor, graph.outputs)),
    )


def _tensor(port: TensorSpec) -> Tensor:
    return Tensor(name=port.name, shape=tuple(port.shape), dtype=port.dtype, layout=port.layout, meaning=port.meaning)
