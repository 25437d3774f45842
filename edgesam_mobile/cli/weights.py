"""``edgesam-mobile weights``: list, fetch, inspect and convert weights; make untrained stand-ins."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out
from edgesam_mobile.weights.checkpoint import Checkpoint, read_checkpoint
from edgesam_mobile.weights.convert import convert
from edgesam_mobile.weights.fetch import cached, cached_path, fetch
from edgesam_mobile.weights.registry import REGISTRY, WeightsEntry, entry

if TYPE_CHECKING:
    from collections.abc import Iterable

app = typer.Typer(help="List, fetch, inspect and convert weights; make untrained stand-ins.", no_args_is_help=True)

_UNTRAINED = "these weights are UNTRAINED: good for timing and structure only, every mask will be nonsense"


@command(app, "list", examples=("edgesam-mobile weights list", "edgesam-mobile weights list --json"))
def list_() -> None:
    """List the published weights that can be fetched by name."""
    rows = [{**_entry_data(known), "cached": cached_path(known).exists()} for known in REGISTRY.values()]

    def human() -> None:
        columns = ("name", "architecture", "MB", "licence", "commercial use", "cached")
        out.table(
            columns,
            (
                (
                    row["name"],
                    row["architecture"],
                    _megabytes(row["size"]),
                    row["licence"],
                    _yes(row["commercial_use"]),
                    _yes(row["cached"]),
                )
                for row in rows
            ),
        )

    out.result("edgesam.weights.list/1", {"weights": rows}, human=human, quiet=REGISTRY)


@command(
    app,
    "info",
    examples=("edgesam-mobile weights info mobile-sam", "edgesam-mobile weights info model.safetensors"),
)
def info(
    name_or_file: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Published weights, or a checkpoint.")],
) -> None:
    """Show what is known about published weights, or what is in a checkpoint."""
    path = Path(name_or_file)
    # A bare word that is no file is a misspelt name rather than a missing file.
    if name_or_file in REGISTRY or not (path.exists() or path.suffix or path.name != name_or_file):
        known = entry(name_or_file)
        data: dict[str, Any] = {**_entry_data(known), "path": cached(known.name)}
    else:
        data = {"path": path, "size": path.stat().st_size if path.exists() else None}
        data |= _checkpoint_data(read_checkpoint(path))
    if data.get("trained") is False:
        out.warn(_UNTRAINED)
    out.result("edgesam.weights.info/1", data, human=lambda: _say_all(data), quiet=[data["sha256"] or "unknown"])


@command(
    app,
    "fetch",
    examples=(
        "edgesam-mobile weights fetch mobile-sam",
        "edgesam-mobile weights fetch mobile-sam --offline --quiet",
    ),
)
def fetch_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from `weights list`.")],
    offline: Annotated[bool, typer.Option("--offline", help="Use the cache only; open no connection.")] = False,
) -> None:
    """Fetch published weights into the cache, verify them and print where they are."""
    entries = [entry(name) for name in names]
    fetched = []
    for known in entries:
        if not known.commercial_use:
            out.warn(f"{known.name}: {known.licence} forbids commercial use")
        with out.download(known.filename) as progress:
            path = fetch(known.name, offline=offline, report=out.note, progress=progress)
        fetched.append({**_entry_data(known), "path": path})
    paths = [row["path"] for row in fetched]

    def human() -> None:
        for path in paths:
            out.say(str(path))

    out.result("edgesam.weights.fetch/1", {"weights": fetched}, human=human, quiet=paths)


@command(
    app,
    "convert",
    examples=(
        "edgesam-mobile weights convert mobile_sam.pt -o mobile_sam.safetensors",
        "edgesam-mobile weights convert mobile_sam.pt -o sam_h_decoder.safetensors --part prompt+decoder",
        "edgesam-mobile weights convert encoder.pth --join sam_h_decoder.safetensors -o edge_sam.safetensors",
    ),
)
def convert_(
    source: Annotated[Path, typer.Argument(help="A .safetensors, .pt or .pth checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .safetensors, .pt or .pth file to write.")],
    part: Annotated[
        str | None, typer.Option("--part", help="Keep only encoder, prompt or decoder; several with +.")
    ] = None,
    join: Annotated[
        list[Path] | None, typer.Option("--join", help="Add this checkpoint's parts. Repeatable.")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option("--architecture", help="Where the checkpoint does not tell, as a decoder alone."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Round to half precision: half the size.")] = False,
) -> None:
    """Convert, split or join checkpoints, bit for bit unless halved; every key and shape is checked."""
    from edgesam_mobile.model import state_layout

    written = convert(
        source, output, layout=state_layout, part=part, join=join or (), architecture=architecture, half=half
    )
    data = {"path": output, "size": output.stat().st_size, **_checkpoint_data(written)}
    if not written.metadata.trained:
        out.warn(_UNTRAINED)
    if written.metadata.commercial_use is False:
        out.warn(f"{output}: {written.metadata.licence} forbids commercial use")
    if output.suffix != ".safetensors":
        out.warn(f"{output.suffix} keeps no metadata: licence and origin are lost")
    out.result("edgesam.weights.convert/1", data, human=lambda: _say_all(data), quiet=[output])


@command(app, "standin", examples=("edgesam-mobile weights standin edge-sam -o standin.safetensors",))
def standin(
    architecture: Annotated[str, typer.Argument(help="Such as edge-sam or mobile-sam.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers.")] = 0,
    upsample: Annotated[
        str | None, typer.Option("--upsample", help="Of the fuse: bicubic, as published, or bilinear, as exported.")
    ] = None,
) -> None:
    """Write untrained weights of the right structure, to time and convert a model without its weights."""
    from edgesam_mobile.model.standin import write_standin

    path = write_standin(architecture, output, seed, upsample=upsample)
    data = {
        "path": path,
        "size": path.stat().st_size,
        "seed": seed,
        **_checkpoint_data(read_checkpoint(path)),
    }
    out.warn(_UNTRAINED)
    out.result("edgesam.weights.standin/1", data, human=lambda: _say_all(data), quiet=[path])


def _entry_data(known: WeightsEntry) -> dict[str, Any]:
    return {**dataclasses.asdict(known), "sources": [str(source) for source in known.sources]}


def _checkpoint_data(checkpoint: Checkpoint) -> dict[str, Any]:
    tensors = checkpoint.state.values()
    precisions = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    return {
        "sha256": checkpoint.sha256,
        **dataclasses.asdict(checkpoint.metadata),
        "tensors": len(checkpoint.state),
        "elements": sum(tensor.numel() for tensor in tensors),
        "precisions": dict(precisions),
    }


def _say_all(data: dict[str, Any]) -> None:
    width = max(map(len, data))
    for key, value in data.items():
        out.say(f"{key.replace('_', ' '):<{width}}  {_text(value)}")


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list | tuple):
        return _joined(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.0f}"
