"""COCO and LVIS: one JSON file of all annotations and a folder of pictures (arXiv 1405.0312, 1908.03195)."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from edgesam_mobile.errors import PictureError
from edgesam_mobile.evaluate.data.folders import file_size, unreadable
from edgesam_mobile.evaluate.data.samples import CorruptSample, Instance, Sample
from edgesam_mobile.files import sha256_of

_RUN = 1024  # pictures that count as one shard
_KEPT = ("id", "segmentation", "bbox", "area", "iscrowd", "category_id")


class CocoSource:
    """Pictures in the order of their ids, their objects in the order of theirs.

    The JSON is read once; what is kept of it is compressed picture by picture, so that loader processes inherit
    little (COCO's training set: about 150 MB).

    Args:
        spec: as :func:`~edgesam_mobile.evaluate.data.open.open_source` was asked.
        annotations: the JSON file.
        images: folder of the pictures; LVIS's are also found in folders below, as its ``coco_url`` names them.

    Raises:
        PictureError: the file cannot be read, is not COCO's JSON, lists no annotations, or a picture is missing.
    """

    def __init__(self, spec: str, annotations: Path, images: Path) -> None:
        self.spec, self.annotations, self.images = spec, annotations, images
        content = read_json(annotations)
        listed, objects = _lists(annotations, content)
        pictures = _by_id(annotations, "image", listed)
        _by_id(annotations, "annotation", objects)
        beside: dict[int, list[dict[str, Any]]] = {identifier: [] for identifier in pictures}
        for annotation in objects:
            if annotation.get("image_id") not in beside:
                raise _damaged(annotations, f"annotation {annotation['id']} belongs to no picture it lists")
            kept = {key: annotation[key] for key in _KEPT if key in annotation}
            beside[annotation["image_id"]].append(kept)
        self._names = _find_pictures(images, pictures)
        self._ids = list(pictures)
        self._records = [_pack(pictures[i], sorted(beside.pop(i), key=lambda a: int(a["id"]))) for i in pictures]
        self.shard_sizes: Sequence[int] = [
            min(_RUN, len(self._ids) - start) for start in range(0, len(self._ids), _RUN)
        ]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        name = self._names[index]
        record = json.loads(zlib.decompress(self._records[index]))
        try:
            size = (int(record["height"]), int(record["width"])) if record["height"] else None
            instances = tuple(_instance(annotation) for annotation in record["annotations"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorruptSample(name, f"its annotations cannot be read: {error}") from error
        path = self.images / name
        try:
            return Sample(name, path.read_bytes(), instances, self._ids[index], size)
        except FileNotFoundError as error:
            raise CorruptSample(name, "the picture has gone") from error
        except OSError as error:
            raise unreadable(path, error) from error

    def digest(self) -> str:
        try:
            found = hashlib.sha256(sha256_of(self.annotations).encode())
        except OSError as error:
            raise unreadable(self.annotations, error) from error
        for name in self._names:
            found.update(repr((name, file_size(self.images / name))).encode())
        return found.hexdigest()


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        PictureError: it is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PictureError(f"no such file: {path}", hint="check the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error


def _lists(path: Path, content: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = []
    for key in ("images", "annotations"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise _damaged(path, f"no list of {key}")
        if not value:
            raise _damaged(path, f"the list of {key} is empty")
        found.append(value)
    return found[0], found[1]


def _by_id(path: Path, what: str, entries: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Entries by their ids, sorted."""
    found: dict[int, dict[str, Any]] = {}
    for entry in entries:
        identifier = entry.get("id")
        if not isinstance(identifier, int) or identifier in found:
            raise _damaged(path, f"an {what} has no id of its own ({identifier!r})")
        found[identifier] = entry
    return dict(sorted(found.items()))


def _find_pictures(images: Path, pictures: dict[int, dict[str, Any]]) -> list[str]:
    """File names relative to the folder, one a picture."""
    if not images.is_dir():
        raise PictureError(f"no such folder of pictures: {images}", hint="check the path")
    names, missing = [], []
    for picture in pictures.values():
        candidates = _candidates(picture)
        name = next((name for name in candidates if (images / name).is_file()), None)
        names.append(name or "")
        if name is None:
            missing.append(candidates[0] if candidates else f"picture {picture['id']}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PictureError(f"{missing[0]}{more} of {len(names)} pictures not in {images}", hint="check the folder")
    return names


def _candidates(picture: dict[str, Any]) -> list[str]:
    """Where a picture may be: under its file name; LVIS gives an address ending in folder and name instead."""
    found = [str(picture["file_name"])] if picture.get("file_name") else []
    if picture.get("coco_url"):
        parts = PurePosixPath(urlsplit(str(picture["coco_url"])).path).parts
        found += [parts[-1], "/".join(parts[-2:])] if len(parts) > 1 else []
    # A file that names pictures outside the folder is not to be followed there.
    return [name for name in found if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts]


def _pack(picture: dict[str, Any], annotations: list[dict[str, Any]]) -> bytes:
    record = {"height": picture.get("height"), "width": picture.get("width"), "annotations": annotations}
    return zlib.compress(json.dumps(record, separators=(",", ":")).encode(), 1)


def _instance(annotation: dict[str, Any]) -> Instance:
    x, y, width, height = (float(number) for number in annotation["bbox"])
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError(f"the box of annotation {annotation['id']} is not finite")
    category = annotation.get("category_id")
    return Instance(
        int(annotation["id"]),
        annotation["segmentation"],
        (x, y, x + width, y + height),
        float(annotation["area"]),
        bool(annotation.get("iscrowd", 0)),
        None if category is None else int(category),
    )


def _damaged(path: Path, reason: str) -> PictureError:
    return PictureError(f"{path}: {reason}", hint="give a COCO or LVIS annotation file")
