"""The teacher: a frozen model whose embeddings come from its encoder or from a cache, and who fills that cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from distill.data.batch import Batch, normalise
from distill.data.prompt_book import Found, PromptWriter
from distill.data.teacher_prompts import PromptSettings, find_prompts
from distill.embeddings import (
    PREPROCESSING,
    CacheHeader,
    CacheWriter,
    Dtype,
    EmbeddingCache,
    alike,
    fingerprints,
)
from edgesam_mobile.errors import UsageError
from edgesam_mobile.files import size_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.sam import Sam

Precision = Literal["float32", "bfloat16"]


class Teacher:
    """A frozen model that answers for pictures; see :func:`open_teacher`.

    Attributes:
        model: prompt encoder and mask decoder, frozen, in evaluation mode; and the image encoder, folded for speed,
            unless there is a cache, which does its work.
        cache: where embeddings are read from; None where the encoder computes them.
        precision: that the encoder computes in.
    """

    def __init__(self, model: Sam, cache: EmbeddingCache | None = None, precision: Precision = "float32") -> None:
        self.model, self.cache, self.precision = model, cache, precision

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """Embeddings float32 B x 256 x g x g on the model's device, without gradient.

        Raises:
            UsageError: a picture is not in the cache, or is not the one that was embedded.
            EdgeSamError: the cache is damaged.
        """
        device = self.model.device
        if self.cache is not None:
            return self.cache.get(batch.names, batch.frames).to(device, non_blocking=True)
        frames = normalise(self.model, batch.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            embeddings: Tensor = self.model.image_encoder(frames)
        return embeddings.float()


def open_teacher(
    weights: str,
    *,
    image_size: int,
    cache: str = "",
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    augmented: bool = False,
) -> Teacher:
    """Load a teacher: MobileSAM, SAM's ViT-B, -L or -H, or any other checkpoint of a known architecture.

    Args:
        weights: a name or a file, as :func:`~edgesam_mobile.model.load.load_model` takes it.
        image_size: side of its square input in pixels.
        cache: folder of cached embeddings; "" computes them from each batch.
        device: where the model computes.
        precision: that the encoder computes in, ``float32`` or ``bfloat16`` (autocast).
        augmented: whether frames are augmented; cached embeddings are of frames as they are.

    Raises:
        UsageError: unknown weights or input size; a cache with augmentation, of another teacher or of another input
            size.
        FetchError, WeightsError: the weights cannot be had or are damaged.
        EdgeSamError: the cache is damaged.
    """
    if cache and augmented:
        raise UsageError(
            "cached embeddings are of pictures as they are, and this recipe augments them",
            hint="set [teacher] cache = '' or switch [data.augment] off",
        )
    model = load_model(weights, image_size=image_size)
    store = None
    if cache:
        store = EmbeddingCache(Path(cache), teacher_sha256=_sha256(model), image_size=image_size)
        model.image_encoder = nn.Identity()  # gigabytes of a ViT-H that nobody asks
    elif callable(fuse := getattr(model.image_encoder, "fuse", None)):
        model.image_encoder = fuse()
    model = model.requires_grad_(False).eval().to(device)
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return Teacher(model, store, precision)


@dataclass
class Written:
    """What :func:`write_cache` did.

    Attributes:
        embedded: pictures that the teacher looked at.
        kept: pictures that were there already, from an earlier run or earlier in this one.
        corrupt: pictures that could not be read: (name, reason).
        prompts: prompts found.
        without_prompts: names of pictures in which the teacher found no object.
        bytes: of the cache's folder in the end.
    """

    embedded: int = 0
    kept: int = 0
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    prompts: int = 0
    without_prompts: list[str] = field(default_factory=list)
    bytes: int = 0


def write_cache(
    teacher: Teacher,
    batches: Iterable[Batch],
    folder: Path | None,
    *,
    dtype: Dtype = "int8",
    shard_size: int = 64,
    prompts: Path | None = None,
    settings: PromptSettings | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Embed every picture once: into a cache, into a file of prompts, or into both.

    Killed and started again, it goes on: pictures that are there are not embedded again.

    Args:
        teacher: one without a cache of its own.
        batches: every picture once, as published, with ``originals`` where prompts are asked for. Names are the
            keys of both, and must be unique over all sources.
        folder: of the cache; None writes prompts only.
        dtype: how the cache stores them; see :mod:`distill.embeddings` for size and error.
        shard_size: pictures per shard.
        prompts: file for prompts from the teacher's own masks; None finds none.
        settings: which masks become prompts.
        on_progress: called after each batch with the number of pictures done.

    Raises:
        UsageError: two pictures have the same name; the folder or the file belongs to something else, to another
            teacher or to other settings.
        StorageError: the disk is full or cannot be written, or another process is writing.
        EdgeSamError: an embedding is not finite (names the picture), or what is there is damaged.
    """
    if teacher.cache is not None:
        raise UsageError("a teacher who reads a cache cannot write one", hint="open it without a cache")
    settings = settings or PromptSettings()
    written = Written()
    with ExitStack() as stack:
        cache = book = None
        if folder is not None:
            cache = stack.enter_context(CacheWriter(folder, _header(teacher, dtype), shard_size=shard_size))
        if prompts is not None:
            book = stack.enter_context(_prompt_writer(teacher, prompts, settings))
        for batch in batches:
            marks = fingerprints(batch.frames)
            rows = _missing(batch.names, marks, [store for store in (cache, book) if store is not None])
            some = _rows(batch, rows)
            embeddings = teacher.embed(some) if rows else torch.empty(0)
            if cache is not None:
                for row, name, embedding in zip(rows, some.names, embeddings, strict=True):
                    if cache.known(name) is None:
                        cache.add(name, marks[row], embedding)
            if book is not None:
                found = _prompts(teacher, some, embeddings, [marks[row] for row in rows], settings)
                found = [one for one in found if book.known(one[0]) is None]
                book.add(found)
                written.prompts += sum(len(boxes) for _, _, boxes, _ in found)
                written.without_prompts += [name for name, _, boxes, _ in found if len(boxes) == 0]
            written.embedded += len(rows)
            written.kept += len(batch) - len(rows)
            written.corrupt += batch.corrupt
            on_progress(written.embedded + written.kept + len(written.corrupt))
    written.bytes = 0 if folder is None else size_of(folder)
    return written


