"""One graph of a package, loaded into the runtime of its format."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.errors import EnvironmentMissing, PackageError, UsageError
from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.hush import hushed

Array = NDArray[np.generic]
Arithmetic = Literal["device-like", "exact"]


@dataclass(frozen=True)
class SessionOptions:
    """How a graph is run.

    Attributes:
        threads: processor threads.
        arithmetic: of what is interpreted here: ``"device-like"`` rounds half precision as a device does at least;
            ``"exact"`` does not round, to tell whether the program is right. Other runtimes compute as they do.
    """

    threads: int
    arithmetic: Arithmetic = "device-like"

    def __post_init__(self) -> None:
        if self.arithmetic not in get_args(Arithmetic):
            raise UsageError(f"no arithmetic {self.arithmetic!r}", hint="choose device-like or exact")


class Session(Protocol):
    """A loaded graph."""

    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None: ...

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Named inputs to named outputs, shapes and types as the manifest says."""
        ...


@dataclass(frozen=True)
class Runtime:
    """What executes a format here.

    Attributes:
        session: module of this room and class in it.
        needs: modules that must be installed.
        interpreted: on a phone something else executes the format: masks tell how good it is, times tell nothing.
    """

    name: str
    session: str
    needs: tuple[str, ...]
    extra: str
    interpreted: bool = False

    def missing(self) -> list[str]:
        """Which of ``needs`` are not installed."""
        return [module for module in self.needs if importlib.util.find_spec(module) is None]


# By format, which is what executes it where nothing else is asked for.
RUNTIMES = {
    "onnx": Runtime("ONNX Runtime", "onnx:OnnxSession", ("onnxruntime",), "onnx"),
    "tflite": Runtime("LiteRT", "tflite:TfliteSession", ("ai_edge_litert",), "tflite"),
    "executorch-xnnpack": Runtime("ExecuTorch", "executorch:ExecuTorchSession", ("executorch",), "executorch"),
    "coreml": Runtime("interpreter", "coreml.session:CoremlSession", ("coremltools",), "coreml", interpreted=True),
    "executorch-coreml": Runtime(
        "interpreter",
        "coreml.session:EmbeddedCoremlSession",
        ("executorch", "coremltools"),
        "executorch",
        interpreted=True,
    ),
    # No format of its own: what a phone of 2023 has.
    "old-tflite": Runtime("tflite-runtime 2.14", "old_tflite:OldTfliteSession", (), "tflite"),
}
OLD = {"tflite": "old-tflite"}


def runtime_of(name: str, arithmetic: Arithmetic) -> str:
    """A key of :data:`RUNTIMES` in words; of what is interpreted, with the arithmetic."""
    runtime = RUNTIMES[name]
    return f"{runtime.name} ({arithmetic})" if runtime.interpreted else runtime.name


def runnable(format_name: str) -> bool:
    """Whether artefacts of this format can be executed on this machine."""
    runtime = RUNTIMES.get(format_name)
    return runtime is not None and not runtime.missing()


def install_hint(formats: Iterable[str]) -> str:
    """What to do where artefacts of these formats are not executed, in one line."""
    extras = ",".join(sorted({RUNTIMES[name].extra for name in formats if name in RUNTIMES}))
    return f'pip install "edgesam-mobile[{extras}]"' if extras else "build for host or android"


def require(name: str) -> Runtime:
    """What executes a format here, by a key of :data:`RUNTIMES`.

    Raises:
        EnvironmentMissing: the format has no runtime here, or it is not installed.
    """
    runtime = RUNTIMES.get(name)
    if runtime is None:
        known = ", ".join(RUNTIMES)
        raise EnvironmentMissing(f"nothing here executes {name} artefacts", hint=f"known are {known}")
    if absent := runtime.missing():
        hint = f'pip install "edgesam-mobile[{runtime.extra}]"'
        raise EnvironmentMissing(f"{name} artefacts need {' and '.join(absent)} here", hint=hint)
    return runtime


def open_session(path: Path, graph: GraphRecord, runtime_name: str, options: SessionOptions) -> Session:
    """Load one graph, by a key of :data:`RUNTIMES`.

    Raises:
        EnvironmentMissing: see :func:`require`.
        PackageError: the runtime refuses the file.
    """
    runtime = require(runtime_name)
    module, name = runtime.session.split(":")
    try:
        with hushed():
            session = getattr(importlib.import_module(f"edgesam_mobile.runtime.{module}"), name)
            loaded: Session = session(path, graph, options)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise PackageError(f"{runtime.name} cannot load {path}: {reason}", hint="build the package again") from error
    return loaded
