"""A run's checkpoints: written whole or not at all, checked when read, the newest few kept."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesam_mobile.errors import WeightsError
from edgesam_mobile.files import atomic_file

_MAGIC = b"edgesam-mobile checkpoint 1\n"
_DIGEST = hashlib.sha256().digest_size


class Checkpoints:
    """The files ``step-00000500.ckpt`` of a folder.

    Each is a line that says what it is, the SHA-256 of the rest, and the rest, as ``torch.save`` writes it.

    Args:
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write a checkpoint, then delete the oldest.

        Raises:
            StorageError: it cannot be written; the earlier ones are untouched.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getbuffer()
        path = self.folder / f"step-{step:08d}.ckpt"
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            stream.write(_MAGIC)
            stream.write(hashlib.sha256(data).digest())
            stream.write(data)
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """What there is, newest first."""
        return sorted(self.folder.glob("step-*.ckpt"), reverse=True)

    def newest(self, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint; ``warn`` is told of each damaged one. None where there are no files.

        Raises:
            WeightsError: there are checkpoints, and all of them are damaged.
        """
        for leftover in self.folder.glob(".step-*"):  # of a process that was killed
            leftover.unlink()
        paths = self.paths()
        for path in paths:
            try:
                return path, read(path)
            except WeightsError as error:
                warn(f"{error.message}: going back to the one before")
        if paths:
            hint = "start again in a new folder; model.init can take weights that you have"
            raise WeightsError(f"no checkpoint in {self.folder} can be read", hint=hint)
        return None


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU.

    Raises:
        WeightsError: it is cut short, altered or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if not data.startswith(_MAGIC):
        raise WeightsError(f"{path} is no checkpoint of this version")
    body = memoryview(data)[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : len(_MAGIC) + _DIGEST]:
        raise WeightsError(f"{path} is damaged")
    content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    assert isinstance(content, dict)
    return content


def random_state() -> dict[str, Any]:
    """The state of this process's random number generators, in plain values and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])
