"""Reading and writing checkpoints: ``.safetensors`` with metadata, and pickles that carry tensors only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.files import atomic_file, sha256_of
from edgesam_mobile.weights.formats import read_pickle, read_safetensors, write_pickle, write_safetensors
from edgesam_mobile.weights.registry import recognise

if TYPE_CHECKING:
    from torch import Tensor

PARTS: Mapping[str, str] = {
    "encoder": "image_encoder.",
    "prompt": "prompt_encoder.",
    "decoder": "mask_decoder.",
}
"""The parts of a model and the prefix that each one's keys have in a checkpoint."""

_FORMAT = "1"


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says about itself; None means that it does not say.

    Attributes:
        architecture: the model that the keys belong to, such as ``edge-sam``.
        upsample: interpolation inside the encoder that the weights were trained with.
        licence: SPDX identifier or name of the licence.
        commercial_use: whether that licence allows it.
        provenance: where the numbers come from, for people.
        trained: False for stand-ins with random numbers, good for timing and structure only.
        image_size: side of the square input that the weights were trained with, in pixels.
        parts: which of :data:`PARTS` the file holds.
    """

    architecture: str | None = None
    upsample: str | None = None
    licence: str | None = None
    commercial_use: bool | None = None
    provenance: str | None = None
    trained: bool = True
    image_size: int | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by key, on the CPU and in the file's own precision, with what is known about them.

    Attributes:
        state: tensors by full key, such as ``image_encoder.neck.0.weight``.
        sha256: of the file they were read from.
    """

    state: dict[str, Tensor]
    metadata: Metadata
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or a pickle in which nothing but tensors is allowed.

    Training checkpoints (``{"model": ...}``) are unwrapped. A file without metadata gets what its keys and,
    for published files, its hash or name tell. Tensors may be mapped from the file rather than copied.

    Raises:
        WeightsError: the file is missing or damaged, needs code to be unpickled, holds something else than
            tensors, or holds a NaN or an infinity.
    """
    try:
        # Opened first, since a folder has a hash too.
        path.open("rb").close()
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    header: dict[str, str] = {}
    if path.suffix == ".safetensors":
        state, header = read_safetensors(path)
    else:
        state = _state_of(read_pickle(path), path)
    _refuse_non_finite(state, path)
    if "edgesam.format" in header:
        metadata = _from_header(header, path)
    else:
        metadata = _recognised(state, digest, path.name)
    return Checkpoint(state, replace(metadata, parts=parts_of(state)), digest)


def write_checkpoint(path: Path, state: Mapping[str, Tensor], metadata: Metadata) -> Path:
    """Write ``.safetensors`` with metadata, or ``.pt``/``.pth``, a plain state dict without any.

    The file appears whole or not at all.

    Raises:
        UsageError: the suffix is none of these.
        StorageError: the file cannot be written.
    """
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"cannot write weights as {path.name}", hint="use .safetensors, .pt or .pth")
    metadata = replace(metadata, parts=parts_of(state))
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            write_safetensors(temporary, state, _to_header(metadata))
        else:
            write_pickle(temporary, state)
    return path


def parts_of(keys: Mapping[str, object]) -> tuple[str, ...]:
    """Which of :data:`PARTS` some keys belong to, in their usual order."""
    return tuple(part for part, prefix in PARTS.items() if any(key.startswith(prefix) for key in keys))


def detect_architecture(state: Mapping[str, Tensor]) -> str | None:
    """The architecture whose image encoder these keys (and shapes) are; None if there is no known one."""
    if (fuse := state.get("image_encoder.fuse_stage2.weight")) is not None:
        return "edge-sam-tiny" if fuse.shape[1:] == (64, 1, 1) else "edge-sam"
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return "mobile-sam"
    if (embedding := state.get("image_encoder.pos_embed")) is not None:
        vits = {768: "sam-vit-b", 1024: "sam-vit-l", 1280: "sam-vit-h"}
        return vits.get(embedding.shape[-1]) if embedding.ndim == 4 else None
    return None


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in an unpickled file: the file itself, or what a training checkpoint calls its model."""
    from torch import Tensor

    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds no state dict", hint="expected tensors by name")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} holds no state dict: {key!r} is a {type(value).__name__}, not a tensor")
    return dict(content)


def _refuse_non_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {key} holds NaN or infinity", hint="the training that wrote it diverged")


def _recognised(state: Mapping[str, Tensor], digest: str, filename: str) -> Metadata:
    architecture = detect_architecture(state)
    known = recognise(digest, filename)
    if known is None or known.architecture != architecture:
        return Metadata(architecture=architecture)
    return Metadata(architecture, known.upsample, known.licence, known.commercial_use, known.provenance)


def _to_header(metadata: Metadata) -> dict[str, str]:
    header = {"format": "pt", "edgesam.format": _FORMAT}
    for field in fields(metadata):
        value = getattr(metadata, field.name)
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, tuple):
            value = ",".join(value)
        elif isinstance(value, int):
            value = str(value)
        if value is not None:
            header[f"edgesam.{field.name}"] = value
    return header


def _from_header(header: Mapping[str, str], path: Path) -> Metadata:
    if header["edgesam.format"] != _FORMAT:
        raise WeightsError(
            f"{path} has metadata of version {header['edgesam.format']}, this version reads {_FORMAT}",
            hint="upgrade edgesam-mobile",
        )
    commercial = header.get("edgesam.commercial_use")
    return Metadata(
        architecture=header.get("edgesam.architecture"),
        upsample=header.get("edgesam.upsample"),
        licence=header.get("edgesam.licence"),
        provenance=header.get("edgesam.provenance"),
        commercial_use=None if commercial is None else commercial == "true",
        trained=header.get("edgesam.trained") != "false",
        image_size=_side(header.get("edgesam.image_size"), path),
    )


def _side(text: str | None, path: Path) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= 8192:
        raise WeightsError(f"{path} says it was trained with inputs of {text!r} pixels")
    return int(text)
