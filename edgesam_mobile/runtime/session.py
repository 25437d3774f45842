"""One graph of a package, loaded into the runtime of its format."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.errors import EnvironmentMissing, PackageError
from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.hush import hushed

Array = NDArray[np.generic]


class Session(Protocol):
    """A loaded graph. Constructed with the file, its record in the manifest, and a number of threads."""

    def __init__(self, path: Path, graph: GraphRecord, threads: int) -> None: ...

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Named inputs to named outputs, shapes and types as the manifest says."""
        ...


@dataclass(frozen=True)
class Runtime:
    """What executes a format here; ``session`` is ``None`` where nothing can."""

    name: str
    session: str | None
    needs: str | None = None
    extra: str | None = None


RUNTIMES = {
    "onnx": Runtime("ONNX Runtime", "onnx:OnnxSession", "onnxruntime", "onnx"),
    "tflite": Runtime("LiteRT", "tflite:TfliteSession", "ai_edge_litert", "tflite"),
    "executorch-xnnpack": Runtime("ExecuTorch", "executorch:ExecuTorchSession", "executorch", "executorch"),
    "coreml": Runtime("Core ML", None),
    "executorch-coreml": Runtime("ExecuTorch with Core ML", None),
}


def runnable(format_name: str) -> bool:
    """Whether artefacts of this format can be executed on this machine."""
    runtime = RUNTIMES.get(format_name)
    return bool(runtime and runtime.needs and importlib.util.find_spec(runtime.needs))


def open_session(path: Path, graph: GraphRecord, format_name: str, threads: int) -> Session:
    """Load one graph.

    Raises:
        EnvironmentMissing: the format has no runtime here.
        PackageError: the runtime refuses the file.
    """
    runtime = RUNTIMES.get(format_name)
    if runtime is None or runtime.session is None:
        raise EnvironmentMissing(
            f"{format_name} artefacts cannot be executed on this machine", hint="choose tflite, onnx or executorch"
        )
    if not runnable(format_name):
        hint = f'pip install "edgesam-mobile[{runtime.extra}]"'
        raise EnvironmentMissing(f"{runtime.name} is not installed", hint=hint)
    module, name = runtime.session.split(":")
    try:
        with hushed():
            session = getattr(importlib.import_module(f"edgesam_mobile.runtime.{module}"), name)
            loaded: Session = session(path, graph, threads)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise PackageError(f"{runtime.name} cannot load {path}: {reason}", hint="build the package again") from error
    return loaded
