"""Which layers of a graph to leave out of a compression: a search driven by what that does to masks.

Every block is compressed alone first, and its damage measured on masks: one minus the mean IoU with PyTorch's masks
of the same prompts. The other graph is PyTorch's, so that only the one that is searched differs. That another of the
four masks would be shown is counted apart. Then the whole graph is compressed but for the worst block, the two worst,
the four worst and so on: the front to choose from.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgesam_mobile.deploy.calibration import Calibration, Sample, decoder_inputs, encoder_inputs, finite_answers
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
from edgesam_mobile.runtime.session import RUNTIMES, SessionOptions, open_session

Objective = Literal["size", "latency"]
Part = Literal["encoder", "decoder"]
Answer = tuple[NDArray[np.bool_], int]  # the four masks, and which of them is shown
Report = Callable[[str], None]
_FEWEST_BLOCKS = 20  # of a search worth the name
_TOGETHER = 8  # candidates exported from one conversion; an interrupt loses no more than these


@dataclass(frozen=True)
class Candidate:
    """One way to compress the graph, measured.

    Attributes:
        step: what it is of the search: a block compressed alone, or how many blocks are left out.
        damage: 1 - mean IoU with the masks that PyTorch shows; 0 is none.
        same_best: share of prompts with the same of the four masks shown.
        run_ms: median on this machine, only to be compared with others of the same search; ``None`` where the
            format is interpreted here.
    """

    step: str
    plan: Plan
    bytes: int
    damage: float
    same_best: float
    run_ms: float | None

    def cost(self, objective: Objective) -> float:
        """What an objective wants little of: bytes, or milliseconds where they are known."""
        if objective == "size":
            return self.bytes
        assert self.run_ms is not None
        return self.run_ms

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        return cls(**{**data, "plan": Plan.from_json(data["plan"])})


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        sensitivity: blocks compressed alone, worst first.
        tried: with 0, 1, 2, 4 … of the worst blocks left out, and with numbers between the last that is too few and
            the first that is enough; the fewest first.
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
    """One graph in one format, compressed in many ways, held against PyTorch by masks.

    Args:
        part: which graph; the other one is PyTorch's.
        folder: for what is exported.

    Raises:
        WeightsError: a layer answers with NaN or infinity, beside whose empty masks nothing would be lost.
    """

    def __init__(
        self, model: Sam, form: Format, calibration: Calibration, folder: Path, part: Part = "encoder"
    ) -> None:
        self._form, self._folder = form, folder
        encoder = encoder_graph(model, channels_last=form.channels_last)
        decoder = decoder_graph(model, channels_last=form.channels_last)
        self._decoder = decoder.module
        self._pictures = encoder_inputs(encoder, calibration.views)
        self._prompts = [
            list(decoder_inputs(decoder, model.image_size, (view,), answer))
            for view, answer in zip(calibration.views, finite_answers(encoder, self._pictures), strict=True)
        ]
        every = [prompt for prompts in self._prompts for prompt in prompts]
        self.graph, self.samples = (encoder, self._pictures) if part == "encoder" else (decoder, every)
        self._expected = [_answer(masks, best) for masks, _, best, _ in finite_answers(decoder, every)]

    def measure(self, plans: Mapping[str, Plan]) -> list[Candidate]:
        """Export the graph once a plan, by steps' names, and measure each."""
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
        outputs, times = [], []
        for sample in self.samples:
            started = time.perf_counter()
            found = session.run({name: tensor.numpy() for name, tensor in sample.items()})
            times.append(time.perf_counter() - started)
            outputs.append({name: torch.from_numpy(np.array(array, np.float32)) for name, array in found.items()})
        ious, same = [], []
        for (masks, shown), (wanted, best) in zip(self._answers(outputs), self._expected, strict=True):
            ious.append(mask_iou(masks[best], wanted[best]))
            same.append(shown == best)
        damage = 1 - float(np.mean(ious))
        run_ms = None if RUNTIMES[self._form.name].interpreted else statistics.median(times) * 1e3
        return Candidate(step, plan, file.bytes, damage, float(np.mean(same)), run_ms)

    def _answers(self, outputs: Sequence[Sample]) -> Iterator[Answer]:
        """What each prompt gets, from a candidate's outputs on all samples."""
        if self.graph.name == "decoder":
            yield from (_answer(output["masks"], output["best_mask"]) for output in outputs)
            return
        for output, prompts in zip(outputs, self._prompts, strict=True):
            (embedding,) = output.values()
            yield from (self._decode({**prompt, "image_embeddings": embedding}) for prompt in prompts)

    @torch.inference_mode()
    def _decode(self, prompt: Sample) -> Answer:
        masks, _, best, _ = self._decoder(*prompt.values())
        return _answer(masks, best)


