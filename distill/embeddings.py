"""The teacher's embeddings on disk: quantised, checksummed, and bound to what made them.

A cache is a folder. ``cache.json`` says which teacher made it, from what kind of input. A shard is a
``shard-00000.safetensors`` with some pictures, and a ``shard-00000.json``, written after it, with its sha256 and
the pictures' names. A shard counts once its record is there: a writer killed at any moment leaves whole shards,
and perhaps one file that nothing refers to.

One picture, all 256 channels of all cells (padding too: the decoder attends to it), takes

    input 1024: 2.10 MB as float16, 1.05 MB as int8        input 512: 0.52 MB as float16, 0.26 MB as int8

float16 is off by at most 2**-11 of a value, int8 by at most 1/508 of its channel's range in that picture.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError
from edgesam_mobile.files import atomic_file, sha256_of, storage_errors
from edgesam_mobile.model.sam import PIXEL_MEAN, PIXEL_STD
from edgesam_mobile.weights.formats import write_safetensors

if TYPE_CHECKING:
    from types import TracebackType

Dtype = Literal["float16", "int8"]
PREPROCESSING = (
    f"RGB, longest side to the frame (Pillow bilinear), minus {PIXEL_MEAN}, by {PIXEL_STD}, zeros right and below"
)

_FORMAT, _VERSION = "edgesam-mobile.embeddings", 1
_HEADER, _LOCK = "cache.json", "write.lock"
_AGAIN = "run `edgesam-mobile teach` on the same recipe: it adds what is missing"
_ANEW = "delete the folder or choose another, then run `edgesam-mobile teach`"
_OPEN_SHARDS = 64
_PATCHES, _ROW_STEP, _TOLERANCE = 4, 4, 3


@dataclass(frozen=True)
class CacheHeader:
    """What embeddings were made by and how they are stored.

    Attributes:
        teacher_sha256: of the teacher's weights file.
        preprocessing: from a picture to the encoder's input, in words; equal words, equal input.
        precision: that the encoder computed in, ``float32`` or ``bfloat16``.
        grid: cells along a side of the embedding.
    """

    teacher_sha256: str
    architecture: str
    image_size: int
    preprocessing: str
    precision: str
    dtype: Dtype
    channels: int
    grid: int


def fingerprints(frames: Tensor) -> list[bytes]:
    """48 bytes that tell each frame's picture from others and from a flipped, cropped or recoloured self.

    They are its mean colours in 4 x 4 patches, of every fourth row, to be compared by :func:`alike`: another JPEG
    decoder or another rounding changes them by a level or so.

    Args:
        frames: uint8 B x 3 x S x S, S a multiple of 16.
    """
    frames = frames[:, :, ::_ROW_STEP]
    count, channels, height, width = frames.shape
    cells = (height // _PATCHES, width // _PATCHES)
    patches = frames.reshape(count, channels, _PATCHES, cells[0], _PATCHES, cells[1])
    means = patches.sum(dim=(3, 5), dtype=torch.int64) // (cells[0] * cells[1])
    return [bytes(row) for row in means.flatten(1).tolist()]


def alike(one: bytes, other: bytes) -> bool:
    """Whether two fingerprints are the same picture's, in the same frame."""
    return all(abs(a - b) <= _TOLERANCE for a, b in zip(one, other, strict=True))


