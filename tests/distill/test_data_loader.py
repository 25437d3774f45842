"""Batches over processes, epochs and interruptions: always the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small_data import data_recipe, png, write_sa1b

import distill.data.loader
from distill.data.batch import Batch, Prompts
from distill.data.loader import Loader
from distill.recipe import AugmentRecipe, PromptsRecipe
from edgesam_mobile.errors import EdgeSamError, PictureError, UsageError
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.evaluate.data.samples import Sample, Source

SIDE = 32
COUNT = 22


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sa1b(tmp_path_factory.mktemp("data") / "sa1b", COUNT)


def loader(
    *sources: str | tuple[str, float],
    batch_size: int = 6,
    rank: int = 0,
    world: int = 1,
    seed: int = 3,
    box_probability: float = 0.5,
    needs_prompts: bool = True,
    every_box: bool = False,
    **options: Any,
) -> Loader:
    augment = AugmentRecipe(flip=0.5, scale=(0.7, 1.6), colour=0.3)
    data = data_recipe(*sources, **{"augment": augment, "prompts": PromptsRecipe(per_image=2), **options})
    return Loader(
        data,
        image_size=SIDE,
        batch_size=batch_size,
        rank=rank,
        world=world,
        seed=seed,
        box_probability=box_probability,
        rounds=2,
        needs_prompts=needs_prompts,
        every_box=every_box,
    )


def content(batch: Batch) -> tuple[Any, ...]:
    """All that a batch says, in values that compare."""
    prompts = batch.prompts
    assert prompts is not None and batch.originals is not None
    tensors = (batch.frames, batch.sizes, batch.originals, *tensors_of(prompts))
    return batch.names, batch.corrupt, prompts.kind, [(t.dtype, t.tolist()) for t in tensors]


def tensors_of(prompts: Prompts) -> tuple[torch.Tensor, ...]:
    return prompts.image, prompts.boxes, prompts.points, prompts.uniform


def joined(parts: Sequence[Batch]) -> Batch:
    """The batch that several processes' parts make up."""
    rows = [0]
    for part in parts:
        rows.append(rows[-1] + len(part))
    found = [part.prompts for part in parts if part.prompts is not None]
    assert len({prompts.kind for prompts in found}) == 1
    columns = zip(*map(tensors_of, found), strict=True)
    image, boxes, points, uniform = (torch.cat(column) for column in columns)
    image = torch.cat([prompts.image + row for prompts, row in zip(found, rows, strict=False)])
    return Batch(
        [name for part in parts for name in part.names],
        torch.cat([part.frames for part in parts]),
        torch.cat([part.sizes for part in parts]),
        Prompts(image, boxes, points, uniform, found[0].kind),
        [entry for part in parts for entry in part.corrupt],
        torch.cat([part.originals for part in parts if part.originals is not None]),
    )


