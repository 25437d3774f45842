"""Where a package may go: only an older package, or nothing, may stand there, and nobody's file may go with it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgesam_mobile.errors import StorageError
from edgesam_mobile.files import storage_errors
from edgesam_mobile.package.card import CARD_NAME
from edgesam_mobile.package.manifest import FILE_NAME, LARGEST, PICTURES, declared_version

_GRAPHS = ("encoder", "decoder", "proposals")
_IGNORED = (".DS_Store",)  # macOS puts one into every folder that somebody has looked at
_ELSEWHERE = "choose another output folder"


def refuse_other_content(package: Path) -> None:
    """Refuse a place where something would be lost that can not be built again.

    Raises:
        StorageError: ``package`` is a file, a folder that is no package, or a package with a stranger's file in it.
    """
    if package.exists() and not package.is_dir():
        raise StorageError(f"{package} is a file", hint=_ELSEWHERE)
    with storage_errors(package):
        if not package.is_dir() or not any(package.iterdir()):
            return
        text = _start_of(package / FILE_NAME)
        stranger = next(_strangers(package, set(re.findall(r'"id"\s*:\s*"([^"]+)"', text))), None)
    # A damaged manifest of ours is enough: building again is what mends it.
    if declared_version(text) is None:
        raise StorageError(f"{package} holds something that is not a package", hint=_ELSEWHERE)
    if stranger is not None:
        raise StorageError(
            f"{package} holds {stranger.relative_to(package)}, which a build would delete",
            hint=f"move it away, or {_ELSEWHERE}",
        )


def _start_of(manifest: Path) -> str:
    """As much of it as a manifest can have; nothing where it is no file."""
    if not manifest.is_file():
        return ""
    with manifest.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(LARGEST)


def _strangers(package: Path, artifacts: set[str]) -> Iterator[Path]:
    """What is neither of an artefact that the manifest names nor a card, nor a mask that ``quickstart`` drew."""
    for path in sorted(package.iterdir()):
        if path.name in artifacts and path.is_dir():
            yield from (p for p in sorted(path.iterdir()) if p.stem not in _GRAPHS and p.name not in _IGNORED)
        elif path.name == PICTURES and path.is_dir():
            drawn = tuple(f"-{name}.png" for name in artifacts)
            yield from (p for p in sorted(path.iterdir()) if not p.name.endswith(drawn) and p.name not in _IGNORED)
        elif path.name not in (FILE_NAME, CARD_NAME, *_IGNORED):
            yield path


def refuse_unwritable(package: Path) -> None:
    """Find out before minutes of work, not after; nothing is left behind.

    Raises:
        StorageError: the folder around ``package`` cannot be written.
    """
    with storage_errors(package):
        parent = next(folder for folder in package.resolve().parents if folder.exists())
        tempfile.TemporaryDirectory(prefix=f".{package.name}.", dir=parent).cleanup()
