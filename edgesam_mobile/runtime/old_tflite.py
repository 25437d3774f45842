"""TFLite as phones of 2023 have it: tflite-runtime 2.14, in an environment of its own, since it needs NumPy 1.

The environment is made on first use, in the cache, by the user's own pip.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.files import storage_errors
from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.session import Array, SessionOptions
from edgesam_mobile.weights.fetch import cache_root

_REQUIREMENTS = ("tflite-runtime==2.14.0", "numpy==1.26.4")
_WORKER = Path(__file__).with_name("old_tflite_worker.py")


class OldTfliteSession:
    """A worker process of the old runtime; see :class:`~edgesam_mobile.runtime.session.Session`."""

    def __init__(self, path: Path, graph: GraphRecord, options: SessionOptions) -> None:
        self._worker = subprocess.Popen(
            [environment(), _WORKER, path, str(options.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        weakref.finalize(self, _stop, self._worker)
        self._answer()

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        buffer = io.BytesIO()
        np.savez(buffer, **inputs)  # type: ignore[arg-type]
        assert self._worker.stdin is not None
        self._worker.stdin.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
        self._worker.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Array]:
        assert self._worker.stdout is not None
        header = self._worker.stdout.read(8)
        if len(header) < 8:
            raise RuntimeError(f"it ended with {self._worker.wait()}")
        body = self._worker.stdout.read(struct.unpack("<Q", header)[0])
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            arrays = dict(found)
        if "error" in arrays:
            raise RuntimeError(str(arrays["error"]))
        return arrays


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.communicate()  # closes its pipes and waits for it


def environment(*, offline: bool = False) -> Path:
    """The Python of the old runtime's environment, made if need be: anew where the one it was made from is gone.

    Raises:
        EnvironmentMissing: it cannot be made, or is not there and ``offline``.
        StorageError: the cache cannot be written.
    """
    folder = cache_root() / "runtimes" / "-".join(_REQUIREMENTS).replace("==", "-")
    ready = folder / "bin" / "python"  # a link to the Python that made it
    if ready.exists():
        return ready
    if offline:
        hint = "run once without --offline"
        raise EnvironmentMissing(f"the environment for {_REQUIREMENTS[0]} is not made yet", hint=hint)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        python = str(scratch / "bin" / "python")
        _call([sys.executable, "-m", "venv", str(scratch)])
        _call([python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *_REQUIREMENTS])
        if not ready.exists():  # another process may have been faster
            with storage_errors(folder):
                if folder.exists():
                    shutil.rmtree(folder)
                scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ready


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentMissing(
            f"the environment for {_REQUIREMENTS[0]} cannot be made: {reason}",
            hint="it needs Python's venv module, and wheels from pip's index, on the first use",
        )
