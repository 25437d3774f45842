"""Copies of weights that packages were built from, by hash, so that ``verify`` finds them again."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgesam_mobile.files import atomic_file
from edgesam_mobile.weights.fetch import cache_root


def keep(path: Path, sha256: str) -> Path:
    """Copy a checkpoint into the cache under its hash, unless it is there.

    Raises:
        StorageError: the cache cannot be written or the disk is full.
    """
    target = _folder() / f"{sha256}{path.suffix}"
    if not target.is_file():
        with atomic_file(target) as temporary:
            shutil.copyfile(path, temporary)
    return target


def kept(sha256: str) -> Path | None:
    """The copy with this hash, if there is one (its content is hashed again when it is read)."""
    return next(iter(sorted(_folder().glob(f"{sha256}.*"))), None)


def _folder() -> Path:
    return cache_root() / "weights" / "by-sha256"
