"""Folders and tars of pictures, with or without an annotation file beside each picture."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgesam_mobile.errors import PictureError
from edgesam_mobile.evaluate.data.samples import CorruptSample, Sample

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_ANNOTATIONS = ".json"
_RUN = 1024  # pictures of a folder that count as one shard
_BLOCK = 512  # of a tar
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard

Place = tuple[int, int]  # offset and size within a tar; nothing to say of a loose file
_ABSENT = (-1, -1)


class Shard:
    """Samples of one tar, or of a run of a folder.

    Names and places are kept as arrays, about 50 bytes a sample: the 11 million of SA-1B fit into memory.

    Args:
        path: the tar, or the folder.
        prefix: what stands before a file's name in a sample's.
        entries: sorted; the picture's name, its place and its annotations' place. An annotation file without a
            picture stands under its own name.
    """

    def __init__(self, path: Path, prefix: str, entries: Sequence[tuple[str, Place, Place]]) -> None:
        self.path, self.prefix = path, prefix
        self.packed = path.is_file()
        self._names = np.array([os.fsencode(name) for name, _, _ in entries])
        self._places = np.array([places for _, *places in entries], dtype=np.int64).reshape(-1, 2, 2)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self.prefix + self._file(index)

    def picture(self, index: int) -> bytes:
        """Raises: CorruptSample where there are annotations only, or the file ends early."""
        if self._places[index, 0, 0] < 0:
            raise CorruptSample(self.name(index), "annotations without a picture")
        return self._read(index, self._file(index), 0)

    def annotations(self, index: int) -> bytes:
        """Raises: CorruptSample where there are none beside the picture, or the file ends early."""
        if self._places[index, 1, 0] < 0:
            raise CorruptSample(self.name(index), "no annotations beside the picture")
        return self._read(index, _beside(self._file(index)), 1)

    def traits(self) -> Iterator[bytes]:
        """Names, places in a tar and sizes of its files; those of loose files are looked up."""
        yield repr((self.prefix, self._names.dtype.str, len(self))).encode()
        yield self._names.tobytes()
        yield self._places.tobytes()
        for index in range(0 if self.packed else len(self)):
            name, there = self._file(index), self._places[index, :, 0] >= 0
            files = [file for file, is_there in zip((name, _beside(name)), there, strict=True) if is_there]
            yield repr([file_size(self.path / file) for file in files]).encode()

    def _file(self, index: int) -> str:
        return os.fsdecode(bytes(self._names[index]))

    def _read(self, index: int, name: str, column: int) -> bytes:
        # Opened for each sample: nothing to hand to loader processes, no limit of open files to meet.
        path = self.path if self.packed else self.path / name
        try:
            with path.open("rb") as stream:
                if not self.packed:
                    return stream.read()
                offset, size = (int(value) for value in self._places[index, column])
                stream.seek(offset)
                content = stream.read(size)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self.packed:
                raise CorruptSample(self.name(index), f"{name} has gone") from error
            raise unreadable(path, error) from error
        if len(content) < size:
            raise CorruptSample(self.name(index), f"{self.path} has become shorter")
        return content


class Shards:
    """Shards one after the other, addressed by one number."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = [shard for shard in shards if len(shard)]
        self.sizes = [len(shard) for shard in self.shards]
        self._ends = np.cumsum(self.sizes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.sizes else 0

    def place(self, index: int) -> tuple[Shard, int]:
        """The shard of a sample, and its number in there. Raises: IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.shards[number], index - (int(self._ends[number]) - self.sizes[number])

    def digest(self) -> str:
        """As :meth:`~edgesam_mobile.evaluate.data.samples.Source.digest`."""
        found = hashlib.sha256()
        for shard in self.shards:
            for trait in shard.traits():
                found.update(trait)
        return found.hexdigest()


class PictureSource:
    """Pictures without labels, from a tar, a folder of tars, a folder tree, or both.

    Names are paths relative to the folder; a tar's members stand under the tar's own name, so that one tar alone
    and within its folder gives the same names.

    Raises:
        PictureError: nothing is there, a tar is damaged or compressed, or no picture is found.
    """

    def __init__(self, spec: str, path: Path) -> None:
        self.spec = spec
        self._shards = find_shards(path, annotated=False)
        self.shard_sizes: Sequence[int] = self._shards.sizes

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Sample:
        shard, number = self._shards.place(index)
        return Sample(shard.name(number), shard.picture(number))

    def digest(self) -> str:
        return self._shards.digest()


def find_shards(path: Path, *, annotated: bool) -> Shards:
    """Index what is at ``path``: headers of tars and names in folders, no contents.

    Args:
        annotated: whether samples are pairs of a picture and a JSON file of the same stem. A lone one of the two
            is a sample too, which is corrupt when read: nothing goes missing unsaid.

    Raises:
        As :class:`PictureSource`.
    """
    try:
        if path.is_file():
            shards = [_tar_shard(path, f"{path.name}/", annotated)]
        elif path.is_dir():
            shards = list(_folder_shards(path, annotated))
        else:
            raise PictureError(f"no such file or folder: {path}", hint="check the path")
    except OSError as error:
        raise unreadable(path, error) from error
    found = Shards(shards)
    if not len(found):
        raise PictureError(f"no pictures in {path}", hint=f"pictures end in {', '.join(_PICTURES)}; tars in .tar")
    return found


def file_size(path: Path) -> int | None:
    """Bytes of a file; None where it has gone.

    Raises:
        PictureError: the operating system refuses to tell.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> PictureError:
    """What to raise where the operating system refuses a file."""
    return PictureError(f"cannot read {path}: {error.strerror or error}", hint="check that it is there and readable")


def _folder_shards(folder: Path, annotated: bool) -> Iterator[Shard]:
    loose: dict[str, Place] = {}
    for name in sorted(_walk(folder)):
        if name.endswith(".tar"):
            yield _tar_shard(folder / name, f"{name}/", annotated)
        else:
            loose[name] = (0, 0)
    entries = _entries(loose, annotated)
    for start in range(0, len(entries), _RUN):
        yield Shard(folder, "", entries[start : start + _RUN])


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder as relative names; hidden ones and symbolic links to folders are left alone."""

    def refuse(error: OSError) -> None:
        raise error

    for here, below, files in os.walk(folder, onerror=refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        inside = Path(here).relative_to(folder)
        yield from ((inside / name).as_posix() for name in files if not name.startswith("."))


def _tar_shard(path: Path, prefix: str, annotated: bool) -> Shard:
    files: dict[str, Place] = {}
    try:
        with path.open("rb") as stream:
            if stream.read(6).startswith(_COMPRESSED):
                hint = "pictures are read by their place in the tar: decompress it first"
                raise PictureError(f"the tar is compressed: {path}", hint=hint)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    if member.isreg():  # of two members of one name the later counts, as when unpacking
                        files[member.name.removeprefix("./")] = (member.offset_data, member.size)
                end = archive.offset
            # tarfile takes a damaged header for the end; what ends an archive is a block of zeros.
            stream.seek(end)
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("no end mark: it is cut short or damaged")
    except tarfile.TarError as error:
        hint = "copy or download it again"
        raise PictureError(f"not a tar that can be read: {path} ({error})", hint=hint) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return Shard(path, prefix, _entries(files, annotated))


def _entries(files: dict[str, Place], annotated: bool) -> list[tuple[str, Place, Place]]:
    """Pictures with the annotations of the same stem, sorted, among them annotations without a picture."""
    pictures = {name for name in files if name.lower().endswith(_PICTURES)}
    if not annotated:
        return [(name, files[name], _ABSENT) for name in sorted(pictures)]
    beside = {name: _beside(name) for name in pictures}
    alone = {name for name in files if name.endswith(_ANNOTATIONS)} - set(beside.values())
    return [
        (name, files[name], files.get(beside[name], _ABSENT)) if name in pictures else (name, _ABSENT, files[name])
        for name in sorted(pictures | alone)
    ]


def _beside(picture: str) -> str:
    return picture.rpartition(".")[0] + _ANNOTATIONS