def _missing(names: Sequence[str], marks: Sequence[bytes], stores: Sequence[CacheWriter | PromptWriter]) -> list[int]:
    """Rows of a batch that a store lacks, each picture once.

    Raises:
        UsageError: a name stands for two pictures.
    """
    rows: dict[str, int] = {}
    for row, (name, mark) in enumerate(zip(names, marks, strict=True)):
        known = [store.known(name) for store in stores]
        earlier = [*known, marks[rows[name]] if name in rows else None]
        if not all(alike(mark, other) for other in earlier if other is not None):
            raise UsageError(
                f"two different pictures are named {name}, or it has changed since it was cached",
                hint="give every picture a name of its own over all sources, or delete the cache and the prompts",
            )
        if None in known and name not in rows:
            rows[name] = row
    return list(rows.values())


def _rows(batch: Batch, rows: Sequence[int]) -> Batch:
    names, chosen = [batch.names[row] for row in rows], torch.tensor(rows, dtype=torch.int64)
    originals = None if batch.originals is None else batch.originals[chosen]
    return Batch(names, batch.frames[chosen], batch.sizes[chosen], originals=originals)


def _prompts(
    teacher: Teacher, batch: Batch, embeddings: Tensor, marks: Sequence[bytes], settings: PromptSettings
) -> list[Found]:
    """Each picture's prompts, taken from the frame to the picture as published."""
    if batch.originals is None:
        raise UsageError("batches do not say how large the published pictures are", hint="set Batch.originals")
    found = []
    for name, mark, embedding, size, original in zip(
        batch.names, marks, embeddings, batch.sizes, batch.originals, strict=True
    ):
        shape = (int(size[0]), int(size[1]))
        bfloat16 = teacher.precision == "bfloat16"
        boxes, points = find_prompts(teacher.model, embedding, shape, settings, bfloat16=bfloat16)
        factors = (original / size.cpu()).flip(0).float()
        found.append((name, mark, (boxes.cpu() * factors.repeat(2)).numpy(), (points.cpu() * factors).numpy()))
    return found


def _header(teacher: Teacher, dtype: Dtype) -> CacheHeader:
    model = teacher.model
    return CacheHeader(
        teacher_sha256=_sha256(model),
        architecture=model.architecture,
        image_size=model.image_size,
        preprocessing=PREPROCESSING,
        precision=teacher.precision,
        dtype=dtype,
        channels=model.prompt_encoder.dim,
        grid=model.prompt_encoder.grid,
    )


def _prompt_writer(teacher: Teacher, path: Path, settings: PromptSettings) -> PromptWriter:
    model = teacher.model
    return PromptWriter(path, teacher_sha256=_sha256(model), image_size=model.image_size, settings=asdict(settings))


def _sha256(model: Sam) -> str:
    assert model.provenance is not None, "a teacher is loaded from a file"
    return model.provenance.weights_sha256
