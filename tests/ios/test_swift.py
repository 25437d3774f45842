"""The Swift harness with its own compiler: it builds, its tests pass, and it is formatted.

Core ML's parts are compiled and tested against a stand-in of that name; the app is only parsed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from edgesam_mobile.errors import EnvironmentMissing
from ios_harness.tools.xcodeproj import HARNESS
from tests.android.conftest import tools_or_skip

# Long where the compiler's root is not there yet, or nothing is compiled.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SWIFT = HARNESS / "tools" / "swift.sh"
NO_TOOLCHAIN = 5  # how swift.sh ends without one
LEAST_COVERED = 0.9
GUIDE = HARNESS / "Sources/EdgeSAMKit/EdgeSAMKit.docc/FromATapToAMask.md"


def swift(*words: str | Path, folder: Path = HARNESS, **environment: str) -> str:
    """What the compiler says, without a fault."""
    done = subprocess.run(
        [SWIFT, *words], cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode == NO_TOOLCHAIN:
        with tools_or_skip():
            raise EnvironmentMissing(done.stderr.strip().removeprefix("error: "), hint="run `make tools` as root")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def covered(report: Path) -> dict[str, float]:
    """The share of lines that tests run, 0 to 1, of what an iPhone runs; the rest is tested with ONNX Runtime."""
    lines = dict.fromkeys(("EdgeSAMKit", "HarnessCore", "HarnessCoreML"), (0, 0))
    for file in json.loads(report.read_text())["data"][0]["files"]:
        target = Path(file["filename"]).parent
        if target.parent.name == "Sources" and target.name in lines:
            run, count = lines[target.name]
            told = file["summary"]["lines"]
            lines[target.name] = run + told["covered"], count + told["count"]
    return {name: run / count for name, (run, count) in lines.items()}


def scratch(name: str) -> tuple[str, str]:
    """Kept between runs, as Swift's own is: not to compile everything each time."""
    return "--scratch-path", str(HARNESS / "build" / name)


# Without this variable, what a machine without Core ML compiles; with it, Core ML's users as well.
@pytest.mark.parametrize("stand_in", ["0", "1"])
def test_it_builds_without_a_warning_and_its_tests_pass(stand_in: str) -> None:
    options = (*scratch(f"tests-{stand_in}"), *(("--enable-code-coverage",) if stand_in == "1" else ()))
    said = swift("build", "--build-tests", "-j", "2", *options, EDGESAM_STANDIN_COREML=stand_in)
    # The search paths of a system library that apt has, and pkg-config has not, are no warning of ours.
    assert [line for line in said.splitlines() if ".swift:" in line and "warning:" in line] == []
    said = swift("test", "--skip-build", *options, EDGESAM_STANDIN_COREML=stand_in)
    assert ("CoreMLRunnerTests" in said) == (stand_in == "1")
    assert "with 0 failures" in said
    if stand_in == "1":
        shares = covered(HARNESS / "build" / "tests-1" / "debug" / "codecov" / "EdgeSAM.json")
        assert shares == {name: share for name, share in shares.items() if share >= LEAST_COVERED}


def test_it_is_formatted() -> None:
    swift("format", "lint", "--strict", "--recursive", "Package.swift", "Sources", "Tests", "App", "ExecuTorchRunner")


def test_what_only_a_mac_compiles_parses(tmp_path: Path) -> None:
    files = [*(HARNESS / "App").glob("*.swift"), *(HARNESS / "ExecuTorchRunner" / "Sources").rglob("*.swift")]
    assert len(files) > 5
    guide = tmp_path / "guide.swift"
    blocks = re.findall(r"^```swift\n(.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)
    guide.write_text("".join(blocks))
    assert len(blocks) == 3 and "final class" in blocks[0]
    for file in files:
        swift("--exec", "swiftc", "-frontend", "-parse", file)
    swift("--exec", "swiftc", "-frontend", "-parse", guide, folder=tmp_path)


def test_executorchs_package_is_described_as_swift_reads_it() -> None:
    said = swift(
        "package", "dump-package", "--package-path", "ExecuTorchRunner", "--scratch-path", "build/executorch"
    )
    assert '"ExecuTorchRunner"' in said
