"""The Xcode project: what its script writes, whole in itself, and its settings those that other parts rely on."""

from __future__ import annotations

import io
import json
import plistlib
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openstep_parser import OpenStepDecoder
from PIL import Image

from edgesam_mobile.lab.ios import PORT
from edgesam_mobile.lab.xcode import SCHEME
from ios_harness.tools.icon import write_icon
from ios_harness.tools.xcodeproj import HARNESS, NAME, identifier, project, write_project

PROJECT = HARNESS / f"{NAME}.xcodeproj"
ID = re.compile(r"[0-9A-F]{24}")


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    with (PROJECT / "project.pbxproj").open() as file:
        tree: dict[str, Any] = OpenStepDecoder.ParseFromFile(file)
    return tree


def test_the_project_is_what_its_script_writes(tmp_path: Path) -> None:
    fresh = write_project(tmp_path)
    assert _files(fresh) == _files(PROJECT)


def test_it_parses_to_what_was_meant(parsed: dict[str, Any]) -> None:
    assert parsed == project()


def test_no_id_dangles_and_none_is_left_over(parsed: dict[str, Any]) -> None:
    objects = parsed["objects"]
    used = {text for part in objects.values() for text in _texts(part) if ID.fullmatch(text)} | {parsed["rootObject"]}
    assert used == set(objects)
    assert all(part["isa"] for part in objects.values())


def test_every_path_is_there(parsed: dict[str, Any]) -> None:
    objects = parsed["objects"]

    def look(group: str, folder: Path) -> list[Path]:
        part = objects[group]
        if part["sourceTree"] == "BUILT_PRODUCTS_DIR":
            return []
        place = folder / part.get("path", "")
        return [place, *(path for child in part.get("children", []) for path in look(child, place))]

    paths = look(objects[parsed["rootObject"]]["mainGroup"], HARNESS)
    assert {HARNESS / "App", HARNESS / "Config" / "Info.plist"} <= set(paths)
    assert [path for path in paths if not path.exists()] == []
    for settings in _settings(parsed):
        if "INFOPLIST_FILE" in settings:
            assert (HARNESS / settings["INFOPLIST_FILE"]).is_file()
    # What lies in App is compiled or copied as it is: a property list there would be copied into the app.
    assert {path.suffix for path in (HARNESS / "App").iterdir()} == {".swift", ".xcassets"}


def test_packages_that_are_built_there_are_copied_into_the_app_as_they_are(parsed: dict[str, Any]) -> None:
    objects = parsed["objects"]
    (phase,) = (part for part in objects.values() if part["isa"] == "PBXResourcesBuildPhase")
    (copied,) = (objects[objects[file]["fileRef"]] for file in phase["files"])
    assert (copied["path"], copied["lastKnownFileType"]) == ("Packages", "folder")
    assert f'forResource: "{copied["path"]}"' in (HARNESS / "App" / "TryItModel.swift").read_text()
    # Nothing but the rule itself is in git, whatever is built.
    assert (HARNESS / "Packages" / ".gitignore").read_text().splitlines()[1:] == ["*", "!.gitignore"]


def test_the_icon_is_what_its_script_draws(parsed: dict[str, Any], tmp_path: Path) -> None:
    fresh, kept = _files(write_icon(tmp_path)), _files(HARNESS / "App" / "Assets.xcassets")
    assert fresh.keys() == kept.keys()
    for name in fresh:
        if name.endswith(".png"):  # another zlib packs the same pixels otherwise
            new, old = (Image.open(io.BytesIO(files[name])) for files in (fresh, kept))
            assert new.mode == old.mode == "RGB" and new.size == old.size == (1024, 1024)
            assert np.abs(np.asarray(new, int) - np.asarray(old, int)).max() <= 1
        else:
            assert fresh[name] == kept[name]
    (name,) = {s["ASSETCATALOG_COMPILER_APPICON_NAME"] for s in _settings(parsed) if "INFOPLIST_FILE" in s}
    described = json.loads(kept[f"{name}.appiconset/Contents.json"])
    assert [f"{name}.appiconset/{image['filename']}" in kept for image in described["images"]] == [True]


def test_its_package_makes_what_it_links(parsed: dict[str, Any]) -> None:
    package = (HARNESS / "Package.swift").read_text()
    made = set(re.findall(r'\.library\(name: "(\w+)"', package))
    linked = {p["productName"] for p in parsed["objects"].values() if p["isa"] == "XCSwiftPackageProductDependency"}
    assert linked == made


def test_it_asks_for_the_system_that_its_package_asks_for(parsed: dict[str, Any]) -> None:
    version = re.search(r"\.iOS\(\.v(\d+)\)", (HARNESS / "Package.swift").read_text())
    asked = {s["IPHONEOS_DEPLOYMENT_TARGET"] for s in _settings(parsed) if "IPHONEOS_DEPLOYMENT_TARGET" in s}
    assert version and asked == {f"{version[1]}.0"}


def test_the_scheme_is_shared_runs_release_and_attaches_no_debugger() -> None:
    assert NAME == SCHEME  # what `bench --install` builds
    scheme = ElementTree.parse(PROJECT / "xcshareddata" / "xcschemes" / f"{NAME}.xcscheme").getroot()
    launch = scheme.find("LaunchAction")
    assert launch is not None
    assert launch.attrib["buildConfiguration"] == "Release"
    assert launch.attrib["selectedDebuggerIdentifier"] == ""
    references = [element.attrib["BlueprintIdentifier"] for element in scheme.iter("BuildableReference")]
    assert set(references) == {identifier("target")}


def test_the_app_listens_where_the_desktop_looks_and_shows_its_files() -> None:
    service = (HARNESS / "App" / "HarnessService.swift").read_text()
    assert f"port: UInt16 = {PORT}\n" in service
    information = plistlib.loads((HARNESS / "Config" / "Info.plist").read_bytes())
    assert information["UIFileSharingEnabled"] and information["LSSupportsOpeningDocumentsInPlace"]
    assert information["NSCameraUsageDescription"]


def test_signing_is_nobodys() -> None:
    assert "Config/Signing.local.xcconfig" in (HARNESS / ".gitignore").read_text().splitlines()
    assert "DEVELOPMENT_TEAM" not in (PROJECT / "project.pbxproj").read_text()


def test_executorch_is_the_release_that_exports_the_packages() -> None:
    pins = tomllib.loads((HARNESS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (version,) = (pin.removeprefix("executorch==") for pin in pins["executorch"] if pin.startswith("executorch=="))
    runner = HARNESS / "ExecuTorchRunner"
    assert f'branch: "swiftpm-{version}"' in (runner / "Package.swift").read_text()
    assert f'version = "{version}"' in (runner / "Sources/ExecuTorchRunner/ExecuTorchRuntimes.swift").read_text()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "xcuserdata" not in path.parts
    }


def _settings(parsed: dict[str, Any]) -> list[dict[str, str]]:
    return [p["buildSettings"] for p in parsed["objects"].values() if p["isa"] == "XCBuildConfiguration"]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    else:
        yield value
