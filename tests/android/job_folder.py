"""A folder as a harness has it on a phone: a package's graphs, a picture, what PyTorch answered, and a job."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.stream import Reader
from edgesam_mobile.package.manifest import GraphRecord, read_manifest

# Settings under which a job takes a second or two: times that nobody looks at.
QUICK: dict[str, Any] = {
    "least_iou": 0.99,
    "warm_up": {"rounds": 2, "seconds": 5.0, "window": 1, "tolerance": 0.05},
    "measure": {"seconds": 0.0, "rounds": 3},
    "state_every": 60.0,
    "seed": 1,
}
Answer = tuple[NDArray[np.bool_], int]


def make_job(
    folder: Path,
    package: Path,
    artifact_id: str,
    picture: NDArray[np.uint8],
    prompts: list[tuple[list[tuple[float, float]], list[int]]],
    answer: Callable[[list[tuple[float, float]], list[int]], Answer],
    **changes: Any,
) -> Path:
    """Put everything of a job into ``folder``; gives the request's file, ``jobs/ID.json``.

    Args:
        answer: the mask of the picture's size and which of the four it is, expected for a prompt.
        changes: fields of the job that are to be others.
    """
    manifest = read_manifest(package)
    artifact = manifest.artifact(artifact_id)
    image = stored(folder, "inputs", "picture.ppm", b"P6 %d %d 255\n" % picture.shape[1::-1] + picture.tobytes())
    golden = []
    for points, labels in prompts:
        mask, best = answer(points, labels)
        expected = stored(folder, "inputs", "mask.pbm", pbm(mask))
        golden.append({"image": image, "points": points, "labels": labels, "mask": expected, "best": best})
    frame = {"image": image, "points": prompts[0][0], "labels": prompts[0][1]}
    fields = {
        "job": "job-1",
        "label": f"{artifact_id}, launch 1 of 1",
        "format": artifact.format,
        "delegate": "xnnpack",
        "threads": 1,
        "encoder": graph(folder, package, artifact.encoder),
        "decoder": graph(folder, package, artifact.decoder),
        "picture": {"size": manifest.picture.size, "pad_rgb": manifest.picture.pad_rgb},
        "prompt": manifest.prompt.model_dump(include={"slots", "prompts_per_call", "mask_input"}),
        "mask": manifest.mask.model_dump(include={"low_resolution", "threshold", "score", "point_masks"}),
        "frame": frame,
        "golden": golden,
        **QUICK,
        **changes,
    }
    line = encode(Job.model_validate_json(json.dumps(fields)))
    request = folder / "jobs" / f"{fields['job']}.json"
    request.parent.mkdir(exist_ok=True)
    request.write_bytes(line)
    return request


def graph(folder: Path, package: Path, record: GraphRecord) -> dict[str, Any]:
    """A graph's file, brought into the folder, as a job names it."""
    source = package / record.file.path
    place = Path("models", record.file.sha256, source.name)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / place)
    ports = record.model_dump(include={"inputs", "outputs"})
    return {"path": place.as_posix(), "sha256": record.file.sha256, **ports}


def stored(folder: Path, kind: str, name: str, content: bytes) -> str:
    """Keep a file under its hash; gives its path within the folder."""
    place = Path(kind, hashlib.sha256(content).hexdigest(), name)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(content)
    return place.as_posix()


def pbm(mask: NDArray[np.bool_]) -> bytes:
    """A mask as a binary PBM, 1 for the object."""
    return b"P4 %d %d\n" % mask.shape[::-1] + np.packbits(mask, axis=1).tobytes()


def read_stream(lines: bytes, *, instrumentation: bool = False) -> tuple[Reader, list[Any]]:
    """The reader and the good events of one job's stream, as the desktop reads them."""
    reader = Reader("one-job", instrumentation=instrumentation)
    return reader, reader.feed(lines)


def example_picture(path: Path, longest: int) -> NDArray[np.uint8]:
    """A picture, shrunk so that its longest side has ``longest`` pixels."""
    with Image.open(path) as image:
        image.thumbnail((longest, longest))
        return np.array(image.convert("RGB"))
