"""Exports one format in a process of its own: ``python -m edgesam_mobile.deploy.worker < job.json``.

The converters do not share a process well (each changes global state of torch, and their peaks of memory add
up), they print whatever they like, and a crash in one must not take the others along. The worker reports one
JSON line per finished graph, one for whatever takes long meanwhile (what this package logs), or one for an error that
was foreseen, on its original standard output; all other output goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from edgesam_mobile.deploy.calibration import Calibration, Sample, View, graph_inputs
from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import FORMATS, Format
from edgesam_mobile.deploy.layers import refuse_strange
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.deploy.proposals import proposals_graph
from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.proposals import read_proposals
from edgesam_mobile.picture import PICTURES, read_picture
from edgesam_mobile.process import private_stdout


def main() -> None:
    """Read a job from standard input and carry it out."""
    answers = private_stdout()
    warnings.simplefilter("ignore")
    log = logging.getLogger("edgesam_mobile")
    log.setLevel(logging.INFO)
    log.addHandler(_Notes(answers))
    job = json.load(sys.stdin)
    try:
        _carry_out(job, answers)
    except EdgeSamError as error:
        _answer(answers, {"error": type(error).__name__, "message": error.message, "hint": error.hint})


def _carry_out(job: dict[str, Any], answers: TextIO) -> None:
    form = FORMATS[job["format"]]
    model = load_model(Path(job["weights"]), upsample=job["upsample"], image_size=job["image_size"])
    exporter = importlib.import_module(f"edgesam_mobile.deploy.{form.exporter}")
    every = [Plan.from_json(one["plan"]) for wanted in job["parts"].values() for one in wanted]
    dtype = torch.float16 if any(plan.precision in form.half for plan in every) else torch.float32
    _refuse_infinite(model, job, form, dtype)
    calibration = Calibration.load(Path(job["calibration"])) if job["calibration"] else None
    for part, wanted in job["parts"].items():
        started = time.monotonic()
        targets = {Path(one["folder"]) / f"{part}{form.suffix}": Plan.from_json(one["plan"]) for one in wanted}
        for folded in sorted({form.folded and not plan.small for plan in targets.values()}):
            graph = build_graph(model, part, job["options"], form, folded=folded)
            chosen = {path: plan for path, plan in targets.items() if (form.folded and not plan.small) == folded}
            for plan in chosen.values():
                refuse_strange(graph, plan.left_out)
            samples: list[Sample] = []
            if calibration and any(plan.calibrated for plan in chosen.values()):
                encoder = graph if part == "encoder" else build_graph(model, "encoder", job["options"], form)
                samples = graph_inputs(graph, encoder, calibration, dtype)
            for path, report in exporter.export(graph, chosen, samples).items():
                record = {"graph": describe(graph, report.dtypes), "op_types": report.op_types}
                (path.parent / "report.json").write_text(json.dumps(record))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        _answer(answers, {"part": part, "seconds": time.monotonic() - started, "peak_bytes": peak})


def _refuse_infinite(model: Any, job: dict[str, Any], form: Format, dtype: torch.dtype) -> None:
    """Run each graph once on a photograph: of weights that overflow no artefact is made.

    Raises:
        WeightsError: an operation answers with what ``dtype``, in which the artefact computes, does not hold.
    """
    photograph = read_picture(PICTURES / "cat.jpg")
    point = np.array([[photograph.shape[1] / 2, photograph.shape[0] / 2]], np.float32), np.ones(1, np.float32)
    once = Calibration("photograph", 1, (View(photograph, (point,)),))
    encoder = build_graph(model, "encoder", job["options"], form)
    for part in job["parts"]:
        if part == "encoder" and "decoder" in job["parts"]:
            continue  # it runs for the decoder
        graph = encoder if part == "encoder" else build_graph(model, part, job["options"], form)
        graph_inputs(graph, encoder, once, dtype)


def build_graph(model: Any, part: str, options: dict[str, Any], form: Format, *, folded: bool = False) -> Graph:
    """One of the graphs in the form that a format wants; ``folded`` is the decoder's form of attention."""
    dtype = options["image_dtype"] if form.channels_last else "float32"
    if part == "encoder":
        return encoder_graph(model, channels_last=form.channels_last, image_dtype=dtype)
    if part == "proposals":
        head = read_proposals(Path(options["proposals"]), model)
        return proposals_graph(model, head, channels_last=form.channels_last, image_dtype=dtype)
    return decoder_graph(
        model,
        slots=options["slots"],
        prompts=options["prompts"],
        mask_input=options["mask_input"],
        score=options["score"],
        channels_last=form.channels_last,
        folded=folded,
    )


def describe(graph: Graph, dtypes: dict[str, str]) -> dict[str, Any]:
    """Inputs, outputs and size of a graph as the manifest wants them."""

    def spec(port: Any) -> dict[str, Any]:
        return {
            "name": port.name,
            "shape": list(port.shape),
            "dtype": dtypes.get(port.name, port.dtype),
            "layout": port.layout,
            "meaning": port.meaning,
        }

    return {
        "inputs": [spec(port) for port in graph.inputs],
        "outputs": [spec(port) for port in graph.outputs],
        "parameters": graph.parameter_count(),
    }


class _Notes(logging.Handler):
    """Passes on what is logged."""

    def __init__(self, answers: TextIO) -> None:
        super().__init__()
        self.answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        _answer(self.answers, {"note": record.getMessage()})


def _answer(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
