"""Checkpoints into models: strictly, so that a wrong file never becomes a model that half works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from edgesam_mobile.errors import WeightsError
from edgesam_mobile.model.registry import ARCHITECTURES, architecture, build_model
from edgesam_mobile.model.sam import Provenance, Sam
from edgesam_mobile.weights.checkpoint import Checkpoint, detect_architecture, read_checkpoint
from edgesam_mobile.weights.fetch import fetch
from edgesam_mobile.weights.registry import REGISTRY, WeightsEntry, entry

_SHOWN = 3  # keys named in an error before the rest is counted


def load_model(
    name_or_path: str | Path, *, upsample: str | None = None, image_size: int | None = None, offline: bool = False
) -> Sam:
    """Load a model by the name of its registered weights, or from a checkpoint file.

    Args:
        name_or_path: a name that ``edgesam-mobile weights list`` shows (fetched if need be), or a
            ``.safetensors``, ``.pt`` or ``.pth`` file.
        upsample: ``"bicubic"`` or ``"bilinear"`` instead of what the weights were trained with (RepViT only).
        image_size: side of the square input in pixels, if not what the weights were trained with.
        offline: never open a socket; fail if the weights are not in the cache.

    Returns:
        The model in evaluation mode; :attr:`Sam.provenance` tells where its weights come from.

    Raises:
        UsageError: unknown name, up-sampling or input size.
        FetchError: the weights cannot be had.
        WeightsError: the file is damaged, or a key is missing, unexpected or mis-shaped.
    """
    _, checkpoint, provenance = read_weights(name_or_path, offline=offline)
    mode = upsample or provenance.upsample
    model = build_model(provenance.architecture, upsample=mode, image_size=image_size or provenance.image_size)
    load_strictly(model, checkpoint.state, source=str(name_or_path))
    model.provenance = replace(provenance, upsample=mode)
    return model


def read_weights(name_or_path: str | Path, *, offline: bool = False) -> tuple[Path, Checkpoint, Provenance]:
    """Find and read weights without building a model: the file, what is in it, and where it comes from.

    Raises:
        As :func:`load_model`.
    """
    path = Path(name_or_path)
    registered = _registered(name_or_path)
    if registered is not None:
        path = fetch(registered.name, offline=offline)
    checkpoint = read_checkpoint(path)
    return path, checkpoint, _provenance(checkpoint, registered, path.name)


def load_strictly(model: Sam, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``state`` into ``model``; every key must be there, be expected, and have its shape.

    Raises:
        WeightsError: names the first keys that do not fit and counts the others.
    """
    expected = model.state_dict()
    problems = {
        "missing": expected.keys() - state.keys(),
        "unexpected": state.keys() - expected.keys(),
        "mis-shaped": {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape},
    }
    told = [f"{what} {_some(sorted(keys))}" for what, keys in problems.items() if keys]
    if told:
        hint = "use a checkpoint of this architecture, whole: `weights convert --join` puts parts together"
        raise WeightsError(f"{source} does not fit {model.architecture}: {'; '.join(told)}", hint=hint)
    model.load_state_dict(dict(state), strict=True)


def _registered(name_or_path: str | Path) -> WeightsEntry | None:
    """The registry's entry of that name, or ``None`` where the argument is a file."""
    text = str(name_or_path)
    if text in REGISTRY:
        return REGISTRY[text]
    if Path(text).exists() or isinstance(name_or_path, Path) or Path(text).suffix:
        return None
    return entry(text)


def _provenance(checkpoint: Checkpoint, registered: WeightsEntry | None, file_name: str) -> Provenance:
    """What the registry, the file's own metadata and its keys say, in that order."""
    said = checkpoint.metadata
    name = registered.architecture if registered else said.architecture or detect_architecture(checkpoint.state)
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"cannot tell the architecture of {file_name}" if name is None else f"unknown architecture {name!r}",
            hint=f"known: {', '.join(ARCHITECTURES)}",
        )
    default = architecture(name).upsample
    return Provenance(
        architecture=name,
        weights_name=registered.name if registered else file_name,
        weights_sha256=checkpoint.sha256,
        licence=registered.licence if registered else said.licence,
        commercial_use=registered.commercial_use if registered else said.commercial_use,
        origin=registered.provenance if registered else said.provenance,
        upsample=(registered.upsample if registered else said.upsample) or default,
        trained=True if registered else said.trained,
        image_size=said.image_size or 1024,
    )


def _some(keys: Iterable[str]) -> str:
    first = list(keys)
    rest = len(first) - _SHOWN
    return ", ".join(first[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
