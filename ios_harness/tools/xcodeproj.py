"""Writes ``EdgeSAMHarness.xcodeproj``: ``python -m ios_harness.tools.xcodeproj``, always the same bytes.

Xcode 16's format: the app's sources are whatever lies in ``App``, so that the project changes only with its settings.
What lies in ``Packages`` is copied into the app as it is: Xcode would compile models that lie in ``App``.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from ios_harness.tools.icon import NAME as ICON

HARNESS = Path(__file__).parents[1]
NAME = "EdgeSAMHarness"
PRODUCTS = ("EdgeSAMKit", "HarnessForApple")  # of the package that lies beside the project
_PLAIN = re.compile(r"[A-Za-z0-9_./]+")

_PROJECT_SETTINGS = {
    "ALWAYS_SEARCH_USER_PATHS": "NO",
    "CLANG_ENABLE_MODULES": "YES",
    "CLANG_ENABLE_OBJC_ARC": "YES",
    "ENABLE_USER_SCRIPT_SANDBOXING": "YES",
    "IPHONEOS_DEPLOYMENT_TARGET": "17.0",
    "SDKROOT": "iphoneos",
    "SWIFT_VERSION": "5.0",
}
_DEBUG = {
    "DEBUG_INFORMATION_FORMAT": "dwarf",
    "ENABLE_TESTABILITY": "YES",
    "ONLY_ACTIVE_ARCH": "YES",
    "SWIFT_ACTIVE_COMPILATION_CONDITIONS": "DEBUG",
    "SWIFT_OPTIMIZATION_LEVEL": "-Onone",
}
_RELEASE = {
    "DEBUG_INFORMATION_FORMAT": "dwarf-with-dsym",
    "SWIFT_COMPILATION_MODE": "wholemodule",
    "SWIFT_OPTIMIZATION_LEVEL": "-O",
    "VALIDATE_PRODUCT": "YES",
}
_TARGET_SETTINGS = {
    "ASSETCATALOG_COMPILER_APPICON_NAME": ICON,
    "CODE_SIGN_STYLE": "Automatic",
    "CURRENT_PROJECT_VERSION": "1",
    "GENERATE_INFOPLIST_FILE": "YES",
    "INFOPLIST_FILE": "Config/Info.plist",
    "INFOPLIST_KEY_CFBundleDisplayName": "EdgeSAM harness",
    "INFOPLIST_KEY_UIApplicationSceneManifest_Generation": "YES",
    "INFOPLIST_KEY_UILaunchScreen_Generation": "YES",
    "LD_RUNPATH_SEARCH_PATHS": "$(inherited) @executable_path/Frameworks",
    "MARKETING_VERSION": "0.1",
    "PRODUCT_NAME": "$(TARGET_NAME)",
    "TARGETED_DEVICE_FAMILY": "1,2",
}


def identifier(name: str) -> str:
    """An object's id: 24 hexadecimal digits that depend on nothing but its name."""
    return hashlib.sha256(f"{NAME}/{name}".encode()).hexdigest()[:24].upper()


def _configurations(owner: str, common: dict[str, str], base: str | None) -> dict[str, dict[str, Any]]:
    names = ("Debug", "Release")
    objects: dict[str, dict[str, Any]] = {
        f"{owner} configurations": {
            "isa": "XCConfigurationList",
            "buildConfigurations": [identifier(f"{owner} {name}") for name in names],
            "defaultConfigurationIsVisible": "0",
            "defaultConfigurationName": "Release",
        }
    }
    for name, own in zip(names, ({}, {}) if base else (_DEBUG, _RELEASE), strict=True):
        configuration: dict[str, Any] = {"isa": "XCBuildConfiguration", "buildSettings": common | own, "name": name}
        if base:
            configuration["baseConfigurationReference"] = identifier(base)
        objects[f"{owner} {name}"] = configuration
    return objects


def _phase(isa: str, files: list[str]) -> dict[str, Any]:
    return {"isa": isa, "buildActionMask": "2147483647", "files": files, "runOnlyForDeploymentPostprocessing": "0"}


