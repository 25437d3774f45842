"""Builds go on from finished exports, whatever happened to an earlier build, and leave no halves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command_line import entries, refusal, run, start

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.cache import build_cache
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.errors import StorageError
from edgesam_mobile.package.manifest import read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture
def own_builds(edge_sam_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with every export of the stand-in, linked from the session's, to damage: replace, do not write."""
    assert edge_sam_package.is_dir()
    target = tmp_path / "own-cache"
    shutil.copytree(build_cache(), target / "build", copy_function=os.link)
    monkeypatch.setenv("EDGESAM_CACHE", str(target))
    return target / "build"


def hashes(package: Path) -> dict[str, str]:
    return {record.path: record.sha256 for record in read_manifest(package).files()}


def test_a_second_build_is_all_from_the_cache_and_equal(
    edge_sam_package: Path, standin_file: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    result = build(BuildOptions(str(standin_file)), tmp_path / "again", report=told.append)
    assert len(result.stages) == len(told) == 10
    assert all(stage.cached for stage in result.stages)
    assert all("taken from the cache" in line for line in told)
    assert result.peak_bytes == 0
    assert hashes(tmp_path / "again") == hashes(edge_sam_package)


def test_other_slots_change_the_decoders_only(edge_sam_package: Path, standin_file: Path, tmp_path: Path) -> None:
    result = build(BuildOptions(str(standin_file), targets=("host",), slots=3), tmp_path / "p")
    assert {stage.part: stage.cached for stage in result.stages} == {"encoder": True, "decoder": False}
    assert all(stage.seconds > 0 < stage.peak_bytes for stage in result.stages if not stage.cached)
    decoder = result.manifest.artifact("onnx-fp32").decoder
    assert {port.name: port.shape for port in decoder.inputs}["point_coords"] == [1, 3, 2]
    before, after = hashes(edge_sam_package), hashes(tmp_path / "p")
    assert after["onnx-fp32/encoder.onnx"] == before["onnx-fp32/encoder.onnx"]
    assert after["onnx-fp32/decoder.onnx"] != before["onnx-fp32/decoder.onnx"]


@pytest.mark.parametrize("how", ["altered", "missing", "unsealed"])
def test_a_damaged_cache_entry_is_made_again(
    how: str, own_builds: Path, edge_sam_package: Path, standin_file: Path, tmp_path: Path
) -> None:
    """Found by its content: the file in the cache that is the package's ONNX decoder."""
    wanted = (edge_sam_package / "onnx-fp32" / "decoder.onnx").read_bytes()
    copies = [path for path in own_builds.rglob("decoder.onnx") if path.read_bytes() == wanted]
    assert copies
    for decoder in copies:
        if how == "unsealed":
            (decoder.parent.parent / "sha256").unlink()
        else:
            decoder.unlink()
        if how == "altered":
            decoder.write_bytes(wanted[:-1] + b"!")
    result = build(BuildOptions(str(standin_file), targets=("host",)), tmp_path / "p")
    assert {stage.part: stage.cached for stage in result.stages} == {"encoder": True, "decoder": False}
    again = hashes(tmp_path / "p")
    assert again == {path: digest for path, digest in hashes(edge_sam_package).items() if path in again}


def test_an_older_package_is_replaced_as_a_whole(
    edge_sam_package: Path, standin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "parent" / "p"
    build(BuildOptions(str(standin_file), targets=("host",)), package)
    (package / "notes.txt").write_text("somebody's")
    with pytest.raises(StorageError, match=r"holds notes\.txt, which a build would delete"):
        build(BuildOptions(str(standin_file), targets=("ios",), precisions=("fp32",)), package)
    (package / "notes.txt").unlink()
    build(BuildOptions(str(standin_file), targets=("ios",), precisions=("fp32",)), package)
    assert [a.id for a in read_manifest(package).artifacts] == ["coreml-fp32"]
    assert {path.name for path in package.iterdir()} == {"coreml-fp32", "manifest.json", "MODEL_CARD.md"}
    # From inside it, too.
    monkeypatch.chdir(package)
    build(BuildOptions(str(standin_file), targets=("host",)), Path())
    monkeypatch.chdir(tmp_path)
    assert [a.id for a in read_manifest(package).artifacts] == ["onnx-fp32"]
    assert [path.name for path in package.parent.iterdir()] == ["p"]


@pytest.fixture
def begun(standin_file: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts builds into ``tmp_path/out/p`` with a cache of their own; none survives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        words = ("build", "--weights", standin_file, "-o", tmp_path / "out" / "p", *options)
        process = start(*words, EDGESAM_CACHE=str(tmp_path / "cache"))
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The exporters at work for a build."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "edgesam_mobile.deploy.worker" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leftovers(tmp_path: Path) -> list[str]:
    """What a build left beside its output or half-finished in its cache."""
    beside = entries(tmp_path / "out") if (tmp_path / "out").exists() else []
    return beside + [path.name for path in (tmp_path / "cache" / "build").glob("*") if len(path.name) != 2]


def test_an_interrupted_build_leaves_nothing_and_the_next_goes_on_from_it(
    begun: Callable[..., subprocess.Popen[str]], standin_file: Path, tmp_path: Path
) -> None:
    ios = ("--target", "ios", "--precision", "fp16")
    process = begun(*ios)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("[1/4] ")
    at_work = workers(process)
    assert at_work
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.splitlines()[-1] == "interrupted: nothing half-written is left"
    assert "Traceback" not in said
    gone, alive = psutil.wait_procs(at_work, timeout=10)
    assert (len(gone), alive) == (len(at_work), [])
    assert leftovers(tmp_path) == []

    words = ("build", "--weights", standin_file, "-o", tmp_path / "out" / "p", *ios, "--json")
    told = run(*words, EDGESAM_CACHE=str(tmp_path / "cache"))
    assert told.exit_code == 0, told.output
    stages = {stage["name"]: stage["cached"] for stage in json.loads(told.stdout)["stages"]}
    assert len(stages) == 4
    finished = first.removeprefix("[1/4] ").partition(":")[0]
    assert stages[finished] is True
    assert not all(stages.values())
    assert entries(tmp_path / "out")[0] == "p"
    assert leftovers(tmp_path)[-1].startswith("p/")


def test_ctrl_c_on_a_terminal_reaches_exporters_too_and_is_still_an_interrupt(
    begun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = begun("--target", "host")
    wait_for(lambda: workers(process))
    time.sleep(1)
    at_work = workers(process)
    for receiver in (process, *at_work):
        receiver.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted: nothing half-written is left\n")
    assert psutil.wait_procs(at_work, timeout=10)[1] == []
    assert leftovers(tmp_path) == []


def test_a_build_that_is_asked_to_end_leaves_nothing_either(
    begun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """As by `kill`, by a service manager or a scheduler, with SIGTERM."""
    process = begun("--target", "host")
    wait_for(lambda: workers(process))
    at_work = workers(process)
    process.terminate()
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (143, "", "interrupted: nothing half-written is left\n")
    assert psutil.wait_procs(at_work, timeout=10)[1] == []
    assert leftovers(tmp_path) == []


def test_a_killed_exporter_is_one_line(begun: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """As a system does that runs out of memory."""
    process = begun("--target", "host")
    wait_for(lambda: workers(process))
    (worker,) = workers(process)
    worker.kill()
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    (line,) = said.splitlines()
    assert line.startswith("error: exporting onnx was stopped by signal 9 — ")
    assert "memory" in line
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("host", "onnx", "onnx"),
        ("android", "litert_torch", "tflite"),
        ("ios", "coremltools", "coreml"),
        ("android", "executorch", "executorch"),
    ],
)
def test_a_missing_converter_is_named_with_the_command_that_installs_it(
    target: str, module: str, extra: str, standin_file: Path, tmp_path: Path
) -> None:
    shadow = tmp_path / "shadow" / module
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
    )
    path = os.pathsep.join(filter(None, (str(shadow.parent), os.environ.get("PYTHONPATH"))))
    words = ("build", "--target", target, "--precision", "fp32", "--weights", standin_file, "-o", tmp_path / "out")
    told = run(*words, PYTHONPATH=path, EDGESAM_CACHE=str(tmp_path / "cache"))
    said = refusal(told, 5)
    assert f"No module named '{module}'" in said
    assert f'pip install "edgesam-mobile[{extra}]"' in said
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "cache" / "build").glob("export.*")] == []
