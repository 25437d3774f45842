"""``edgesam-mobile verify``: a package against PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.command import Arithmetic, command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.errors import UsageError

if TYPE_CHECKING:
    from edgesam_mobile.evaluate.verify import Check

app = typer.Typer()


@command(
    app,
    "verify",
    examples=(
        "edgesam-mobile verify out",
        "edgesam-mobile verify out --image photo.jpg --image other.png --overlays overlays",
        "edgesam-mobile verify out --old-runtimes",
        "edgesam-mobile verify out --json",
    ),
)
def verify(
    package: Annotated[Path, typer.Argument(help="Folder that `build` wrote.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="Picture to check on; two built-in ones by default.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The weights the package was built from, if not found.")] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder to write each artefact's mask to, as pictures.")
    ] = None,
    arithmetic: Arithmetic = "device-like",
    old_runtimes: Annotated[
        bool,
        typer.Option(
            "--old-runtimes", help="Also run TFLite artefacts on tflite-runtime 2.14, as phones of 2023 would."
        ),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Run every artefact and compare its masks with PyTorch's.

    Every file is hashed again. Core ML artefacts are interpreted here: that checks the program, not what Apple's
    processors make of it. Exit code 7 if one fails, 5 if nothing here executes any.
    """
    from edgesam_mobile.evaluate.probes import builtin_pictures
    from edgesam_mobile.evaluate.verify import verify as verify_package
    from edgesam_mobile.package.manifest import read_manifest
    from edgesam_mobile.picture import overlay, read_picture, write_png
    from edgesam_mobile.runtime.session import OLD

    def keep(artifact: str, picture: Path, mask: Any) -> None:
        if overlays is not None:
            write_png(overlays / f"{picture.stem}-{artifact}.png", overlay(read_picture(picture), mask))

    pictures = image or builtin_pictures()
    if overlays is not None and len({picture.stem for picture in pictures}) < len(pictures):
        raise UsageError("two pictures have the same name, and so would their overlays", hint="rename one")
    formats = [artifact.format for artifact in read_manifest(package).artifacts]
    runs = len(formats) + (sum(name in OLD for name in formats) if old_runtimes else 0)
    with out.progress("verifying", runs) as report:
        result = verify_package(
            package,
            pictures,
            weights=weights,
            offline=offline,
            arithmetic=arithmetic,
            old_runtimes=old_runtimes,
            report=report,
            keep=keep,
        )
    said = result.manifest.weights
    flag_weights(said.commercial_use, said.licence, said.trained)

    def human() -> None:
        columns = (
            "artefact", "executed by", "result", "mask IoU", "worst", "same best", "logits max abs", "cosine",
            "embedding max abs", "cosine", "note",
        )  # fmt: skip
        out.table(columns, [_row(check) for check in result.checks])
        out.say(f"mask IoU against PyTorch on {', '.join(Path(p).name for p in result.pictures)}")

    data = {
        "package": str(package),
        "passed": result.passed,
        "executed": result.executed,
        "pictures": result.pictures,
        "checks": [_record(check) for check in result.checks],
    }
    verdict = "passed" if result.passed else "failed" if result.failed else "not executed"
    out.result("edgesam.verify/1", data, human=human, quiet=[verdict])
    result.require_pass(hint="the table says how far off")


def _record(check: Check) -> dict[str, Any]:
    values = {**vars(check), "mask_iou_mean": check.mask_iou_mean, "mask_iou_min": check.mask_iou_min}
    # JSON has no NaN and no infinity.
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _row(check: Check) -> tuple[object, ...]:
    if not check.executed:
        result = "FAILED" if check.passed is False else "not executed"
        return (check.id, "nothing", result, *["–"] * 7, check.note)
    verdicts = {True: "ok", False: "FAILED", None: "for information"}
    return (
        check.id,
        check.runtime,
        verdicts[check.passed],
        number(check.mask_iou_mean, ".4f"),
        number(check.mask_iou_min, ".4f"),
        f"{check.best_same}/{check.answers}",
        number(check.logits_max_abs, ".1e"),
        number(check.logits_cosine, ".6f"),
        number(check.embedding_max_abs, ".1e"),
        number(check.embedding_cosine, ".6f"),
        check.note,
    )
