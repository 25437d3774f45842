"""Small data sets in the layouts that are published."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgesam_mobile.evaluate.data.masks import encode_mask

Rectangle = tuple[int, int, int, int]  # x, y, width, height, as COCO has boxes


def jpeg(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG")
    return stream.getvalue()


def rectangle(box: Rectangle, width: int = 64, height: int = 64) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    x, y, w, h = box
    mask[y : y + h, x : x + w] = True
    return mask


def annotation(identifier: int, picture: int, box: Rectangle, **more: Any) -> dict[str, Any]:
    """A rectangle as a COCO annotation."""
    x, y, w, h = box
    return {
        "id": identifier, "image_id": picture, "category_id": 1, "bbox": list(box), "area": w * h, "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]], **more,
    }  # fmt: skip


def coco(folder: Path, annotations: list[dict[str, Any]], pictures: tuple[int, ...] = (1, 2)) -> Path:
    """A folder as ``coco:`` takes it, of pictures of 64 x 64 pixels."""
    images = folder / "images"
    images.mkdir(parents=True)
    listed = []
    for number in pictures:
        (images / f"{number:04d}.jpg").write_bytes(jpeg(seed=number))
        listed.append({"id": number, "file_name": f"{number:04d}.jpg", "width": 64, "height": 64})
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def sa1b_files(count: int = 3) -> dict[str, bytes]:
    """Pictures with one mask each, and their JSON files."""
    files = {}
    for number in range(1, count + 1):
        mask = rectangle((4 * number, 8, 20, 30))
        entry = {
            "id": 100 + number, "segmentation": encode_mask(mask), "bbox": [4 * number, 8, 20, 30], "area": 600,
            "point_coords": [[4.0 * number + 9, 20.0]], "predicted_iou": 0.9, "stability_score": 0.97,
            "crop_box": [0, 0, 64, 64],
        }  # fmt: skip
        image = {"image_id": number, "width": 64, "height": 64, "file_name": f"sa_{number}.jpg"}
        files[f"sa_{number}.jpg"] = jpeg(seed=number)
        files[f"sa_{number}.json"] = json.dumps({"image": image, "annotations": [entry]}).encode()
    return files


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar(path: Path, files: Mapping[str, bytes], prefix: str = "./") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
