"""``edgesam-mobile package``: artefacts as what an app's own build takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out

app = typer.Typer(no_args_is_help=True, help="Make a library for an app from what `build` wrote.")


@command(
    app,
    "ios",
    examples=(
        "edgesam-mobile package ios out -o SegmentationModel",
        "edgesam-mobile package ios out --artifact coreml-fp32 -o SegmentationModel",
    ),
)
def ios(
    package: Annotated[Path, typer.Argument(help="Folder that `build` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the Swift package.")],
    artifact: Annotated[str | None, typer.Option(help="A Core ML artefact; the smallest by default.")] = None,
    non_commercial: Annotated[
        bool, typer.Option("--non-commercial", help="Take weights whose licence forbids commercial use.")
    ] = False,
) -> None:
    """Make a Swift package of EdgeSAMKit and a Core ML artefact, to be added to an Xcode project as it is.

    The same artefact gives the same files. Every file of the artefact is hashed again.
    """
    from edgesam_mobile.package.swiftpm import least_ios, package_ios

    manifest, files = package_ios(package, output, artifact, non_commercial=non_commercial)
    chosen, weights = manifest.artifacts[0], manifest.weights
    flag_weights(weights.commercial_use, weights.licence, weights.trained)

    def human() -> None:
        size = sum(graph.file.bytes for graph in chosen.graphs().values()) / 1e6
        what = f"{chosen.id} of {manifest.model}, {size:.1f} MB, for iOS {least_ios(chosen)} and later"
        out.say(f"{output}: {what}; its README.md says how to use it")

    data = {"package": str(output), "artifact": chosen.id, "files": [file.as_posix() for file in files]}
    out.result("edgesam.package-ios/1", data, human=human, quiet=[output])
