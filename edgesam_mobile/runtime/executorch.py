"""ExecuTorch on the CPU, with XNNPACK.

Its thread pool takes as many threads as the process may use processors; ``options.threads`` is not passed on.
Benchmarks set the process's affinity instead.
"""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.runtime import Runtime, Verification

from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.session import Array, SessionOptions


class ExecuTorchSession:
    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        # The method borrows the program's memory: both must live as long as the session.
        self._program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        method = self._program.load_method("forward")
        if method is None:
            raise RuntimeError("the program has no method named forward")
        self._method = method
        self._inputs = [port.name for port in graph.inputs]
        self._outputs = [port.name for port in graph.outputs]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        tensors = [torch.from_numpy(inputs[name]) for name in self._inputs]
        outputs = self._method.execute(tensors)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)}
