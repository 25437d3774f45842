"""The harness's core on a JVM: JUnit's tests, one class a test here, and the fixtures that they share with Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from android_harness.tools.build_apk import HARNESS, compile_java
from android_harness.tools.make_fixtures import FIXTURES, write_fixtures
from android_harness.tools.provision import JVM
from tests.android.conftest import tools_or_skip

TESTS = HARNESS / "core/src/test/java"
STREAMS = Path(__file__).parents[1] / "protocol" / "streams"
CLASSES = sorted(path.relative_to(TESTS).with_suffix("") for path in TESTS.rglob("*Test.java"))


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    with tools_or_skip():
        JVM.need()
    folder = tmp_path_factory.mktemp("core")
    junit = [Path(name) for name in JVM.files]
    core = compile_java(folder / "core", [HARNESS / "core/src/main/java"], [])
    tests = compile_java(folder / "tests", [TESTS], [core, *junit])
    shutil.copytree(FIXTURES, tests / "fixtures")
    return os.pathsep.join(map(str, (core, tests, *junit)))


@pytest.mark.slow
@pytest.mark.parametrize("path", CLASSES, ids=lambda path: path.name)
def test_in_a_jvm(classpath: str, path: Path, tmp_path: Path) -> None:
    name = ".".join(path.parts)
    # In a folder of its own: temporary files of the tests land under tmp_path.
    options = ["-Xmx512m", f"-Dstreams={STREAMS}", f"-Djava.io.tmpdir={tmp_path}", "-cp", classpath]
    done = subprocess.run(
        ["java", *options, "org.junit.runner.JUnitCore", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_fixtures_are_what_python_computes(tmp_path: Path) -> None:
    write_fixtures(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FIXTURES.iterdir()
    }
