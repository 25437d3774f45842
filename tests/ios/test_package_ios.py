"""The Swift package for an app: what is in it, what is refused, and that an installed wheel makes the same one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command_line import call, entries, refusal

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.files import sha256_of, size_of
from edgesam_mobile.lab.swift import _SWIFT
from edgesam_mobile.package.manifest import check_file, read_manifest
from edgesam_mobile.package.swiftpm import KIT, MODEL
from tests.android.conftest import tools_or_skip
from tests.package.manifest_samples import sample

ROOT = Path(__file__).parents[2]
PARTS = ("encoder", "decoder")
KIT_FILES = {str(path.relative_to(KIT)) for path in KIT.rglob("*") if path.is_file()}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose graphs are folders of a few bytes, in two Core ML precisions and ONNX."""
    folder = tmp_path / "built"
    manifest = sample()
    half, onnx = manifest["artifacts"]
    full = json.loads(json.dumps(half)) | {"id": "coreml-fp32", "precision": "fp32"}
    manifest["artifacts"] = [full, half, onnx]
    for artifact, content in ((full, b"single precision"), (half, b"half"), (onnx, b"onnx")):
        for part in PARTS:
            path = folder / artifact["id"] / f"{part}.mlpackage"
            (path / "Data").mkdir(parents=True)
            (path / "Data" / "model.mlmodel").write_bytes(content + part.encode())
            (path / "Manifest.json").write_text("{}")
            relative = path.relative_to(folder).as_posix()
            artifact[part]["file"] = {"path": relative, "sha256": sha256_of(path), "bytes": size_of(path)}
    write(folder, manifest)
    return folder


def write(package: Path, manifest: dict[str, Any]) -> None:
    (package / "manifest.json").write_text(json.dumps(manifest))


def change(package: Path, **weights: Any) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["weights"].update(weights)
    write(package, manifest)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in entries(folder) if (folder / name).is_file()}


