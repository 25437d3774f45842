"""One way to name any data set on a command line or in a recipe."""

from __future__ import annotations

import difflib
from pathlib import Path

from edgesam_mobile.errors import UsageError
from edgesam_mobile.evaluate.data.coco import CocoSource
from edgesam_mobile.evaluate.data.folders import PictureSource
from edgesam_mobile.evaluate.data.generated import GeneratedSource
from edgesam_mobile.evaluate.data.sa1b import Sa1bSource
from edgesam_mobile.evaluate.data.samples import Source

FORMS = {
    "coco": "coco:DIR (with instances.json and images/) or coco:FILE.json:IMAGES_DIR",
    "lvis": "lvis:FILE.json:IMAGES_DIR",
    "sa1b": "sa1b:PATH (folder of tars, one tar, or a folder of .jpg and .json)",
    "images": "images:PATH (folder tree, folder of tars, or one tar; no labels)",
    "generated": "generated:N or generated:N:SEED",
}


def open_source(spec: str) -> Source:
    """Open a data set by its name.

    Args:
        spec: ``kind:where``; the kinds and their forms are in :data:`FORMS`.

    Raises:
        UsageError: unknown kind or malformed; the hint gives the nearest kind or the form.
        PictureError: the data is missing, damaged or empty.
    """
    kind, _, where = spec.partition(":")
    if kind not in FORMS:
        near = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f"did you mean {FORMS[near[0]]}?" if near else f"kinds: {', '.join(FORMS)}"
        raise UsageError(f"no kind of data is named {kind!r}", hint=hint)
    if not where:
        raise UsageError(f"{spec!r} does not say where", hint=FORMS[kind])
    if kind == "sa1b":
        return Sa1bSource(spec, Path(where).expanduser())
    if kind == "images":
        return PictureSource(spec, Path(where).expanduser())
    if kind == "generated":
        return GeneratedSource(spec, *_numbers(spec, where))
    return _coco(spec, kind, where)


def _coco(spec: str, kind: str, where: str) -> CocoSource:
    file, colon, images = where.rpartition(".json:")
    if colon and images:
        return CocoSource(spec, Path(file + ".json").expanduser(), Path(images).expanduser())
    if kind == "lvis" or where.endswith((".json", ".json:")):
        raise UsageError(f"{spec!r} does not name a folder of pictures", hint=FORMS[kind])
    folder = Path(where).expanduser()
    return CocoSource(spec, folder / "instances.json", folder / "images")


def _numbers(spec: str, where: str) -> list[int]:
    parts = where.split(":")
    if len(parts) > 2 or not all(part.isdecimal() and part.isascii() for part in parts) or int(parts[0]) < 1:
        raise UsageError(f"{spec!r} is not {FORMS['generated']}", hint="such as generated:200 or generated:200:7")
    return [int(part) for part in parts]