def _answer(masks: Tensor, best: Tensor) -> Answer:
    """The masks, and which of them the graph shows: that whose logits are the nearest."""
    return (masks[0] > 0).numpy(), int((masks[0] - best[0]).abs().amax((1, 2)).argmin())


def search(
    masks: Masks,
    precision: str,
    *,
    budget: float,
    objective: Objective = "size",
    instead: str = "",
    journal: Journal | None = None,
    report: Report = lambda text: None,
) -> Search:
    """Find what to leave out.

    Args:
        precision: of what is not left out, such as ``"int8"``.
        budget: most damage that is allowed, in points of mean mask IoU with PyTorch (100 times :class:`Candidate`'s).
        instead: precision of what is left out; empty for floating point.
        journal: candidates that it holds are not measured again.
    """
    groups = blocks(masks.graph)
    alone = {group: Plan(precision, tuple(g for g in groups if g != group), instead=instead) for group in groups}
    measured = _measured(masks, alone, range(len(groups)), journal, report)
    sensitivity = sorted(measured, key=lambda c: -c.damage)
    worst = [candidate.step for candidate in sensitivity]

    def leave_out(counts: Sequence[int]) -> dict[int, Candidate]:
        plans = {
            f"{count} left out": Plan(precision, tuple(worst[:count]), instead=instead if count else "")
            for count in counts
        }
        numbers = [len(groups) + count for count in counts]
        return dict(zip(counts, _measured(masks, plans, numbers, journal, report), strict=True))

    def kept(candidate: Candidate) -> bool:
        return 100 * candidate.damage <= budget

    found = leave_out(_counts(groups))
    enough = next((n for n, c in found.items() if kept(c)), len(groups))
    few = max((n for n in found if n < enough), default=enough)
    while enough - few > 1:
        middle = (few + enough) // 2
        found |= leave_out([middle])
        few, enough = (few, middle) if kept(found[middle]) else (middle, enough)
    tried = [found[count] for count in sorted(found)]
    chosen = min(filter(kept, tried), key=lambda c: c.cost(objective), default=None)
    if chosen is not None:
        reason = f"{100 * chosen.damage:.2f} points of mask IoU lost in calibration, within {budget:g}"
        chosen = replace(chosen, plan=replace(chosen.plan, reason=reason))
    return Search(objective, sensitivity, tried, chosen)


def steps(graph: Graph) -> int:
    """How many candidates a search of this graph measures at most."""
    groups = blocks(graph)
    counts = [*_counts(groups), len(groups)]
    widest = max(after - before for before, after in itertools.pairwise(counts))
    return len(groups) + len(counts) - 1 + (widest - 1).bit_length()


def _counts(groups: Sequence[str]) -> list[int]:
    """How many of the worst blocks to leave out: 0, 1, 2, 4 …, never all."""
    return [0] + [2**n for n in range(len(groups).bit_length()) if 2**n < len(groups)]


def _measured(
    masks: Masks, plans: Mapping[str, Plan], numbers: Sequence[int], journal: Journal | None, report: Report
) -> list[Candidate]:
    """Candidates in the order of the plans, from the journal where it has their numbers."""
    known = journal.finished if journal else {}
    places = dict(zip(plans, numbers, strict=True))
    found = {step: Candidate.from_json(known[place]["candidate"]) for step, place in places.items() if place in known}
    left: Sequence[str] = [step for step in plans if step not in found]
    for start in range(0, len(left), _TOGETHER):
        for candidate in masks.measure({step: plans[step] for step in left[start : start + _TOGETHER]}):
            found[candidate.step] = candidate
            if journal:
                journal.add({"index": places[candidate.step], "candidate": candidate.to_json()})
            report(f"{candidate.step}: {100 * candidate.damage:.2f} points of mask IoU lost")
    return [found[step] for step in plans]