def test_it_holds_the_library_and_the_smallest_artefact(package: Path, tmp_path: Path) -> None:
    told = call("package", "ios", package, "-o", tmp_path / "Segmentation", "--json")
    assert told.exit_code == 0, told.output
    made = contents(tmp_path / "Segmentation")
    said = json.loads(told.stdout)
    assert (said["artifact"], said["files"]) == ("coreml-fp16", sorted(said["files"]))
    assert set(said["files"]) == set(made)
    kit = {f"Sources/EdgeSAMKit/{name}": (KIT / name).read_bytes() for name in KIT_FILES}
    assert "Sources/EdgeSAMKit/EdgeSAMKit.docc/EdgeSAMKit.md" in kit
    assert len(kit) > 5 and kit.items() <= made.items()
    assert made["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b'name: "Segmentation"' in made["Package.swift"]
    model = tmp_path / "Segmentation" / MODEL
    (artifact,) = read_manifest(model).artifacts
    assert {part: check_file(model, graph.file).name for part, graph in artifact.graphs().items()} == {
        part: f"{part}.mlpackage" for part in PARTS
    }
    readme = made["README.md"].decode()
    assert "Apache-2.0" in readme and "commercial" not in readme
    assert len(readme.split("```swift\n")[1].split("```")[0].splitlines()) <= 10


def test_the_same_artefact_gives_the_same_files(package: Path, tmp_path: Path) -> None:
    for place in ("a/Segmentation", "b/Segmentation"):
        call("package", "ios", package, "-o", tmp_path / place, "--artifact", "coreml-fp32")
    (tmp_path / "b" / "Segmentation").chmod(0o700)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_largest_is_taken_where_it_is_named(package: Path, tmp_path: Path) -> None:
    assert call("package", "ios", package, "-o", tmp_path / "app", "--artifact", "coreml-fp32").exit_code == 0
    assert [one.id for one in read_manifest(tmp_path / "app" / MODEL).artifacts] == ["coreml-fp32"]


@pytest.mark.parametrize(("minimum", "ios", "macos"), [("iOS 16", 17, 14), ("iOS 18", 18, 15), (None, 17, 14)])
def test_an_app_must_be_for_systems_that_run_the_artefact(
    minimum: str | None, ios: int, macos: int, package: Path, tmp_path: Path
) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["artifacts"][1]["minimum_os"] = minimum
    write(package, manifest)
    told = call("package", "ios", package, "-o", tmp_path / "app")
    assert f"for iOS {ios} and later" in told.stdout
    assert f'[.iOS("{ios}.0"), .macOS("{macos}.0")]' in (tmp_path / "app" / "Package.swift").read_text()
    assert f"for iOS {ios} and later" in (tmp_path / "app" / "README.md").read_text()


def test_an_empty_folder_is_filled_and_a_full_one_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert call("package", "ios", package, "-o", tmp_path / "app").exit_code == 0
    before = contents(tmp_path / "app")
    assert "holds something" in refusal(call("package", "ios", package, "-o", tmp_path / "app"), 12)
    assert contents(tmp_path / "app") == before
    (tmp_path / "file").touch()
    assert "holds something" in refusal(call("package", "ios", package, "-o", tmp_path / "file"), 12)


def test_weights_that_forbid_commercial_use_are_asked_for(package: Path, tmp_path: Path) -> None:
    change(package, commercial_use=False, licence="S-Lab License 1.0")
    assert "forbids commercial use" in refusal(call("package", "ios", package, "-o", tmp_path / "app"), 2)
    assert not (tmp_path / "app").exists()
    told = call("package", "ios", package, "-o", tmp_path / "app", "--non-commercial")
    assert told.exit_code == 0 and "warning: the weights' licence" in told.stderr
    readme = (tmp_path / "app" / "README.md").read_text()
    assert "**No commercial use**" in readme and "text of the weights' licence is not here" in readme


def test_unknown_licences_and_untrained_weights_are_told(package: Path, tmp_path: Path) -> None:
    change(package, commercial_use=None, licence=None, trained=False)
    told = call("package", "ios", package, "-o", tmp_path / "app")
    assert "licence is not known" in told.stderr and "untrained stand-in" in told.stderr
    assert "Find out before you ship" in (tmp_path / "app" / "README.md").read_text()


def test_what_is_not_for_core_ml_is_refused(package: Path, tmp_path: Path) -> None:
    words = ("package", "ios", package, "-o", tmp_path / "app")
    assert "is not for Core ML" in refusal(call(*words, "--artifact", "onnx-fp32"), 2)
    assert "has no artefact 'coreml-int8'" in refusal(call(*words, "--artifact", "coreml-int8"), 2)
    manifest = json.loads((package / "manifest.json").read_text())
    write(package, {**manifest, "artifacts": manifest["artifacts"][-1:]})
    assert "no Core ML artefact" in refusal(call(*words), 2)


def test_an_altered_artefact_is_refused(package: Path, tmp_path: Path) -> None:
    (package / "coreml-fp16" / "encoder.mlpackage" / "Manifest.json").write_text("{ }")
    assert "has been altered" in refusal(call("package", "ios", package, "-o", tmp_path / "app"), 11)
    assert not (tmp_path / "app").exists()


@pytest.mark.slow
def test_an_installed_wheel_makes_the_same_package(package: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files beside what it builds
    for name in ("edgesam_mobile", "distill", "ios_harness/Sources/EdgeSAMKit"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    made = tmp_path / "wheels"
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", made, source], check=True, capture_output=True
    )
    (wheel,) = made.iterdir()
    place = "edgesam_mobile/package/EdgeSAMKit/"
    names = {name.removeprefix(place) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(place)}
    assert names == KIT_FILES
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True, capture_output=True)
    run = f"import edgesam_mobile.cli as cli; assert cli.__file__.startswith({str(installed)!r}); cli.main()"
    subprocess.run(
        [sys.executable, "-c", run, "package", "ios", package, "-o", tmp_path / "there" / "app"],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )
    call("package", "ios", package, "-o", tmp_path / "here" / "app")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_an_app_finds_the_model_in_it(package: Path, tmp_path: Path) -> None:
    """Without Core ML: that both targets compile, and that the resources are found with what they are called."""
    app = tmp_path / "app"
    call("package", "ios", package, "-o", app / "Segmentation")
    (app / "Sources" / "app").mkdir(parents=True)
    (app / "Package.swift").write_text(
        "// swift-tools-version: 5.9\nimport PackageDescription\n"
        'let model = Target.Dependency.product(name: "SegmentationModel", package: "Segmentation")\n'
        'let package = Package(name: "app", dependencies: [.package(path: "Segmentation")],\n'
        '  targets: [.executableTarget(name: "app", dependencies: [model])])\n'
    )
    (app / "Sources" / "app" / "main.swift").write_text(
        "import EdgeSAMKit\nimport Foundation\nimport SegmentationModel\n"
        "let package = try ModelPackage(folder: SegmentationModel.folder)\n"
        "for one in package.artifacts {\n"
        "  print(one.id, FileManager.default.fileExists(atPath: one.encoder.path))\n}\n"
    )
    with tools_or_skip():
        build_app(app)
    done = subprocess.run([_SWIFT, "--run", app / ".build" / "debug" / "app"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("coreml-fp16 true\n", 0), done.stderr


def build_app(folder: Path) -> None:

    done = subprocess.run([_SWIFT, "build", "-j", "2"], cwd=folder, capture_output=True, text=True)
    if done.returncode == 5:
        raise EnvironmentMissing(done.stderr.splitlines()[-1], hint="make tools")
    assert done.returncode == 0, done.stdout[-3000:]
