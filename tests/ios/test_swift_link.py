"""What stands in the way of a Swift harness here, said in a line. swift.sh is a few lines of shell in these tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgesam_mobile.errors import DeviceError, EdgeSamError, EnvironmentMissing, UsageError
from edgesam_mobile.lab import swift
from edgesam_mobile.lab.devices import open_link, select
from edgesam_mobile.lab.swift import SwiftLink, build_harness, onnx_library
from edgesam_mobile.lab.targets import load_target

Script = Callable[[str], None]


@pytest.fixture
def swift_sh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a script in the place of swift.sh."""
    script = tmp_path / "swift.sh"
    monkeypatch.setattr(swift, "_SWIFT", script)
    monkeypatch.setattr(swift, "_SOURCES", tmp_path)

    def write(text: str) -> None:
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)

    return write


def refused(call: Callable[[], object], kind: type[EdgeSamError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in caught.value.message
    return f"{caught.value.message} — {caught.value.hint}"


def test_the_address_means_itself() -> None:
    assert select(["loopback-swift"], []) == ["loopback-swift"]
    assert isinstance(open_link("loopback-swift"), SwiftLink)
    assert load_target("iphone14-30fps").device.kind != "host"  # so that `compare` refuses what comes from it
    for address in ("loopback-swift:1", "loopback-rust"):
        with pytest.raises(UsageError):
            select([address], [])


def test_without_a_checkout_there_is_none(swift_sh: Script) -> None:
    assert "comes with the project's checkout" in refused(build_harness, EnvironmentMissing)


def test_without_a_compiler_its_script_says_why(swift_sh: Script) -> None:
    swift_sh('echo "error: no Swift here: apt has no mirror" >&2; exit 5')
    said = refused(build_harness, EnvironmentMissing)
    assert said.startswith("no Swift here: apt has no mirror — ") and "make tools" in said


def test_the_compilers_first_error_is_told(swift_sh: Script) -> None:
    swift_sh('echo "Building"; echo "a.swift:1:2: error: cannot find x"; echo "b.swift: error: other"; exit 1')
    assert refused(build_harness, EnvironmentMissing).startswith(
        "the Swift harness does not compile: cannot find x —"
    )
    swift_sh("exit 1")
    assert "does not say why" in refused(build_harness, EnvironmentMissing)


def test_what_takes_long_is_said(swift_sh: Script, tmp_path: Path) -> None:
    swift_sh("true")
    said: list[str] = []
    command = build_harness(said.append)
    assert len(said) == 1 and command[:2] == [str(tmp_path / "swift.sh"), "--run"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('echo "error: no room" >&2; echo "make some" >&2', "did not start: no room — make some"),
        ('echo "Segmentation fault" >&2; exit 139', "did not start: Segmentation fault"),
        ("exit 1", "it does not say why"),
    ],
)
def test_a_harness_that_does_not_start_leaves_nothing(swift_sh: Script, script: str, told: str) -> None:
    swift_sh(f'[ "$1" = --run ] || exit 0\n{script}')
    link = SwiftLink()
    assert told in refused(link.open, DeviceError)
    assert not link._folder.exists()


def test_without_onnx_runtime_nothing_is_built(monkeypatch: pytest.MonkeyPatch, swift_sh: Script) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "no ONNX Runtime" in refused(SwiftLink().open, EnvironmentMissing)


def test_the_library_is_there() -> None:
    assert onnx_library().is_file()
