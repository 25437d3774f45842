"""LiteRT (TFLite) on the CPU, with its default XNNPACK delegate."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.session import Array, SessionOptions


class TfliteSession:
    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=options.threads)
        # Now rather than at the first run: the delegate announces itself, and loading is when to fail.
        self._interpreter.allocate_tensors()
        self._runner = self._interpreter.get_signature_runner()

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        outputs: dict[str, Array] = self._runner(**inputs)
        return outputs
