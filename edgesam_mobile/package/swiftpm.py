"""A Swift package for an app: EdgeSAMKit, and one Core ML artefact as its resources."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgesam_mobile.errors import StorageError, UsageError
from edgesam_mobile.files import atomic_folder, storage_errors
from edgesam_mobile.package.card import CARD_NAME, model_card
from edgesam_mobile.package.manifest import Artifact, Manifest, check_file, read_manifest, write_manifest

FORMAT = "coreml"
MODEL = "Sources/SegmentationModel/Resources/Model"  # a package folder of its own, with one artefact
# Links in a checkout, files of an installed package.
KIT = Path(__file__).with_name("EdgeSAMKit")
LICENCE = Path(__file__).with_name("LICENSE")
_LEAST_IOS = 17  # EdgeSAMKit's own

_PACKAGE = """\
// swift-tools-version: 5.9

import PackageDescription

let package = Package(
  name: "{name}",
  platforms: [.iOS("{ios}.0"), .macOS("{macos}.0")],
  products: [.library(name: "SegmentationModel", targets: ["EdgeSAMKit", "SegmentationModel"])],
  targets: [
    .target(name: "EdgeSAMKit"),
    // As it is: Xcode would compile the models and leave the manifest behind. The device compiles them, once.
    .target(name: "SegmentationModel", resources: [.copy("Resources/Model")]),
  ]
)
"""

_MODEL = """\
import Foundation

/// The model in this package.
public enum SegmentationModel {
  /// Its folder: a manifest, an encoder and a decoder.
  public static let folder = (Bundle.module.resourceURL ?? Bundle.module.bundleURL)
    .appendingPathComponent("Model", isDirectory: true)
}
"""

_README = """\
# {name}

EdgeSAMKit and the artefact `{artifact}` of `{model}` as a Swift package for iOS {ios} and later, made by
`edgesam-mobile package ios`. Add the folder to an Xcode project (File, Add Package Dependencies, Add Local), then:

```swift
{example}
```

The first use on a device compiles the models, which takes seconds; the result is kept under the models' hashes.
[MODEL_CARD.md](MODEL_CARD.md) says what the model takes and gives. Nothing here was run on a phone or a Mac.

## Licences

{licences}
"""

EXAMPLE = """\
import EdgeSAMKit
import SegmentationModel

let session = try await SegmentationSession(package: SegmentationModel.folder)
try await session.setImage(photo, orientation: .up)  // a CGImage or a CVPixelBuffer, and how its camera was held
let tapped = try await session.segment(points: [.init(x: 290, y: 150)])  // in pixels of the photo
print(tapped.mask[290, 150], tapped.timings.decode)  // tapped.mask.image() is drawn over the photo
let boxed = try await session.segment(box: .init(left: 175, top: 15, right: 412, bottom: 300))"""


def choose_artifact(manifest: Manifest, artifact_id: str | None = None) -> Artifact:
    """The Core ML artefact of that id, or the smallest there is.

    Raises:
        UsageError: there is none, or the one of that id is for another runtime.
    """
    fit = [artifact for artifact in manifest.artifacts if artifact.format == FORMAT]
    if artifact_id is not None:
        chosen = manifest.artifact(artifact_id)
        if chosen not in fit:
            raise UsageError(f"{artifact_id} is not for Core ML", hint=f"the format is {chosen.format}, not {FORMAT}")
        return chosen
    if not fit:
        raise UsageError(
            "the package has no Core ML artefact", hint="build one with `edgesam-mobile build --target ios`"
        )
    return min(fit, key=lambda artifact: artifact.encoder.file.bytes + artifact.decoder.file.bytes)


def least_ios(artifact: Artifact) -> int:
    """The oldest iOS that has both what EdgeSAMKit and what the artefact needs."""
    said = re.fullmatch(r"iOS (\d+)", artifact.minimum_os or "")
    return max(_LEAST_IOS, int(said[1]) if said else 0)


def package_ios(
    package: Path, output: Path, artifact_id: str | None = None, *, non_commercial: bool = False
) -> tuple[Manifest, list[Path]]:
    """Write a Swift package with everything that an app needs: the same files from the same artefact.

    Args:
        package: what ``build`` wrote.
        output: a folder that is not there yet, or is empty.
        artifact_id: one of its Core ML artefacts; the smallest if ``None``.
        non_commercial: take weights whose licence forbids commercial use.

    Returns:
        The manifest as it stands in the Swift package, with one artefact, and the files, relative to ``output``.

    Raises:
        UsageError: no such artefact, or the weights' licence forbids commercial use.
        PackageError: a file of the package is missing or was altered.
        StorageError: ``output`` holds something, or cannot be written.
    """
    manifest = read_manifest(package)
    artifact = choose_artifact(manifest, artifact_id)
    manifest = manifest.model_copy(update={"artifacts": [artifact]})
    if manifest.weights.commercial_use is False and not non_commercial:
        raise UsageError(
            f"the weights' licence ({manifest.weights.licence}) forbids commercial use",
            hint="if your app is not commercial, say so: --non-commercial",
        )
    with storage_errors(output):
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise StorageError(f"{output} holds something", hint="choose another output folder")
    sources = {graph.file.path: check_file(package, graph.file) for graph in artifact.graphs().values()}
    with atomic_folder(output) as folder:
        for name, text in _texts(_package_name(output), manifest, artifact).items():
            _write(folder / name, text)
        for file in sorted(path for path in KIT.rglob("*") if path.is_file()):  # sources and their documentation
            _copy(file, folder / "Sources/EdgeSAMKit" / file.relative_to(KIT))
        for path, source in sources.items():
            _copy(source, folder / MODEL / path)
        write_manifest(folder / MODEL, manifest)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return manifest, files


def _texts(name: str, manifest: Manifest, artifact: Artifact) -> dict[str, str]:
    ios = least_ios(artifact)
    readme = _README.format(
        name=name,
        ios=ios,
        artifact=artifact.id,
        model=" ".join(manifest.model.split()),
        example=EXAMPLE,
        licences="\n".join(f"- {' '.join(line.split())}" for line in _licences(manifest)),
    )
    return {
        # A Mac's Core ML has the same models as that of the iOS of its year: macOS 14 and iOS 17.
        "Package.swift": _PACKAGE.format(name=name, ios=ios, macos=ios - 3),
        "README.md": readme,
        CARD_NAME: model_card(manifest),
        "LICENSE": LICENCE.read_text(encoding="utf-8"),
        "Sources/SegmentationModel/SegmentationModel.swift": _MODEL,
    }


def _licences(manifest: Manifest) -> Iterable[str]:
    weights = manifest.weights
    yield f"EdgeSAMKit and this package's own files: {manifest.code_licence}, see [LICENSE](LICENSE)."
    origin = f", from {weights.origin}" if weights.origin else ""
    yield f"Weights in the models: {weights.licence or 'unknown'}{origin}."
    if weights.licence != manifest.code_licence:
        yield "The text of the weights' licence is not here. Get it where they come from, and ship it with the app."
    if weights.commercial_use is False:
        yield "**No commercial use**: the weights' licence forbids it."
    elif weights.commercial_use is None:
        yield "Nobody has said whether these weights may be used commercially. Find out before you ship them."


def _package_name(output: Path) -> str:
    """The folder's name as far as SwiftPM takes it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", output.resolve().name).strip("-") or "Segmentation"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """A file or folder, without its times and permissions."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
