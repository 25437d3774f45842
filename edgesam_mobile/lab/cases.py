"""Which cases a benchmark runs, and in which order. Nothing here knows how a case is run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from edgesam_mobile.errors import UsageError
from edgesam_mobile.package.manifest import Artifact, Manifest
from edgesam_mobile.runtime.session import RUNTIMES

Kind = Literal["artifact", "interpreted", "pytorch", "onnx-published"]

PYTORCH = "pytorch-eager"
PUBLISHED = "onnx-published"
MOBILE_SAM = "mobile-sam"


@dataclass(frozen=True)
class Case:
    """One thing to run with one number of threads.

    Attributes:
        id: an artefact's id or a baseline's name.
        kind: an ``interpreted`` artefact, which on a device something else executes, is asked for one mask and never
            timed.
        runtime: what executes it, for people.
    """

    id: str
    kind: Kind
    threads: int
    runtime: str

    @property
    def key(self) -> str:
        """Tells cases of one run apart: ``onnx-fp32@2``."""
        return f"{self.id}@{self.threads}"


@dataclass(frozen=True)
class Skipped:
    """Something that belongs to the comparison but gets no number here, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What to run and what not."""

    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...]


def plan(
    manifest: Manifest,
    *,
    threads: Sequence[int],
    baselines: bool = True,
    interpreted: bool = True,
    only: Sequence[str] = (),
) -> Plan:
    """Every artefact and baseline, each with every number of threads; what is interpreted with the highest alone.

    Args:
        interpreted: take in what is only interpreted here.
        only: ids to keep; all if empty.

    Raises:
        UsageError: ``only`` names something that there is not.
    """
    wanted: list[tuple[str, Kind, str, str | None]] = [
        (a.id, _kind(a), _runtime_name(a), _obstacle(a)) for a in manifest.artifacts
    ]
    if baselines:
        wanted.append((PYTORCH, "pytorch", "PyTorch", None))
        wanted.append((PUBLISHED, "onnx-published", "ONNX Runtime", _missing("onnx", "onnxruntime")))
        if manifest.architecture != MOBILE_SAM:
            wanted.append((MOBILE_SAM, "pytorch", "PyTorch", None))
    wanted.sort(key=lambda entry: entry[1] == "interpreted")  # last: their masks are held against PyTorch's
    known = [name for name, *_ in wanted]
    if unknown := [name for name in only if name not in known]:
        raise UsageError(f"there is no case {unknown[0]!r}", hint=f"there are {', '.join(known)}")
    kept = [
        (name, kind, runtime, no)
        for name, kind, runtime, no in wanted
        if (not only or name in only) and (interpreted or kind != "interpreted")
    ]
    return Plan(
        tuple(
            Case(name, kind, n, runtime)
            for name, kind, runtime, no in kept
            if no is None
            for n in ((max(threads),) if kind == "interpreted" else threads)
        ),
        tuple(Skipped(name, no) for name, _, _, no in kept if no is not None),
    )


def schedule(cases: Sequence[Case], launches: int, seed: int = 0) -> list[tuple[int, Case]]:
    """Launch 0 of every case, then launch 1 of every case, and so on, each round in an order of its own.

    Whatever changes slowly (heat, other jobs) then touches all cases alike, and no case always follows the same
    other one. What is interpreted comes once, after all that is timed.
    """
    generator = random.Random(seed)
    timed = [case for case in cases if case.kind != "interpreted"]
    order: list[tuple[int, Case]] = []
    for launch in range(launches):
        order.extend((launch, case) for case in generator.sample(timed, len(timed)))
    return order + [(0, case) for case in cases if case.kind == "interpreted"]


def _runtime_name(artifact: Artifact) -> str:
    runtime = RUNTIMES.get(artifact.format)
    return runtime.name if runtime else artifact.format


def _kind(artifact: Artifact) -> Kind:
    runtime = RUNTIMES.get(artifact.format)
    return "interpreted" if runtime and runtime.interpreted else "artifact"


def _obstacle(artifact: Artifact) -> str | None:
    """Why an artefact is not run here; ``None`` if it is."""
    runtime = RUNTIMES.get(artifact.format)
    if runtime is None:
        return f"nothing here executes {artifact.format}"
    return _missing(*runtime.needs)


def _missing(*modules: str) -> str | None:
    absent = [name for name in modules if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None