def to_int8(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each channel on 255 even steps between its extremes.

    Args:
        x: float32 ... x g x g, finite.

    Returns:
        Values int8 ... x g x g, steps float32 ... and middles float32 ...: x is about value * step + middle,
        off by at most half a step, which is 1/508 of the channel's range. A constant channel is exact.
    """
    high, low = x.amax((-2, -1)), x.amin((-2, -1))
    middle, step = high / 2 + low / 2, (high / 2 - low / 2) / 127  # halves first: the range itself may overflow
    safe = torch.where(step > 0, step, 1.0)
    values = ((x - middle[..., None, None]) / safe[..., None, None]).round().clamp(-127, 127)
    return values.to(torch.int8), step, middle


def from_int8(values: Tensor, step: Tensor, middle: Tensor) -> Tensor:
    """Undo :func:`to_int8`, to float32."""
    x = values.float() * step[..., None, None] + middle[..., None, None]
    largest = torch.finfo(torch.float32).max  # a channel that reaches it may round to infinity
    return x.clamp(-largest, largest)


class EmbeddingCache:
    """Reads embeddings by their pictures' names; any number of processes may, also while one writes.

    A shard's checksum is verified when it is first used. Shards are mapped, not read; a few are kept open.

    Args:
        folder: of the cache.
        teacher_sha256: the teacher that the embeddings are to replace.
        image_size: of the teacher's input.

    Attributes:
        header: what made the cache.

    Raises:
        UsageError: there is no cache, or it was made by another teacher or from another kind of input.
        EdgeSamError: a file of it is damaged or of an unknown version.
    """

    def __init__(self, folder: Path, *, teacher_sha256: str, image_size: int) -> None:
        self.folder, self.header = folder, _read_header(folder)
        _refuse_other(folder, self.header, teacher_sha256=teacher_sha256, image_size=image_size)
        self._records = _read_records(folder)
        self._pictures = {
            name: (number, row, bytes.fromhex(seen))
            for number, record in self._records.items()
            for row, (name, seen) in enumerate(record.pop("pictures").items())
        }
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return len(self._pictures)

    def __contains__(self, name: str) -> bool:
        return name in self._pictures

    def get(self, names: Sequence[str], frames: Tensor) -> Tensor:
        """Embeddings of some pictures.

        Args:
            names: B, as the sources name them.
            frames: uint8 B x 3 x S x S, the inputs they stand for; only compared.

        Returns:
            float32 B x channels x grid x grid, on the CPU.

        Raises:
            UsageError: a picture is not in the cache, or its frame is not the one that was embedded.
            EdgeSamError: a shard is damaged.
        """
        rows = []
        for name, seen in zip(names, fingerprints(frames), strict=True):
            if name not in self._pictures:
                raise UsageError(f"no embedding of {name} in {self.folder}", hint=_AGAIN)
            shard, row, cached = self._pictures[name]
            if not alike(seen, cached):
                raise UsageError(
                    f"{name} is not the picture whose embedding is in {self.folder}: altered, augmented, or another",
                    hint="make the cache anew; with augmentation or equal names leave it out ([teacher] cache = '')",
                )
            rows.append(self._read(shard, row))
        return torch.stack(rows)

    def _read(self, number: int, row: int) -> Tensor:
        shard = self._shard(number)
        values: Tensor = shard.get_slice("values")[row]
        if self.header.dtype == "float16":
            return values.float()
        return from_int8(values, shard.get_slice("step")[row], shard.get_slice("middle")[row])

    def _shard(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        from safetensors import safe_open

        path = _shard_path(self.folder, number)
        if number not in self._verified:
            _verify(path, self._records[number])
            self._verified.add(number)
        self._open[number] = safe_open(path, framework="pt", device="cpu")
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[number]


class CacheWriter:
    """Fills a new cache or adds to one of the same kind; a context, which ends by writing the last shard.

    Args:
        folder: of the cache; made if missing.
        header: what the embeddings are made by; an existing cache must have the same.
        shard_size: pictures per shard: how many a killed writer may lose, and how many are held in memory.

    Raises:
        UsageError: the folder holds something else, or a cache of another kind.
        StorageError: it cannot be written, the disk is full, or another process is writing it.
        EdgeSamError: a file of the cache is damaged.
    """

    def __init__(self, folder: Path, header: CacheHeader, *, shard_size: int = 64) -> None:
        self.folder, self.header, self.shard_size = folder, header, shard_size
        self._names: list[str] = []
        self._embeddings: list[Tensor] = []
        self._known: dict[str, bytes] = {}
        self._next = 0

    def __enter__(self) -> CacheWriter:
        # A writer that was killed at once leaves its lock and perhaps the beginning of a header.
        others = {path.name for path in self.folder.glob("*")} - {_LOCK} if self.folder.exists() else set()
        if any(not name.startswith(".") for name in others) and _HEADER not in others:
            raise UsageError(f"{self.folder} holds something else", hint="choose an empty folder for the cache")
        self._lock = hold(self.folder / _LOCK)
        try:
            if (self.folder / _HEADER).exists():
                _refuse_other(self.folder, _read_header(self.folder), **asdict(self.header))
            else:
                _write_json(self.folder / _HEADER, {"format": _FORMAT, "version": _VERSION, **asdict(self.header)})
            for leftover in self.folder.glob(".shard-*"):  # of a writer that was killed
                leftover.unlink()
            records = _read_records(self.folder)
            self._next = max(records, default=-1) + 1
            for record in records.values():
                self._known |= {name: bytes.fromhex(seen) for name, seen in record["pictures"].items()}
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._lock.release()

    def known(self, name: str) -> bytes | None:
        """The fingerprint of a picture that is in the cache or about to be; None of others."""
        return self._known.get(name)

    def add(self, name: str, fingerprint: bytes, embedding: Tensor) -> None:
        """Take one picture's embedding, channels x grid x grid; writes a shard once there are enough.

        Raises:
            EdgeSamError: it holds a NaN or infinity, or is out of float16's range; names the picture.
            StorageError: the shard cannot be written; what was written before is whole.
        """
        embedding = embedding.detach().float().cpu()
        stored = embedding.half() if self.header.dtype == "float16" else embedding
        if not bool(stored.isfinite().all()):
            if bool(embedding.isfinite().all()):
                raise EdgeSamError(f"the embedding of {name} is out of float16's range", hint="cache as int8")
            hint = "check the teacher's weights; compute in float32"
            raise EdgeSamError(f"the embedding of {name} holds NaN or infinity", hint=hint)
        self._names.append(name)
        self._embeddings.append(stored)
        self._known[name] = fingerprint
        if len(self._names) >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Write what there is as a shard; nothing where there is nothing."""
        if not self._names:
            return
        stacked = torch.stack(self._embeddings)
        if self.header.dtype == "int8":
            tensors = dict(zip(("values", "step", "middle"), to_int8(stacked), strict=True))
        else:
            tensors = {"values": stacked}
        path = _shard_path(self.folder, self._next)
        with atomic_file(path) as temporary:
            write_safetensors(temporary, tensors, {"format": "pt"})
        pictures = {name: self._known[name].hex() for name in self._names}
        record = {"sha256": sha256_of(path), "bytes": path.stat().st_size, "pictures": pictures}
        _write_json(path.with_suffix(".json"), record)
        self._next += 1
        self._names, self._embeddings = [], []


def hold(path: Path) -> Any:
    """Take a lock file for writing and give the lock to release.

    Raises:
        StorageError: another process has it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            hint = "wait until it has ended, or choose another place"
            raise StorageError(f"another process is writing to {path.parent}", hint=hint) from error
    return lock


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def _read_header(folder: Path) -> CacheHeader:
    if not (folder / _HEADER).is_file():
        raise UsageError(f"no cache of embeddings at {folder}", hint="run `edgesam-mobile teach` to make one")
    content = _read_json(folder / _HEADER)
    if content.get("format") != _FORMAT:
        raise UsageError(f"{folder} is not a cache of embeddings", hint="choose another folder")
    if content.get("version") != _VERSION:
        raise EdgeSamError(
            f"{folder} is a cache of version {content.get('version')}, this version reads {_VERSION}", hint=_ANEW
        )
    try:
        return CacheHeader(**{field.name: content[field.name] for field in fields(CacheHeader)})
    except KeyError as error:
        raise EdgeSamError(f"{folder / _HEADER} lacks {error}", hint=_ANEW) from error


def _refuse_other(folder: Path, header: CacheHeader, **wanted: object) -> None:
    """Every value in ``wanted`` must be the header's, and the input must be prepared as it is today."""
    for key, value in {"preprocessing": PREPROCESSING, **wanted}.items():
        if (had := getattr(header, key)) != value:
            raise UsageError(f"the cache at {folder} was made with {key} {had}, not {value}", hint=_ANEW)


def _read_records(folder: Path) -> dict[int, dict[str, Any]]:
    """The records of finished shards by number. Numbers may lack: a damaged shard was deleted."""
    records = {}
    for path in sorted(folder.glob("shard-*.json")):
        record = _read_json(path)
        if not path.stem.removeprefix("shard-").isdecimal() or not record.keys() >= {"sha256", "bytes", "pictures"}:
            raise EdgeSamError(f"{path} is no record of a shard", hint=_remake(path))
        records[int(path.stem.removeprefix("shard-"))] = record
    return records


def _verify(path: Path, record: dict[str, Any]) -> None:
    """Compare a shard with its record.

    Raises:
        EdgeSamError: it is missing, cut short or altered.
    """
    if not path.is_file():
        problem = "is missing"
    elif path.stat().st_size != record["bytes"]:
        problem = f"has {path.stat().st_size} bytes instead of {record['bytes']}"
    elif sha256_of(path) != record["sha256"]:
        problem = "is damaged: its sha256 is not the recorded one"
    else:
        return
    raise EdgeSamError(f"{path} {problem}", hint=_remake(path))


def _remake(path: Path) -> str:
    return f"delete {path.stem}.* there and run `edgesam-mobile teach`: only its pictures are made again"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = _ANEW if path.name == _HEADER else _remake(path)
        raise EdgeSamError(f"cannot read {path}: {error}", hint=hint) from error
    if not isinstance(content, dict):
        raise EdgeSamError(f"{path} holds no JSON object", hint=_ANEW)
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
