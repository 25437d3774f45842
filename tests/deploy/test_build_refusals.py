"""Builds that cannot work are refused before the work where that can be known, and leave everything as it was."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from command_line import call, entries, refusal, run
from typer.testing import Result

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.weights.checkpoint import Metadata, write_checkpoint

# No such file: a refusal of anything else comes before weights are looked for.
NO_WEIGHTS = ("--weights", "no-such-weights.pt")

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "target": (("--target", "windows"), "choose ios, android, host or all"),
    "precision": (("--precision", "int7"), "choose fp32, fp16, int8"),
    "no slots": (("--slots", "0"), "1 to 64"),
    "too many slots": (("--slots", "65"), "1 to 64"),
    "no prompts": (("--prompts", "0"), "1 to 64"),
    "score": (("--score", "best"), "choose iou or stability"),
    "image dtype": (("--image-dtype", "int8"), "choose float32 or uint8"),
    "precision of the target": (
        ("--target", "host", "--precision", "palette4"),
        "no format for host offers palette4",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_options_that_do_not_exist_are_shown_those_that_do(kind: str, tmp_path: Path) -> None:
    options, said = WRONG[kind]
    told = call("build", *options, *NO_WEIGHTS, "-o", tmp_path / "out")
    assert (told.exit_code, told.stdout) == (2, ""), told.output
    (line,) = told.stderr.splitlines()
    assert said in line
    assert entries(tmp_path) == []


def test_an_input_size_that_the_model_does_not_take_is_refused(standin_file: Path, tmp_path: Path) -> None:
    told = call("build", "--input-size", "777", "--weights", standin_file, "-o", tmp_path / "out")
    assert "choose one of 256, 512, 768, 1024" in refusal(told, 2)
    assert entries(tmp_path) == []


def test_a_folder_with_anything_else_in_it_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"precious")
    said = refusal(call("build", *NO_WEIGHTS, "-o", tmp_path / "holiday"), 12)
    assert "holds something that is not a package" in said
    assert entries(tmp_path) == ["holiday", "holiday/photo.jpg"]
    assert (tmp_path / "holiday" / "photo.jpg").read_bytes() == b"precious"


def test_a_folder_with_somebody_else_s_manifest_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my web application", "schema": "some.other/1"}')
    (tmp_path / "index.html").write_text("precious")
    assert "holds something that is not a package" in refusal(call("build", *NO_WEIGHTS, "-o", tmp_path), 12)
    assert entries(tmp_path) == ["index.html", "manifest.json"]


@pytest.mark.parametrize(
    ("stranger", "named"),
    [
        *[(name, name) for name in ("notes.txt", "pictures/cat.jpg", "coreml-fp32/notes.txt")],
        *[(name, name.partition("/")[0]) for name in ("photos/cat.jpg", "coreml-fp16/encoder.mlpackage")],
    ],
)
def test_a_package_with_a_stranger_s_file_in_it_is_refused_and_untouched(
    stranger: str, named: str, older: Path, tmp_path: Path
) -> None:
    (older / stranger).parent.mkdir(exist_ok=True)
    (older / stranger).write_text("precious")
    before = entries(tmp_path)
    said = refusal(call("build", *NO_WEIGHTS, "-o", older), 12)
    assert f"holds {named}, which a build would delete — move it away" in said
    assert entries(tmp_path) == before


@pytest.mark.parametrize("state", ["whole", "damaged"])
def test_what_builds_and_their_readers_put_into_a_package_is_no_stranger_s(state: str, older: Path) -> None:
    if state == "damaged":
        (older / "manifest.json").write_bytes((older / "manifest.json").read_bytes()[:-100])
    for name in ("MODEL_CARD.md", ".DS_Store", "coreml-fp32/encoder.mlpackage", "pictures/cat-coreml-fp32.png"):
        (older / name).parent.mkdir(exist_ok=True)
        (older / name).write_text("of the older package")
    # The next refusal is that of the weights.
    refusal(call("build", *NO_WEIGHTS, "-o", older), 9)


@pytest.fixture
def older(bare_package: Path, tmp_path: Path) -> Path:
    """A package with one artefact, ``coreml-fp32``, to build over."""
    return Path(shutil.copytree(bare_package, tmp_path / "older"))


def test_models_that_are_not_for_phones_are_refused_before_their_gigabytes_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> Path:
        raise AssertionError("fetched")

    monkeypatch.setattr("edgesam_mobile.model.load.fetch", fetched)
    # What holds such weights and does not say so by its name.
    metadata = Metadata(architecture="sam-vit-h", licence="Apache-2.0", commercial_use=True)
    weights = write_checkpoint(tmp_path / "mine.safetensors", {"x": torch.zeros(1)}, metadata)
    for words in (
        ("build", "--model", "sam-vit-b"),
        ("build", "--weights", "sam-vit-l"),
        ("build", "--model", "sam-vit-h", "--weights", "no-such-weights.pt"),
        ("build", "--weights", weights),
        ("quickstart", "--weights", "sam-vit-b"),
        ("quantize", "--weights", "sam-vit-b"),
        ("quantize", "--weights", weights),
    ):
        told = call(*words, "-o", tmp_path / "out", "--quiet")
        assert "has no form for phones" in refusal(told, 2)
        assert "choose one of mobile-sam, edge-sam-open" in refusal(told, 2)
    assert entries(tmp_path) == ["mine.safetensors"]


def test_a_precision_asked_for_twice_is_built_once() -> None:
    options = BuildOptions("mobile-sam", targets=("ios",), precisions=("fp16", "fp32", "fp16"))
    assert options.chosen()["coreml"] == ("fp16", "fp32")


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for output in (tmp_path / "file", tmp_path / "file" / "p", Path("/proc/nowhere/p")):
        assert str(output) in refusal(call("build", *NO_WEIGHTS, "-o", output), 12)
    assert entries(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_missing_weights_leave_no_trace_of_the_output(tmp_path: Path) -> None:
    refusal(call("build", *NO_WEIGHTS, "-o", tmp_path / "a" / "b"), 9)
    assert entries(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ios", "host"])
def test_a_disk_that_is_too_small_for_the_package_is_left_as_it_was(
    target: str, edge_sam_package: Path, standin_file: Path, small_disk: Path
) -> None:
    assert edge_sam_package.is_dir()  # so that the exports are in the cache
    said = refusal(call("build", "--target", target, "--weights", standin_file, "-o", small_disk / "p"), 12)
    assert said == f"error: no space left while writing {small_disk / 'p'} — free some disk space"
    assert entries(small_disk) == []


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), [("host", "fp32"), ("ios", "fp16"), ("android", "fp16")])
def test_a_disk_that_is_too_small_for_the_cache_is_left_without_halves(
    target: str, precision: str, standin_file: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(small_disk))
    options = ("--target", target, "--precision", precision, "--weights", standin_file)
    told: Result = call("build", *options, "-o", tmp_path / "out")
    assert "no space left while" in refusal(told, 12)
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_older_package_survives_a_full_disk(
    edge_sam_package: Path, standin_file: Path, small_disk: Path, tmp_path: Path
) -> None:
    assert edge_sam_package.is_dir()
    old = small_disk / "p"
    old.mkdir()
    older = '{"schema": "edgesam.manifest/1", "of": "the older package"}'
    (old / "manifest.json").write_text(older)
    refusal(call("build", "--target", "host", "--weights", standin_file, "-o", old), 12)
    assert entries(small_disk) == ["p", "p/manifest.json"]
    assert (old / "manifest.json").read_text() == older
    # There is nothing wrong with the build but the disk.
    assert build(BuildOptions(str(standin_file), targets=("host",)), tmp_path / "out").package.is_dir()


@pytest.mark.slow
def test_an_exporter_that_dies_of_a_full_disk_is_not_taken_for_a_crash(
    standin_file: Path, small_disk: Path, tmp_path: Path
) -> None:
    """Writing through a memory map into a full disk is answered by a signal."""
    words = ("build", "--target", "host", "--precision", "fp32", "--weights", standin_file, "-o", tmp_path / "out")
    path = shadowed(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGBUS)\n")
    full = run(*words, PYTHONPATH=path, EDGESAM_CACHE=str(small_disk))
    assert "no space left while exporting onnx" in refusal(full, 12)
    crashed = run(*words, PYTHONPATH=path, EDGESAM_CACHE=str(tmp_path / "cache"))
    assert f"exporting onnx was stopped by signal {signal.SIGBUS.value}" in refusal(crashed, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_an_exporter_says_on_its_way_is_passed_on(standin_file: Path, tmp_path: Path) -> None:
    """Tuning says how far it is. Here ONNX stands in for it, which is imported in the exporter's process."""
    words = ("build", "--target", "host", "--precision", "fp32", "--weights", standin_file, "-o", tmp_path / "out")
    code = "import logging\nlogging.getLogger('edgesam_mobile.deploy.tuning').info('tuned 1 of 2 steps')\n"
    told = run(*words, PYTHONPATH=shadowed(tmp_path, code), EDGESAM_CACHE=str(tmp_path / "cache"))
    assert "onnx: tuned 1 of 2 steps" in told.stderr.splitlines()


def shadowed(folder: Path, code: str) -> str:
    """A ``PYTHONPATH`` where ``code`` stands in the place of the package ``onnx``."""
    shadow = folder / "shadow" / "onnx"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(code)
    return os.pathsep.join(filter(None, (str(shadow.parent), os.environ.get("PYTHONPATH"))))
