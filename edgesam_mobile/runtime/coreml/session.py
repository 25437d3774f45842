"""Graphs of a package that only Apple systems run, interpreted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from edgesam_mobile.files import storage_errors
from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.coreml.embedded import extract
from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.session import Array, SessionOptions


class CoremlSession:
    """An ``.mlpackage``; ``options.threads`` is torch's own business."""

    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        names = {port.name: port.name for port in (*graph.inputs, *graph.outputs)}
        self._run = _Runner(path, graph, options, names)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return self._run(inputs)


class EmbeddedCoremlSession:
    """The ``.mlpackage`` inside a ``.pte``."""

    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
            found = extract(path, Path(folder))
            inside = (*found.inputs, *found.outputs)
            names = dict(zip((port.name for port in (*graph.inputs, *graph.outputs)), inside, strict=True))
            self._run = _Runner(found.package, graph, options, names)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return self._run(inputs)


class _Runner:
    """Between a graph's arrays and a program's tensors; ``names`` are the program's, by the manifest's."""

    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions, names: Mapping[str, str]) -> None:
        self._interpreter = Interpreter(read_program(path), mode=options.arithmetic)
        self._graph, self._names = graph, names

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        # A picture arrives as bytes, and programs declare it as floating point.
        tensors = {self._names[name]: _tensor(value) for name, value in inputs.items()}
        with torch.inference_mode():
            answers = self._interpreter.run(tensors)
        return {port.name: _array(answers[self._names[port.name]], port.dtype) for port in self._graph.outputs}


def _tensor(value: Array) -> torch.Tensor:
    tensor = torch.from_numpy(value)
    return tensor if tensor.dtype == torch.int32 else tensor.to(torch.float32)


def _array(value: torch.Tensor, dtype: str) -> Array:
    return value.numpy().astype("float16" if dtype == "float16" else "float32")
