"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.session import Array, SessionOptions


class OnnxSession:
    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.log_severity_level = 3  # errors only: its warnings about this machine help nobody
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class of their own
            raise RuntimeError(str(error)) from error
        self._outputs = [output.name for output in graph.outputs]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
