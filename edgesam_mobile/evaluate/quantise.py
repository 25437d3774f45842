"""Which layers of an encoder to leave in floating point: a search driven by what quantisation does to masks.

Every block is quantised alone first, and its damage measured on masks: one minus the mean IoU with PyTorch's masks of
the same prompts, decoded by PyTorch, so that only the encoder differs. That another of the four masks would be shown
is counted apart. Then the whole encoder is quantised but for the worst block, the two worst, the four worst and so
on: the front to choose from.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgesam_mobile.deploy.calibration import Calibration, Sample, decoder_inputs, encoder_inputs
from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import Format
from edgesam_mobile.deploy.layers import layer_names
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.worker import describe
from edgesam_mobile.evaluate.journal import Journal
from edgesam_mobile.evaluate.metrics import mask_iou
from edgesam_mobile.files import size_of
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.package.manifest import FileRecord, GraphRecord
from edgesam_mobile.runtime.hush import hushed
from edgesam_mobile.runtime.session import SessionOptions, open_session

Objective = Literal["size", "latency"]
Report = Callable[[str], None]
_FEWEST_BLOCKS = 20  # of a search worth the name
_TOGETHER = 8  # candidates exported from one conversion; an interrupt loses no more than these


@dataclass(frozen=True)
class Candidate:
    """One way to compress the encoder, measured.

    Attributes:
        step: what it is of the search: a block quantised alone, or how many blocks are left out.
        damage: 1 - mean IoU with the masks that PyTorch shows; 0 is none.
        same_best: share of prompts with the same of the four masks shown.
        encode_ms: median on this machine; only to be compared with others of the same search.
    """

    step: str
    plan: Plan
    bytes: int
    damage: float
    same_best: float
    encode_ms: float

    def cost(self, objective: Objective) -> float:
        """What an objective wants little of: bytes, or milliseconds."""
        return self.bytes if objective == "size" else self.encode_ms

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        return cls(**{**data, "plan": Plan.from_json(data["plan"])})


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        sensitivity: blocks quantised alone, worst first.
        tried: with 0, 1, 2, 4 … of the worst blocks left in floating point.
        chosen: the best by the objective within the budget; ``None`` where nothing is.
    """

    objective: Objective
    sensitivity: list[Candidate]
    tried: list[Candidate]
    chosen: Candidate | None

    def front(self) -> list[Candidate]:
        """Those that no other beats in both the objective and damage, the least of the objective first."""
        ordered = sorted(self.tried, key=lambda c: (c.cost(self.objective), c.damage))
        best = float("inf")
        kept = []
        for candidate in ordered:
            if candidate.damage < best:
                best = candidate.damage
                kept.append(candidate)
        return kept


def blocks(graph: Graph) -> list[str]:
    """Groups of layers, as plans name them: prefixes of the depth that first gives a fair number of them."""
    names = layer_names(graph)
    for depth in range(1, max(name.count(".") for name in names) + 2):
        groups = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))
        if len(groups) >= min(_FEWEST_BLOCKS, len(names)):
            return groups
    return names


