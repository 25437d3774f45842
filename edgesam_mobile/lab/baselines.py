"""What the cases need before anything is timed: weights for PyTorch, and the published-style ONNX export."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesam_mobile.deploy import cache
from edgesam_mobile.errors import EdgeSamError, WeightsError
from edgesam_mobile.files import sha256_of, storage_errors
from edgesam_mobile.lab.cases import MOBILE_SAM, Case, Skipped
from edgesam_mobile.package.manifest import Manifest
from edgesam_mobile.weights.fetch import fetch
from edgesam_mobile.weights.kept import kept
from edgesam_mobile.weights.registry import REGISTRY

Note = Callable[[str], None]


class Baselines:
    """Provides the baselines of one package; what cannot be had is an error only if the user named it.

    Args:
        weights: name or file of the package's weights, if neither the registry nor the cache knows them.
        offline: never open a socket.
        note: called with what takes a while.
    """

    def __init__(self, manifest: Manifest, *, weights: str | None, offline: bool, note: Note) -> None:
        self.manifest, self.offline, self.note = manifest, offline, note
        self._given = weights
        self._found: dict[str, dict[str, Any] | Skipped] = {}

    def needs(self, case: Case) -> dict[str, Any] | Skipped:
        """What a worker's job needs for a baseline, or why it cannot be run.

        Raises:
            WeightsError: the weights that the user named are not the package's.
            StorageError: the cache cannot be written.
        """
        if case.id not in self._found:
            try:
                self._found[case.id] = self._prepare(case)
            except EdgeSamError as error:
                if self._given is not None and isinstance(error, WeightsError):
                    raise
                self._found[case.id] = Skipped(case.id, error.message)
        return self._found[case.id]

    def _prepare(self, case: Case) -> dict[str, Any]:
        rules = {"score": self.manifest.mask.score, "point_masks": self.manifest.mask.point_masks}
        torch = {"module": "torch"}
        if case.id == MOBILE_SAM:
            fetch(MOBILE_SAM, offline=self.offline, report=self.note)
            return {**torch, "weights": MOBILE_SAM, "image_size": 1024, "score": "iou", "point_masks": 3}
        size = self.manifest.picture.size
        weights = self._package_weights()
        if case.kind == "pytorch":
            return {**torch, "weights": weights, "image_size": size, **rules}
        return {"module": "onnxruntime", "graphs": str(self._published(weights)), "image_size": size, **rules}

    def _package_weights(self) -> str:
        """Name or path of the very weights that the package was built from."""
        said = self.manifest.weights
        source = self._given or (said.name if said.name in REGISTRY else None)
        if source is None and (copy := kept(said.sha256)):
            source = str(copy)
        if source is None:
            raise WeightsError(f"the package's weights ({said.name}) are not at hand: name them with --weights")
        path = fetch(source, offline=self.offline, report=self.note) if source in REGISTRY else Path(source)
        if not path.is_file():
            raise WeightsError(f"there is no file {path}", hint="check the path")
        if sha256_of(path) != said.sha256:
            raise WeightsError(f"{source} are not the weights that the package was built from")
        return source if source in REGISTRY else str(path.resolve())

    def _published(self, weights: str) -> Path:
        """Folder with both graphs: from the cache by content, or exported now by another process."""
        job = {
            "weights": weights,
            "upsample": self.manifest.upsample,
            "image_size": self.manifest.picture.size,
            "score": self.manifest.mask.score,
        }
        source = sha256_of(Path(__file__).with_name("published.py"))
        content = {**job, "weights": self.manifest.weights.sha256, "form": "onnx-published", "exporter": source}
        key = cache.stage_key(content, ("onnx",))
        if (ready := cache.lookup(key)) is not None:
            return ready
        self.note("exporting ONNX as the published scripts do (once; kept in the cache)")
        with storage_errors(cache.build_cache()):
            cache.build_cache().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="published.", dir=cache.build_cache()) as scratch:
                folder = Path(scratch) / "graphs"
                folder.mkdir()
                _export({**job, "folder": str(folder)})
                return cache.store(key, folder)


def _export(job: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "edgesam_mobile.lab.published"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise EdgeSamError(f"the published-style ONNX export failed: {last}")
