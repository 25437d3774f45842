"""Finished exports by content: the same weights, options, tools and sources give the same key."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgesam_mobile.files import atomic_folder, sha256_of, storage_errors
from edgesam_mobile.weights.fetch import cache_root

_ALWAYS = ("torch", "torchao", "numpy")
_UNDER_WAY = "export."
_JUST_MADE = 60  # seconds in which a folder may still wait for its lock


def stage_key(parts: Mapping[str, Any], packages: tuple[str, ...]) -> str:
    """The key of one export: a hash over what decides its bytes."""
    everything = {**parts, "tools": tool_versions(packages), "source": source_digest()}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def tool_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of torch and of the given distributions."""
    found = {}
    for name in sorted({*_ALWAYS, *packages}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def lookup(key: str) -> Path | None:
    """The folder of a finished export, if it is there and unharmed."""
    folder = _place(key)
    seal = folder / "sha256"
    if not seal.is_file() or seal.read_text() != sha256_of(folder / "content"):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder / "content"


def store(key: str, content: Path) -> Path:
    """Move a finished export into the cache and give its folder there."""
    with atomic_folder(_place(key)) as folder:
        (folder / "sha256").write_text(sha256_of(content))
        shutil.move(content, folder / "content")
    return _place(key) / "content"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for exports under way, gone afterwards; those of builds that were killed go now.

    Each build holds a lock in its own folder, which ends with its process, however that ends.

    Raises:
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock

    with storage_errors(build_cache()):
        build_cache().mkdir(parents=True, exist_ok=True)
        _forget_killed()
        folder = Path(tempfile.mkdtemp(prefix=_UNDER_WAY, dir=build_cache()))
    try:
        with storage_errors(folder):
            lock = FileLock(folder / "lock").acquire()
        with lock:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget_killed() -> None:
    from filelock import FileLock, Timeout

    for folder in build_cache().glob(f"{_UNDER_WAY}*"):
        try:
            # Without a lock it may be at work: versions before this one held none.
            if (folder / "lock").exists() and time.time() - folder.stat().st_mtime > _JUST_MADE:
                with FileLock(folder / "lock", timeout=0):
                    shutil.rmtree(folder)
        except (Timeout, OSError):
            continue  # at work, somebody else's, or gone just now


def build_cache() -> Path:
    """Where finished exports are kept."""
    return cache_root() / "build"


def _place(key: str) -> Path:
    return build_cache() / key[:2] / key


@cache
def source_digest() -> str:
    """Hash of the sources that decide what is exported: the model's and this room's."""
    package = Path(__file__).parent.parent
    sources = sorted(path for room in ("model", "deploy") for path in (package / room).glob("*.py"))
    return hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in sources).encode()).hexdigest()