def project() -> dict[str, Any]:
    """The project as the tree that its file spells out."""
    config = {"isa": "PBXFileReference", "sourceTree": "<group>"}
    phases = ("sources", "frameworks", "resources")
    objects: dict[str, dict[str, Any]] = {
        "project": {
            "isa": "PBXProject",
            "attributes": {"BuildIndependentTargetsInParallel": "1", "LastUpgradeCheck": "1600"},
            "buildConfigurationList": identifier("project configurations"),
            "developmentRegion": "en",
            "hasScannedForEncodings": "0",
            "knownRegions": ["en", "Base"],
            "mainGroup": identifier("main"),
            "minimizedProjectReferenceProxies": "1",
            "packageReferences": [identifier("package")],
            "preferredProjectObjectVersion": "77",
            "productRefGroup": identifier("products"),
            "projectDirPath": "",
            "projectRoot": "",
            "targets": [identifier("target")],
        },
        "main": {
            "isa": "PBXGroup",
            "children": [identifier(name) for name in ("App", "Packages", "Config", "products")],
            "sourceTree": "<group>",
        },
        "App": {"isa": "PBXFileSystemSynchronizedRootGroup", "path": "App", "sourceTree": "<group>"},
        "Packages": {
            "isa": "PBXFileReference",
            "lastKnownFileType": "folder",
            "path": "Packages",
            "sourceTree": "<group>",
        },
        "copied Packages": {"isa": "PBXBuildFile", "fileRef": identifier("Packages")},
        "Config": {
            "isa": "PBXGroup",
            "children": [identifier("settings"), identifier("information")],
            "path": "Config",
            "sourceTree": "<group>",
        },
        "settings": config | {"lastKnownFileType": "text.xcconfig", "path": f"{NAME}.xcconfig"},
        "information": config | {"lastKnownFileType": "text.plist.xml", "path": "Info.plist"},
        "products": {"isa": "PBXGroup", "children": [identifier("app")], "name": "Products", "sourceTree": "<group>"},
        "app": {
            "isa": "PBXFileReference",
            "explicitFileType": "wrapper.application",
            "includeInIndex": "0",
            "path": f"{NAME}.app",
            "sourceTree": "BUILT_PRODUCTS_DIR",
        },
        "target": {
            "isa": "PBXNativeTarget",
            "buildConfigurationList": identifier("target configurations"),
            "buildPhases": [identifier(phase) for phase in phases],
            "buildRules": [],
            "dependencies": [],
            "fileSystemSynchronizedGroups": [identifier("App")],
            "name": NAME,
            "packageProductDependencies": [identifier(f"product {name}") for name in PRODUCTS],
            "productName": NAME,
            "productReference": identifier("app"),
            "productType": "com.apple.product-type.application",
        },
        "sources": _phase("PBXSourcesBuildPhase", []),
        "frameworks": _phase("PBXFrameworksBuildPhase", [identifier(f"linked {name}") for name in PRODUCTS]),
        "resources": _phase("PBXResourcesBuildPhase", [identifier("copied Packages")]),
        "package": {"isa": "XCLocalSwiftPackageReference", "relativePath": "."},
        **_configurations("project", _PROJECT_SETTINGS, None),
        **_configurations("target", _TARGET_SETTINGS, "settings"),
    }
    for name in PRODUCTS:
        product = identifier(f"product {name}")
        objects[f"product {name}"] = {"isa": "XCSwiftPackageProductDependency", "productName": name}
        objects[f"linked {name}"] = {"isa": "PBXBuildFile", "productRef": product}
    by_kind = sorted(objects.items(), key=lambda item: (item[1]["isa"], item[0]))
    return {
        "archiveVersion": "1",
        "classes": {},
        "objectVersion": "77",
        "objects": {identifier(name): fields for name, fields in by_kind},
        "rootObject": identifier("project"),
    }


def _spelled(value: Any, indent: str = "") -> str:
    """An old-style property list, as Xcode writes them."""
    deeper = indent + "\t"
    if isinstance(value, dict):
        lines = [f"{deeper}{_spelled(key)} = {_spelled(part, deeper)};\n" for key, part in value.items()]
        return "{\n" + "".join(lines) + indent + "}"
    if isinstance(value, list):
        return "(\n" + "".join(f"{deeper}{_spelled(part, deeper)},\n" for part in value) + indent + ")"
    if _PLAIN.fullmatch(value):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def scheme() -> str:
    """The shared scheme: Release for everything, and run without a debugger, which would spoil the numbers."""
    reference = (
        f'<BuildableReference BuildableIdentifier="primary" BlueprintIdentifier="{identifier("target")}" '
        f'BuildableName="{NAME}.app" BlueprintName="{NAME}" ReferencedContainer="container:{NAME}.xcodeproj"/>'
    )
    runnable = f'<BuildableProductRunnable runnableDebuggingMode="0">{reference}</BuildableProductRunnable>'
    launcher = "Xcode.IDEFoundation.Launcher.PosixSpawn"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Scheme LastUpgradeVersion="1600" version="1.7">
   <BuildAction parallelizeBuildables="YES" buildImplicitDependencies="YES">
      <BuildActionEntries>
         <BuildActionEntry buildForTesting="YES" buildForRunning="YES" buildForProfiling="YES"
            buildForArchiving="YES" buildForAnalyzing="YES">
            {reference}
         </BuildActionEntry>
      </BuildActionEntries>
   </BuildAction>
   <LaunchAction buildConfiguration="Release" selectedDebuggerIdentifier="" selectedLauncherIdentifier="{launcher}"
      launchStyle="0" useCustomWorkingDirectory="NO" debugDocumentVersioning="YES" allowLocationSimulation="NO">
      {runnable}
   </LaunchAction>
   <ProfileAction buildConfiguration="Release" shouldUseLaunchSchemeArgsEnv="YES">
      {runnable}
   </ProfileAction>
   <AnalyzeAction buildConfiguration="Release"/>
   <ArchiveAction buildConfiguration="Release" revealArchiveInOrganizer="YES"/>
</Scheme>
"""


def write_project(folder: Path) -> Path:
    """Write the project into a folder, the one with ``App`` and ``Package.swift``.

    Returns:
        The project's own folder.
    """
    place = folder / f"{NAME}.xcodeproj"
    schemes = place / "xcshareddata" / "xcschemes"
    schemes.mkdir(parents=True, exist_ok=True)
    (place / "project.pbxproj").write_text(f"// !$*UTF8*$!\n{_spelled(project())}\n")
    (schemes / f"{NAME}.xcscheme").write_text(scheme())
    return place


if __name__ == "__main__":
    print(write_project(Path(sys.argv[1]) if len(sys.argv) > 1 else HARNESS))
