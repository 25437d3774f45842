"""Exports under way have a folder that no other build touches, and that none inherits."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from command_line import entries

from edgesam_mobile.deploy.cache import build_cache, scratch_folder


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path))


def left(name: str, *, minutes_ago: float) -> Path:
    """What a killed build has left in the cache."""
    folder = build_cache() / name
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "half.onnx").write_bytes(b"half")
    (folder / "lock").touch()
    then = time.time() - 60 * minutes_ago
    os.utime(folder, (then, then))
    return folder


def test_what_killed_builds_have_left_goes_and_finished_exports_stay() -> None:
    left("export.killed", minutes_ago=5)
    left("export.not-locked-yet", minutes_ago=0)
    left("ab", minutes_ago=5)
    lockless = left("export.of-an-earlier-version", minutes_ago=5)
    (lockless / "lock").unlink()
    os.utime(lockless, (0, 0))
    stays = {"ab", "export.not-locked-yet", "export.of-an-earlier-version"}
    with scratch_folder() as folder:
        assert {path.name for path in build_cache().iterdir()} == {*stays, folder.name}
    assert {path.name for path in build_cache().iterdir()} == stays


def test_a_build_at_work_keeps_its_folder_however_long_it_takes() -> None:
    with scratch_folder() as first:
        (first / "half.onnx").write_bytes(b"half")
        os.utime(first, (0, 0))
        with scratch_folder() as second:
            assert first != second
            assert entries(first) == ["half.onnx", "lock"]
    assert entries(build_cache()) == []
