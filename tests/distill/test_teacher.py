"""Teachers: loaded frozen and folded, answering from the cache as from the encoder, and writing what they see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_teacher import EVERY_MASK, SIDE, PoolingEncoder, pictures, small_teacher
from torch import Tensor, nn

from distill.data.batch import Batch, normalise
from distill.data.prompt_book import PromptBook
from distill.embeddings import EmbeddingCache
from distill.teacher import Teacher, open_teacher, write_cache
from edgesam_mobile.errors import EdgeSamError, UsageError
from edgesam_mobile.model.load import load_model

HERE = Path(__file__).parent


def seen(teacher: Teacher) -> int:
    encoder = teacher.model.image_encoder
    assert isinstance(encoder, PoolingEncoder)
    return encoder.seen


def cached(teacher: Teacher, folder: Path) -> Teacher:
    cache = EmbeddingCache(folder, teacher_sha256="a" * 64, image_size=SIDE)
    return Teacher(teacher.model, cache)


@pytest.fixture(scope="module")
def standin_teacher(standin_file: Path) -> Teacher:
    return open_teacher(str(standin_file), image_size=512)


@pytest.fixture(scope="module")
def cat_batch(cat_at_512: Tensor) -> Batch:
    """Any picture will do."""
    frames = (cat_at_512 * 50 + 120).clamp(0, 255).to(torch.uint8)
    return Batch(["cat.jpg"], frames, torch.tensor([[340, 512]]))


def test_an_opened_teacher_is_frozen_folded_and_the_same_function(
    standin_file: Path, standin_teacher: Teacher, cat_batch: Batch
) -> None:
    embedding = standin_teacher.embed(cat_batch)
    assert (embedding.shape, embedding.dtype) == ((1, 256, 32, 32), torch.float32)
    assert not embedding.requires_grad
    model = standin_teacher.model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    plain = load_model(standin_file, image_size=512)
    with torch.no_grad():
        expected = plain.image_encoder(normalise(plain, cat_batch))
    assert (embedding - expected).abs().max() <= 1e-5 * expected.abs().max()
    decoder = plain.mask_decoder.state_dict()
    assert all(torch.equal(value, decoder[key]) for key, value in model.mask_decoder.state_dict().items())


def test_an_embedding_can_be_the_target_of_a_loss_with_gradients(standin_teacher: Teacher, cat_batch: Batch) -> None:
    student = torch.zeros(1, 256, 32, 32, requires_grad=True)
    nn.functional.mse_loss(student * 2, standin_teacher.embed(cat_batch)).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_bfloat16_gives_about_the_same(standin_teacher: Teacher, cat_batch: Batch) -> None:
    exact = standin_teacher.embed(cat_batch)
    rough = Teacher(standin_teacher.model, precision="bfloat16").embed(cat_batch)
    assert rough.dtype == torch.float32
    difference = (rough - exact).norm() / exact.norm()
    assert 0 < difference < 0.05


def test_augmentation_and_a_cache_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="augments them") as caught:
        open_teacher("mobile-sam", image_size=512, cache=str(tmp_path), augmented=True)
    assert "cache" in str(caught.value.hint)


def test_a_file_teachers_cache_replaces_its_encoder(
    standin_file: Path, standin_teacher: Teacher, cat_batch: Batch, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    write_cache(standin_teacher, [cat_batch], folder, dtype="float16")
    reader = open_teacher(str(standin_file), image_size=512, cache=str(folder))
    assert not list(reader.model.image_encoder.parameters())
    torch.testing.assert_close(reader.embed(cat_batch), standin_teacher.embed(cat_batch), rtol=2**-10, atol=1e-6)
    with pytest.raises(UsageError, match="made with image_size 512, not 1024"):
        open_teacher(str(standin_file), image_size=1024, cache=str(folder))
    with pytest.raises(UsageError, match="cannot write one"):
        write_cache(reader, [cat_batch], tmp_path / "other")


def test_cached_embeddings_are_the_encoders_within_the_quantisers_bound(tmp_path: Path) -> None:
    teacher = small_teacher()
    summary = write_cache(teacher, pictures(10), tmp_path / "cache", shard_size=3)
    assert (summary.embedded, summary.kept, summary.corrupt) == (10, 0, [])
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    reader = cached(teacher, tmp_path / "cache")
    for batch in pictures(10, batch_size=3):
        exact, read = teacher.embed(batch), reader.embed(batch)
        spread = exact.amax((-2, -1)) - exact.amin((-2, -1))
        assert ((exact - read).abs().amax((-2, -1)) <= spread / 507 + 1e-6).all()


def test_every_picture_is_embedded_once_for_both_and_never_again(tmp_path: Path) -> None:
    teacher, progress = small_teacher(), list[int]()
    both = {"folder": tmp_path / "cache", "prompts": tmp_path / "prompts", "settings": EVERY_MASK}
    first = write_cache(teacher, pictures(10), on_progress=progress.append, **both)  # type: ignore[arg-type]
    assert progress == [4, 8, 10]
    assert seen(teacher) == 10
    again = write_cache(teacher, pictures(10), **both)  # type: ignore[arg-type]
    assert seen(teacher) == 10
    assert (again.embedded, again.kept, again.bytes) == (0, 10, first.bytes)
    more = write_cache(teacher, pictures(12), **both)  # type: ignore[arg-type]
    assert (more.embedded, more.kept) == (2, 10)
    book = PromptBook.open(tmp_path / "prompts")
    assert len(book) == 12
    assert sum(len(got[0]) for name in book if (got := book.get(name))) == first.prompts + more.prompts
    assert {name for name in book if not len((book.get(name) or ([],))[0])} == {
        *first.without_prompts,
        *more.without_prompts,
    }


def test_prompts_can_be_added_to_a_cache_and_made_without_one(tmp_path: Path) -> None:
    teacher = small_teacher()
    write_cache(teacher, pictures(4), tmp_path / "cache")
    write_cache(teacher, pictures(4), tmp_path / "cache", prompts=tmp_path / "one", settings=EVERY_MASK)
    write_cache(teacher, pictures(4), None, prompts=tmp_path / "two", settings=EVERY_MASK)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert len(EmbeddingCache(tmp_path / "cache", teacher_sha256="a" * 64, image_size=SIDE)) == 4


def test_prompts_are_in_pixels_of_the_published_picture(tmp_path: Path) -> None:
    books = []
    for factor in (1, 2):
        batches = [replace(batch, originals=factor * batch.sizes) for batch in pictures(4)]
        path = tmp_path / f"times {factor}"
        write_cache(small_teacher(), batches, None, prompts=path, settings=EVERY_MASK)
        books.append(PromptBook.open(path))
    assert list(books[0]) == list(books[1])
    count = 0
    for name in books[0]:
        small, large = books[0].get(name), books[1].get(name)
        assert small is not None
        assert large is not None
        np.testing.assert_allclose(2 * np.hstack(small[:2]), np.hstack(large[:2]), atol=0.011)
        assert (large[0][:, 2:] <= [2 * SIDE, 2 * SIDE * 3 // 4]).all()
        count += len(small[0])
    assert count > 0


def test_prompts_need_to_know_how_large_the_pictures_are(tmp_path: Path) -> None:
    batches = [replace(batch, originals=None) for batch in pictures(4)]
    with pytest.raises(UsageError, match="how large"):
        write_cache(small_teacher(), batches, None, prompts=tmp_path / "prompts")


@pytest.mark.parametrize("batch_size", [1, 8], ids=["in different batches", "in one batch"])
def test_two_pictures_of_one_name_are_refused(tmp_path: Path, batch_size: int) -> None:
    batches = list(pictures(6, batch_size=batch_size))
    batches[-1].names[-1] = "picture 2.jpg"
    with pytest.raises(UsageError, match=r"two different pictures are named picture 2\.jpg"):
        write_cache(small_teacher(), batches, tmp_path / "cache")


def test_a_picture_that_comes_again_is_embedded_once(tmp_path: Path) -> None:
    teacher = small_teacher()
    summary = write_cache(teacher, [*pictures(4), *pictures(4)], tmp_path / "cache")
    assert (summary.embedded, summary.kept, seen(teacher)) == (4, 4, 4)
    (twice,) = pictures(4)
    twice = Batch(twice.names * 2, twice.frames.repeat(2, 1, 1, 1), twice.sizes.repeat(2, 1))
    assert write_cache(small_teacher(), [twice], tmp_path / "other").embedded == 4


def test_corrupt_pictures_are_counted_by_name(tmp_path: Path) -> None:
    batches = list(pictures(6))
    batches[1].corrupt.append(("bad.jpg", "cut short"))
    summary = write_cache(small_teacher(), batches, tmp_path / "cache")
    assert summary.corrupt == [("bad.jpg", "cut short")]
    assert summary.embedded == 6


def test_an_encoder_that_diverges_is_told_by_the_pictures_name(tmp_path: Path) -> None:
    teacher = small_teacher()
    with torch.no_grad():
        teacher.model.image_encoder.mix.bias[3] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(EdgeSamError, match=r"picture 0\.jpg holds NaN"):
        write_cache(teacher, pictures(4), tmp_path / "cache")


def test_a_killed_writer_loses_no_finished_shard_and_is_gone_on_with(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1])))}
    command = [sys.executable, str(HERE / "small_teacher.py"), str(tmp_path)]
    with subprocess.Popen(command, env=environment) as process:
        wait_until(lambda: len(list((tmp_path / "cache").glob("shard-*.json"))) >= 2 or process.poll() is not None)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    finished = {path: path.read_bytes() for path in (tmp_path / "cache").glob("shard-*.json")}
    finished |= {path.with_suffix(".safetensors"): path.with_suffix(".safetensors").read_bytes() for path in finished}
    teacher = small_teacher()
    summary = write_cache(
        teacher, pictures(40), tmp_path / "cache", shard_size=8, prompts=tmp_path / "prompts", settings=EVERY_MASK
    )
    assert summary.kept >= 12  # prompts follow each shard: those of its last batch may be missing
    assert summary.embedded + summary.kept == 40
    assert {path: path.read_bytes() for path in finished} == finished
    unbroken = tmp_path / "unbroken"
    write_cache(teacher, pictures(40), unbroken, shard_size=8, prompts=tmp_path / "other", settings=EVERY_MASK)
    assert set(PromptBook.open(tmp_path / "other")) <= set(PromptBook.open(tmp_path / "prompts"))
    for batch in pictures(40):
        resumed, whole = cached(teacher, tmp_path / "cache"), cached(teacher, unbroken)
        assert torch.equal(resumed.embed(batch), whole.embed(batch))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
