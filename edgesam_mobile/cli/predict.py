"""``edgesam-mobile predict``: a mask for a prompt, from PyTorch or from a built artefact."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.build import flag_weights
from edgesam_mobile.cli.command import Arithmetic, command
from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import UsageError
from edgesam_mobile.weights.registry import DEFAULT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer()


@dataclass(frozen=True)
class Answer:
    """A mask at the picture's size, its score, which of the four it is, and what it took in milliseconds."""

    runtime: str
    mask: NDArray[np.bool_]
    score: float
    index: int
    encode_ms: float
    decode_ms: float


@command(
    app,
    "predict",
    examples=(
        "edgesam-mobile predict examples/cat.jpg --point 245,140 -o cat.png",
        "edgesam-mobile predict examples/cat.jpg --box 28,0,400,288 --point 20,280,0 -o cat.png",
        "edgesam-mobile predict examples/cat.jpg --point 245,140 --artifact out:tflite-fp16 -o cat.png",
    ),
)
def predict(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG for the mask; an overlay is put beside it.")],
    point: Annotated[
        list[str] | None, typer.Option(help="x,y or x,y,label in pixels; label 0 is background.")
    ] = None,
    box: Annotated[str | None, typer.Option(help="x1,y1,x2,y2 in pixels.")] = None,
    weights: Annotated[
        str | None, typer.Option(help=f"Registered weights or a checkpoint, run by PyTorch; {DEFAULT} by default.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="DIR[:artefact] of a built package, instead of PyTorch.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads for an artefact; all by default.")
    ] = None,
    arithmetic: Arithmetic = "device-like",
    offline: Annotated[bool, typer.Option("--offline", help="Never open a socket.")] = False,
) -> None:
    """Segment what the points and the box point at, and write the mask and an overlay picture."""
    from edgesam_mobile.picture import overlay, read_picture, write_png

    if not point and not box:
        raise UsageError("nothing is prompted", hint="give --point x,y or --box x1,y1,x2,y2")
    if artifact is not None and weights is not None:
        raise UsageError("an artefact has weights of its own", hint="give --artifact or --weights, not both")
    points = [_numbers(text, (2, 3), "--point", "x,y or x,y,label") for text in point or ()]
    corners = _numbers(box, (4,), "--box", "x1,y1,x2,y2") if box else None
    prompt: dict[str, Any] = {"box": corners}
    if points:
        prompt["point_coords"] = [p[:2] for p in points]
        prompt["point_labels"] = [p[2] if len(p) == 3 else 1 for p in points]
    if not output.name:
        raise UsageError(f"{output} is no file to write to", hint="name one, such as mask.png")
    drawn = output.with_name(f"{output.stem}-overlay.png")
    if image.resolve() in (output.resolve(), drawn.resolve()):
        raise UsageError(f"the output would replace the picture {image}", hint="choose another output")
    picture = read_picture(image)
    _refuse_outside(prompt, (picture.shape[0], picture.shape[1]))
    if artifact is not None:
        answer = _from_artifact(artifact, picture, prompt, threads, arithmetic)
    else:
        answer = _from_pytorch(weights or DEFAULT, picture, prompt, offline)
    write_png(output, answer.mask)
    write_png(drawn, overlay(picture, answer.mask, prompt.get("point_coords"), prompt.get("point_labels"), corners))
    share = float(answer.mask.mean())

    def human() -> None:
        out.say(f"mask {answer.index} of 4 covers {share:.1%} of the picture, score {answer.score:.3f}")
        took = (
            f"encoded in {answer.encode_ms:.0f} ms, decoded in {answer.decode_ms:.0f} ms (first run, not a benchmark)"
        )
        out.say(f"{answer.runtime}: {took}")
        out.say(f"wrote {output} and {drawn}")

    data = {
        "image": str(image), "runtime": answer.runtime, "mask": str(output), "overlay": str(drawn),
        "index": answer.index, "score": answer.score, "area_share": share,
        "encode_ms": answer.encode_ms, "decode_ms": answer.decode_ms,
    }  # fmt: skip
    out.result("edgesam.predict/1", data, human=human, quiet=[output, drawn])


def _refuse_outside(prompt: dict[str, Any], size: tuple[int, int]) -> None:
    """Before weights are fetched and a picture embedded, not after."""
    from edgesam_mobile.model.geometry import ResizeLongestSide

    if "point_coords" in prompt:
        ResizeLongestSide.check_points(prompt["point_coords"], prompt["point_labels"], size)
    if prompt["box"] is not None:
        ResizeLongestSide.check_box(prompt["box"], size)


def _from_pytorch(weights: str, picture: NDArray[np.uint8], prompt: dict[str, Any], offline: bool) -> Answer:
    from edgesam_mobile.model import SamPredictor, load_model
    from edgesam_mobile.model.choice import best_mask
    from edgesam_mobile.model.registry import architecture

    model = load_model(weights, offline=offline)
    assert model.provenance is not None
    flag_weights(model.provenance.commercial_use, model.provenance.licence, model.provenance.trained)
    predictor = SamPredictor(model)
    started = time.perf_counter()
    predictor.set_image(picture)
    encoded = time.perf_counter()
    masks, scores, _ = predictor.predict(num_multimask_outputs=4, **prompt)
    decoded = time.perf_counter()
    point_masks = architecture(model.architecture).point_masks
    index = best_mask(scores, has_box=prompt["box"] is not None, point_masks=point_masks)
    mask: Any = masks[index]
    return Answer("PyTorch", mask, float(scores[index]), index, (encoded - started) * 1e3, (decoded - encoded) * 1e3)


def _from_artifact(
    where: str, picture: NDArray[np.uint8], prompt: dict[str, Any], threads: int | None, arithmetic: Arithmetic
) -> Answer:
    from edgesam_mobile.package.manifest import read_manifest
    from edgesam_mobile.runtime.predictor import ArtifactPredictor
    from edgesam_mobile.runtime.session import RUNTIMES, runnable

    # A folder's own name may hold a colon; an artefact's does not.
    folder, _, wanted = where.rpartition(":") if ":" in where and not Path(where).is_dir() else (where, "", "")
    package = Path(folder)
    manifest = read_manifest(package)
    # Where no artefact is named, rather one that this machine runs than one that is interpreted.
    native_first = sorted(manifest.artifacts, key=lambda a: a.format in RUNTIMES and RUNTIMES[a.format].interpreted)
    able = [a.id for a in native_first if runnable(a.format)]
    named = [a.id for a in manifest.artifacts if a.id == wanted]
    matching = named or [name for name in able if name.startswith(wanted)]
    if not matching:
        hint = f"those that do: {', '.join(able) or 'none'}"
        raise UsageError(f"{folder} has no artefact {wanted!r} that runs here", hint=hint)
    flag_weights(manifest.weights.commercial_use, manifest.weights.licence, manifest.weights.trained)
    predictor = ArtifactPredictor(package, matching[0], threads=threads, arithmetic=arithmetic)
    started = time.perf_counter()
    predictor.set_image(picture)
    encoded = time.perf_counter()
    answer = predictor.decode(predictor.prompt(**prompt))
    decoded = time.perf_counter()
    return Answer(
        matching[0], predictor.full_mask(answer), answer.best_score, answer.best,
        (encoded - started) * 1e3, (decoded - encoded) * 1e3,
    )  # fmt: skip


def _numbers(text: str, counts: tuple[int, ...], option: str, form: str) -> list[float]:
    """Comma-separated numbers; any other text is a usage error that shows the form."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise UsageError(f"{option} {text!r} is not {form}")
    return numbers
