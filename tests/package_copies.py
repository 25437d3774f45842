"""Copies of built packages to damage: files are linked, so a copy costs nothing, and replaced when altered."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesam_mobile.files import sha256_of, size_of


def copy_package(package: Path, target: Path, *artifacts: str) -> Path:
    """A package with these artefacts of another one, or with all where none is named."""
    manifest = json.loads((package / "manifest.json").read_text())
    kept = [a for a in manifest["artifacts"] if not artifacts or a["id"] in artifacts]
    assert len(kept) == (len(artifacts) or len(manifest["artifacts"]))
    for artifact in kept:
        shutil.copytree(package / artifact["id"], target / artifact["id"], copy_function=os.link)
    write_json(target / "manifest.json", {**manifest, "artifacts": kept})
    return target


def replace(path: Path, content: bytes) -> None:
    """Give one file of a copy another content; the original keeps its own."""
    path.unlink()
    path.write_bytes(content)


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    replace(path, change(path.read_bytes()))


def rehash(package: Path, artifact: str, part: str) -> None:
    """Make the manifest of a copy agree with an altered file, as somebody who alters files on purpose would."""
    manifest = json.loads((package / "manifest.json").read_text())
    record = graph(manifest, artifact, part)["file"]
    path = package / record["path"]
    record.update(sha256=sha256_of(path), bytes=size_of(path))
    write_json(package / "manifest.json", manifest)


def graph(manifest: dict[str, Any], artifact: str, part: str) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in manifest["artifacts"] if a["id"] == artifact)[part]
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value))
