"""How long the Core ML interpreter takes on this machine, in turns with PyTorch: ``python benchmarks/interpreter.py
out``, a package with Core ML artefacts. Prints Markdown. Nothing here tells how long a phone takes.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from timeit import timeit
from typing import get_args

import torch

from edgesam_mobile.deploy.calibration import Sample, graph_inputs
from edgesam_mobile.deploy.decoder import decoder_graph
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.evaluate.reference import reference_model, weights_source
from edgesam_mobile.package.manifest import read_manifest
from edgesam_mobile.runtime.coreml.interpreter import Interpreter, Mode
from edgesam_mobile.runtime.coreml.program import read_program

seconds = partial(timeit, number=1)


def main() -> None:
    """Time both graphs of every Core ML artefact, and PyTorch's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--weights", help="the package's, where they are not at hand by their name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    manifest = read_manifest(chosen.package)
    model = reference_model(manifest, weights_source(manifest, chosen.weights))
    calibration, _ = calibration_set(None, 1)
    encoder, prompt = encoder_graph(model), manifest.prompt
    slots, prompts = prompt.slots, prompt.prompts_per_call
    decoder = decoder_graph(
        model, slots=slots, prompts=prompts, mask_input=prompt.mask_input, score=manifest.mask.score
    )
    print(f"{manifest.weights.name} at {manifest.picture.size} pixels, {chosen.threads} threads\n")
    line("artefact", "graph", "arithmetic", "load s", "interpreter s", "PyTorch s", "times PyTorch's")
    line(*["--"] * 7)
    for graph in (encoder, decoder):
        sample = graph_inputs(graph, encoder, calibration)[0]
        for artefact in manifest.artifacts:
            if artefact.format == "coreml":
                path = chosen.package / artefact.graphs()[graph.name].file.path
                for mode in get_args(Mode):
                    line(artefact.id, graph.name, mode, *times(graph, path, mode, sample, chosen.rounds))


def line(*cells: str) -> None:
    """Print a row of Markdown."""
    print(f"| {' | '.join(cells)} |", flush=True)


def times(graph: Graph, path: Path, mode: Mode, sample: Sample, rounds: int) -> list[str]:
    """Loading, medians of a program's and of PyTorch's runs, taken in turns, and of their ratio."""
    Interpreter(read_program(path))  # for what is imported on the way, and for the page cache
    opened: list[Interpreter] = []
    load = seconds(lambda: opened.append(Interpreter(read_program(path), mode=mode)))
    (interpreter,) = opened
    found = []
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first warms up
            ours = seconds(lambda: interpreter.run(sample))
            found.append((ours, seconds(lambda: graph.module(*sample.values()))))
    mine, theirs = ([pair[which] for pair in found[1:]] for which in (0, 1))
    ratio = median(a / b for a, b in found[1:])
    return [f"{load:.2f}", f"{median(mine):.3f}", f"{median(theirs):.3f}", f"{ratio:.2f}"]


if __name__ == "__main__":
    main()
