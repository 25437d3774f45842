"""From an ``.mlpackage`` folder to its protobuf, without trusting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from edgesam_mobile.runtime.coreml.types import ProgramError

# Programs keep their weights in a file of their own, so a specification is small; this project's take 0.3 MB.
LARGEST_SPECIFICATION = 64 << 20
_DATA = "Data"


def read_specification(package: Path) -> tuple[Any, Path]:
    """The model of a package.

    Returns:
        The ``Model`` message of coremltools, and the folder that ``@model_path`` in it stands for.

    Raises:
        ProgramError: no package, damaged, leading out of its folder, or implausibly large.
    """
    from coremltools.proto import Model_pb2

    path = _root(package)
    size = path.stat().st_size
    if size > LARGEST_SPECIFICATION:
        raise ProgramError(f"the specification takes {size} bytes; more than {LARGEST_SPECIFICATION} are not read")
    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ProgramError("the specification is damaged") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise ProgramError(f"it holds {model.WhichOneof('Type') or 'no model'}, not an ML program")
    return model, path.parent


def _root(package: Path) -> Path:
    """The specification's file, as the package's ``Manifest.json`` names it."""
    listing = package / "Manifest.json"
    try:
        if listing.stat().st_size > 1 << 20:
            raise ProgramError("Manifest.json is implausibly large")
        manifest = json.loads(listing.read_text(encoding="utf-8"))
        relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        path: Path = (package / _DATA / str(relative)).resolve()
        inside = path.is_relative_to((package / _DATA).resolve()) and path.is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError(f"Manifest.json is missing or damaged ({type(error).__name__})") from error
    if not inside:
        raise ProgramError(f"Manifest.json names no file inside the package: {relative!r}")
    return path
