"""The two file formats of checkpoints, with their ways to fail turned into this package's errors."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesam_mobile.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` file and the metadata in its header.

    Raises:
        WeightsError: the file is damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole .safetensors file: {error}", hint="get it again") from error


def read_pickle(path: Path) -> Any:
    """What ``torch.save`` put into a file; nothing but plain containers, numbers and tensors is let through.

    Raises:
        WeightsError: the file is damaged, something else, or needs code to be read.
    """
    import torch

    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    try:
        with warnings.catch_warnings():
            # torch warns about unusual pickle protocols before it refuses them.
            warnings.simplefilter("ignore")
            # Only the zipped format can be mapped; the old one is copied.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path} needs code to be read ({code[1]}), which is never run from a weights file",
                hint="if you trust it, load it with its own tool and save only its state dict",
            ) from error
        raise WeightsError(f"{path} is not a checkpoint", hint="expected .safetensors, .pt or .pth") from error
    except Exception as error:
        # On damaged bytes torch raises almost anything: RuntimeError, EOFError, KeyError, UnicodeDecodeError.
        raise WeightsError(f"{path} is damaged or not a checkpoint", hint="get it again") from error


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors and metadata; equal ones give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_unshared(state), path, metadata=dict(header))
    except SafetensorError as error:
        # It wraps what the disk said into text.
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
    _sort_metadata(path)


def write_pickle(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as ``torch.save`` does; equal ones give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import torch

    try:
        # A stream, since of a path the name goes into the archive.
        with path.open("wb") as stream:
            torch.save(_unshared(state), stream)
    except RuntimeError as error:
        # torch's archive writer hides what the disk said behind its own complaint.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as the safetensors format demands."""
    plain: dict[str, Tensor] = {}
    seen = set()
    for key, tensor in state.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[key] = own
    return plain


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order: safetensors writes it in a random one. The header keeps its length."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        stream.seek(8)
        stream.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length))