def names(batches: Iterator[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.names]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_read_what_one_reads(pictures: str, world: int) -> None:
    alone = [content(batch) for batch in loader(pictures).epoch(1)]
    shares = [loader(pictures, rank=rank, world=world).epoch(1) for rank in range(world)]
    together = [content(joined(parts)) for parts in zip(*shares, strict=True)]
    assert together == alone and len(alone) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing_over_epochs_and_interruptions(pictures: str, workers: int) -> None:
    here, others = loader(pictures), set(multiprocessing.active_children())
    with loader(pictures, workers=workers) as there:
        assert [content(b) for b in there.epoch(0)] == [content(b) for b in here.epoch(0)]
        assert [content(b) for b in islice(there.epoch(1), 1)] == [content(b) for b in islice(here.epoch(1), 1)]
        assert [content(b) for b in there.epoch(2, 1)] == [content(b) for b in here.epoch(2, 1)]
    assert set(multiprocessing.active_children()) <= others


def test_starting_later_gives_the_rest_and_reads_no_more(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Spy:
        def __init__(self, spec: str) -> None:
            self.spec, self.source = spec, open_source(spec)
            self.shard_sizes = self.source.shard_sizes

        def __len__(self) -> int:
            return len(self.source)

        def __getitem__(self, index: int) -> Sample:
            read.append(index)
            return self.source[index]

    def spied(spec: str) -> Source:
        return Spy(spec)

    monkeypatch.setattr(distill.data.loader, "open_source", spied)
    whole = [content(batch) for batch in loader(pictures).epoch(4)]
    read.clear()
    assert [content(batch) for batch in loader(pictures).epoch(4, 2)] == whole[2:]
    assert len(read) == 6
    assert list(loader(pictures).epoch(4, 3)) == []


def test_an_epoch_has_whole_batches_of_different_pictures(pictures: str) -> None:
    reader = loader(pictures)
    assert reader.batches_per_epoch == 3
    first, second = names(reader.epoch(0)), names(reader.epoch(1))
    assert len(set(first)) == len(set(second)) == 18
    assert first != second
    published = loader(pictures, order="published")
    assert names(published.epoch(0)) == names(published.epoch(1))
    kept, again = next(published.epoch(0)).prompts, next(published.epoch(1)).prompts
    assert kept is not None and again is not None
    assert not torch.equal(kept.uniform, again.uniform), "prompts are drawn anew all the same"


def test_short_epochs_come_to_every_picture(pictures: str) -> None:
    reader = loader(pictures, batch_size=11, epoch_size=11, needs_prompts=False)
    assert sorted(names(reader.epoch(0)) + names(reader.epoch(1))) == sorted(f"sa_{i}.jpg" for i in range(COUNT))


def test_sources_are_mixed_by_weight(pictures: str) -> None:
    reader = loader((pictures, 3.0), ("generated:5", 1.0), batch_size=8, epoch_size=16, needs_prompts=False)
    found = names(reader.epoch(0))
    assert sum(name.startswith("generated") for name in found) == 4 and len(found) == 16


@pytest.mark.parametrize(("probability", "kinds"), [(1.0, {"box"}), (0.0, {"point"}), (0.5, {"box", "point"})])
def test_a_coin_is_thrown_for_each_batch(pictures: str, probability: float, kinds: set[str]) -> None:
    reader = loader(pictures, batch_size=2, box_probability=probability)
    assert {batch.prompts.kind for batch in reader.epoch(0) if batch.prompts} == kinds


def test_corrupt_pictures_make_a_batch_smaller(tmp_path: Path) -> None:
    reader = loader(write_sa1b(tmp_path / "sa1b", 8, broken=[1, 5]), batch_size=2)
    batches = list(reader.epoch(0))
    assert sum(map(len, batches)) == 6
    assert sorted(name for batch in batches for name, _ in batch.corrupt) == ["sa_1.jpg", "sa_5.jpg"]
    assert all(len(batch) + len(batch.corrupt) == 2 for batch in batches)


def test_batches_of_nothing_but_corrupt_pictures_come_too(tmp_path: Path) -> None:
    spec = write_sa1b(tmp_path / "sa1b", 4, broken=range(4))
    with loader(spec, batch_size=2, workers=1) as reader:
        assert [(len(batch), len(batch.corrupt)) for batch in reader.epoch(0)] == [(0, 2), (0, 2)]


def test_stage_3_reads_all_17_boxes_with_and_without_a_loader_process(tmp_path: Path) -> None:
    """As COCO has them, with a crowd; ``per_image`` is below their number."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(64, 64))
    boxes = [(3 * k, 2, 10, 20) for k in range(17)] + [(0, 0, 64, 30)]
    objects = [
        {"id": k, "image_id": 1, "bbox": box, "area": 200, "segmentation": [], "iscrowd": int(k == 17)}
        for k, box in enumerate(boxes)
    ]
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}], "annotations": objects}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for workers in (0, 1):
        options = {"batch_size": 1, "augment": AugmentRecipe(), "workers": workers, "every_box": True}
        with loader(f"coco:{tmp_path}", **options) as reader:
            (only,) = reader.epoch(0)
        assert only.prompts is not None and only.prompts.crowd is not None
        assert only.prompts.crowd.tolist() == [False] * 17 + [True]
        expected = [[1.5 * k, 1, min(1.5 * k + 5, 32), 11] for k in range(17)] + [[0, 0, 32, 15]]
        assert only.prompts.boxes.tolist() == expected


def test_torchs_random_numbers_stay_as_they_are(pictures: str) -> None:
    before = torch.get_rng_state()
    names(loader(pictures).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_make_a_batch_is_refused(pictures: str) -> None:
    with pytest.raises(UsageError, match="a batch of 6 cannot be split over 4 processes"):
        loader(pictures, world=4)
    with pytest.raises(UsageError, match="an epoch has 22 pictures, fewer than a batch of 23"):
        loader(pictures, batch_size=23)
    with pytest.raises(PictureError):
        loader(pictures + "nowhere")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_fails_ends_the_epoch_with_one_line(
    pictures: str, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, others = tmp_path / "sa1b", set(multiprocessing.active_children())
    reader = loader(write_sa1b(folder, 6), workers=workers, batch_size=2)
    (folder / "sa_0.jpg").unlink()
    (folder / "sa_0.jpg").mkdir()
    with reader, pytest.raises(PictureError, match=r"cannot read .*sa_0.jpg") as raised:
        names(reader.epoch(0))
    assert "\n" not in str(raised.value) and raised.value.hint
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_are_told_as_they_are(pictures: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.data.loader, "open_source", Unforeseen)
    with loader("broken", workers=workers, batch_size=2) as reader, pytest.raises(FileNotFoundError, match="nobody"):
        names(reader.epoch(0))


class Unforeseen:
    """A source with a defect; here for loader processes to find it."""

    shard_sizes = (9,)

    def __init__(self, spec: str) -> None:
        self.spec = spec

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Sample:
        raise FileNotFoundError("nobody foresaw this")


def test_a_killed_loader_process_is_told_of(pictures: str) -> None:
    others = set(multiprocessing.active_children())
    with loader(pictures, workers=1, batch_size=2) as reader:
        epoch = reader.epoch(0)
        next(epoch)
        (child,) = set(multiprocessing.active_children()) - others
        child.kill()
        with pytest.raises(EdgeSamError, match="a loader process was killed"):
            list(epoch)


READS_UNTIL_KILLED = """
import multiprocessing, sys, time
from test_data_loader import loader
epoch = loader(sys.argv[1], workers=1, batch_size=2).epoch(0)
next(epoch)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_loader_processes_end_with_a_killed_training_process(pictures: str) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    call = [sys.executable, "-c", READS_UNTIL_KILLED, pictures]
    training = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
    with training:
        assert training.stdout
        child = psutil.Process(int(training.stdout.readline()))
        assert child.is_running()
        training.kill()
    patience = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < patience
            time.sleep(0.1)