class Masks:
    """Encoders of one format held against PyTorch, by the masks that PyTorch's decoder makes of their embeddings."""

    def __init__(self, model: Sam, form: Format, calibration: Calibration, folder: Path) -> None:
        self._form, self._folder = form, folder
        self.graph = encoder_graph(model, channels_last=form.channels_last)
        decoder = decoder_graph(model, channels_last=form.channels_last)
        self._decoder = decoder.module
        self.samples: list[Sample] = encoder_inputs(self.graph, calibration.views)
        self._prompts = [list(decoder_inputs(decoder, self.graph, (view,))) for view in calibration.views]
        self._expected = [[self._masks(prompt) for prompt in prompts] for prompts in self._prompts]

    def measure(self, plans: Mapping[str, Plan]) -> list[Candidate]:
        """Export the encoder once a plan, by steps' names, and measure each."""
        module = importlib.import_module(f"edgesam_mobile.deploy.{self._form.exporter}")
        paths = {self._folder / f"{number}{self._form.suffix}": step for number, step in enumerate(plans)}
        with hushed():
            reports = module.export(self.graph, {path: plans[step] for path, step in paths.items()}, self.samples)
        return [
            self._candidate(paths[path], plans[paths[path]], path, describe(self.graph, report.dtypes))
            for path, report in reports.items()
        ]

    def _candidate(self, step: str, plan: Plan, path: Path, ports: dict[str, Any]) -> Candidate:
        file = FileRecord(path=path.name, sha256="0" * 64, bytes=size_of(path))
        record = GraphRecord(file=file, op_types={"any": 1}, **ports)
        session = open_session(path, record, self._form.name, SessionOptions(threads=1))
        ious, same, times = [], [], []
        for sample, prompts, expected in zip(self.samples, self._prompts, self._expected, strict=True):
            started = time.perf_counter()
            (embedding,) = session.run({name: tensor.numpy() for name, tensor in sample.items()}).values()
            times.append(time.perf_counter() - started)
            found = torch.from_numpy(np.asarray(embedding, np.float32))
            for prompt, (wanted, best) in zip(prompts, expected, strict=True):
                answers, shown = self._masks({**prompt, "image_embeddings": found})
                ious.append(mask_iou(answers[best], wanted[best]))
                same.append(shown == best)
        return Candidate(
            step, plan, file.bytes, 1 - float(np.mean(ious)), float(np.mean(same)), statistics.median(times) * 1e3
        )

    @torch.inference_mode()
    def _masks(self, prompt: Sample) -> tuple[NDArray[np.bool_], int]:
        """The four masks, and which of them is shown."""
        masks, _, best, _ = self._decoder(*prompt.values())
        distance = (masks[0] - best[0]).abs().amax((1, 2))
        return (masks[0] > 0).numpy(), int(distance.argmin())


def search(
    masks: Masks,
    precision: str,
    *,
    budget: float,
    objective: Objective = "size",
    journal: Journal | None = None,
    report: Report = lambda text: None,
) -> Search:
    """Find what to leave in floating point.

    Args:
        precision: of what is not left out, such as ``"int8"``.
        budget: most damage that is allowed, in points of mean mask IoU with PyTorch (100 times :class:`Candidate`'s).
        journal: candidates that it holds are not measured again.
    """
    groups = blocks(masks.graph)
    alone = {group: Plan(precision, tuple(g for g in groups if g != group)) for group in groups}
    sensitivity = sorted(_measured(masks, alone, 0, journal, report), key=lambda c: -c.damage)
    worst = [candidate.step for candidate in sensitivity]
    growing = {f"{count} left out": Plan(precision, tuple(worst[:count])) for count in _counts(groups)}
    tried = _measured(masks, growing, len(groups), journal, report)
    allowed = [c for c in tried if 100 * c.damage <= budget]
    chosen = min(allowed, key=lambda c: c.cost(objective), default=None)
    if chosen is not None:
        reason = f"{100 * chosen.damage:.2f} points of mask IoU lost in calibration, within {budget:g}"
        chosen = replace(chosen, plan=replace(chosen.plan, reason=reason))
    return Search(objective, sensitivity, tried, chosen)


def steps(graph: Graph) -> int:
    """How many candidates a search of this encoder measures."""
    groups = blocks(graph)
    return len(groups) + len(_counts(groups))


def _counts(groups: Sequence[str]) -> list[int]:
    """How many of the worst blocks to leave out: 0, 1, 2, 4 …, never all."""
    return [0] + [2**n for n in range(len(groups).bit_length()) if 2**n < len(groups)]


def _measured(
    masks: Masks, plans: Mapping[str, Plan], first: int, journal: Journal | None, report: Report
) -> list[Candidate]:
    """Candidates in the order of the plans, from the journal where it has them."""
    known = journal.finished if journal else {}
    found = {
        step: Candidate.from_json(known[first + n]["candidate"]) for n, step in enumerate(plans) if first + n in known
    }
    left: Sequence[str] = [step for step in plans if step not in found]
    numbers = {step: first + n for n, step in enumerate(plans)}
    for start in range(0, len(left), _TOGETHER):
        for candidate in masks.measure({step: plans[step] for step in left[start : start + _TOGETHER]}):
            found[candidate.step] = candidate
            if journal:
                journal.add({"index": numbers[candidate.step], "candidate": candidate.to_json()})
            report(f"{candidate.step}: {100 * candidate.damage:.2f} points of mask IoU lost")
    return [found[step] for step in plans]
