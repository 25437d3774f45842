"""Turning checkpoints into checked ones: whole, split into parts, or joined from parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.weights.checkpoint import (
    PARTS,
    Checkpoint,
    Metadata,
    detect_architecture,
    parts_of,
    read_checkpoint,
    write_checkpoint,
)

if TYPE_CHECKING:
    from torch import Tensor

Layout = Callable[[str], Mapping[str, tuple[int, ...]]]
"""The shape of every tensor of an architecture, by key."""

_NAMED = 3  # keys that an error names before it counts the rest


def convert(
    source: Path,
    target: Path,
    *,
    layout: Layout,
    part: str | None = None,
    join: Sequence[Path] = (),
    architecture: str | None = None,
    half: bool = False,
) -> Checkpoint:
    """Write the tensors of ``source``, joined with those of other files, to ``target``, bit for bit unless halved.

    Encoder weights out of a training run, whose keys lack ``image_encoder.``, get that prefix. Every key and
    shape among the parts that are written is checked.

    Args:
        target: ``.safetensors``, which keeps the metadata, or ``.pt``/``.pth`` for other tools.
        layout: gives an architecture's keys and shapes.
        part: keep only this part of :data:`PARTS`, or several with ``+`` between them.
        join: checkpoints that hold other parts.
        architecture: overrides what the checkpoints say or show; needed for a decoder alone.
        half: round to half precision, for a file of half the size.

    Returns:
        What was written; its ``sha256`` is the target's.

    Raises:
        UsageError: ``part`` or the target's suffix is unknown, or the architecture cannot be told.
        WeightsError: a file is unreadable, two differ in a tensor they share, the part is not there, or
            tensors are missing, unexpected or mis-shaped, or too large for half precision.
        StorageError: the target cannot be written.
    """
    wanted = _wanted_parts(part)
    state: dict[str, Tensor] = {}
    said: list[Metadata] = []
    for path in (source, *join):
        checkpoint = read_checkpoint(path)
        _merge(state, _prefixed(checkpoint.state), path)
        said.append(checkpoint.metadata)
    metadata = _merged(said)
    # Keys that just got their prefix can show what the file itself did not.
    architecture = architecture or metadata.architecture or detect_architecture(state)
    if architecture is None:
        raise UsageError("these tensors do not tell their architecture", hint="name it with --architecture")
    if wanted is not None:
        if absent := [name for name in wanted if name not in parts_of(state)]:
            raise WeightsError(f"{source} holds no {' and no '.join(absent)}", hint="--join a file that does")
        state = {key: tensor for key, tensor in state.items() if _part_of(key) in wanted}
    _check(state, layout(architecture), architecture)
    if half:
        state = {key: _halved(tensor, key, source) for key, tensor in state.items()}
    metadata = replace(metadata, architecture=architecture, parts=parts_of(state))
    write_checkpoint(target, state, metadata)
    return Checkpoint(state, metadata, sha256_of(target))


def _halved(tensor: Tensor, key: str, source: Path) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    halved = tensor.half()
    if not bool(halved.isfinite().all()):
        raise WeightsError(f"{source}: {key} holds numbers beyond half precision's 65504", hint="keep it in float32")
    return halved


def _wanted_parts(part: str | None) -> tuple[str, ...] | None:
    if part is None:
        return None
    names = tuple(part.split("+"))
    if unknown := [name for name in names if name not in PARTS]:
        raise UsageError(f"no part is called {unknown[0]!r}", hint=f"parts: {', '.join(PARTS)}; join them with +")
    return names


def _part_of(key: str) -> str | None:
    return next((part for part, prefix in PARTS.items() if key.startswith(prefix)), None)


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors; if no key belongs to any part, they are an encoder on its own and get its prefix."""
    return state if parts_of(state) else {PARTS["encoder"] + key: tensor for key, tensor in state.items()}


def _merge(state: dict[str, Tensor], more: Mapping[str, Tensor], path: Path) -> None:
    import torch

    for key, tensor in more.items():
        if key in state and (state[key].dtype != tensor.dtype or not torch.equal(state[key], tensor)):
            raise WeightsError(
                f"{path} and what it is joined with differ in {key}", hint="split off the part you want first"
            )
        state[key] = tensor


def _merged(said: Sequence[Metadata]) -> Metadata:
    """What holds for tensors from several files: the encoder's kind, and every licence's restrictions."""
    kind = next((one for one in said if "encoder" in one.parts or not one.parts), said[0])
    licences = dict.fromkeys(one.licence or "unknown" for one in said)
    allowed = [one.commercial_use for one in said]
    origins = [one.provenance for one in said if one.provenance]
    return Metadata(
        architecture=kind.architecture,
        upsample=kind.upsample,
        licence=" AND ".join(licences) if any(one.licence for one in said) else None,
        commercial_use=False if False in allowed else None if None in allowed else True,
        provenance="; ".join(dict.fromkeys(origins)) or None,
        trained=all(one.trained for one in said),
        image_size=kind.image_size,
    )


def _check(state: Mapping[str, Tensor], layout: Mapping[str, tuple[int, ...]], architecture: str) -> None:
    """Raise if the parts that are here differ from the layout in a key or a shape."""
    here = parts_of(state)
    expected = {key: tuple(shape) for key, shape in layout.items() if _part_of(key) in here}
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, not {expected[key]}"
        for key in expected
        if key in state and tuple(state[key].shape) != expected[key]
    ]
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of the wrong shape": misshapen,
    }
    if found := [f"{what} {_few(keys)}" for what, keys in faults.items() if keys]:
        raise WeightsError(f"not a checkpoint of {architecture}: {'; '.join(found)}")


def _few(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
