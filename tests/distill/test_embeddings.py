"""The cache on disk: what goes in comes out within its bound, and whatever does not belong is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from small_teacher import pictures
from torch import Tensor

from distill import embeddings
from distill.embeddings import (
    PREPROCESSING,
    CacheHeader,
    CacheWriter,
    Dtype,
    EmbeddingCache,
    alike,
    fingerprints,
    from_int8,
    to_int8,
)
from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError

HEADER = CacheHeader("a" * 64, "mobile-sam", 64, PREPROCESSING, "float32", "int8", 5, 4)
NAMES = [f"picture {number}.jpg" for number in range(10)]
FRAMES = torch.cat([batch.frames for batch in pictures(10)])
VALUES = (
    torch.randn(10, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    * torch.tensor([0.01, 1, 5, 50, 0])[:, None, None]
)


def fill(folder: Path, count: int = 10, header: CacheHeader = HEADER, shard_size: int = 4) -> Path:
    with CacheWriter(folder, header, shard_size=shard_size) as writer:
        for name, seen, value in list(zip(NAMES, fingerprints(FRAMES), VALUES, strict=True))[:count]:
            if writer.known(name) is None:
                writer.add(name, seen, value)
    return folder


def opened(folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, teacher_sha256="a" * 64, image_size=64)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_embeddings_come_back_in_any_order_within_their_bound(tmp_path: Path, dtype: Dtype) -> None:
    cache = opened(fill(tmp_path / "cache", header=replace(HEADER, dtype=dtype)))
    rows = [7, 0, 9, 7, 3]
    back = cache.get([NAMES[row] for row in rows], FRAMES[rows])
    error = (back - VALUES[rows]).abs().amax((-2, -1))
    spread = VALUES[rows].amax((-2, -1)) - VALUES[rows].amin((-2, -1))
    bound = spread / 508 if dtype == "int8" else VALUES[rows].abs().amax((-2, -1)) * 2**-11
    assert back.dtype == torch.float32
    assert (error <= bound * 1.001).all()
    assert error.max() > 0
    assert len(cache) == 10
    assert "picture 3.jpg" in cache


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
@example(np.array([[0.0, np.finfo(np.float32).max]], np.float32))
def test_the_error_of_int8_is_at_most_half_a_step(channel: np.ndarray) -> None:
    x = torch.from_numpy(channel)[None].double()
    spread = (x.max() - x.min()).item()
    back = from_int8(*to_int8(x.float())).double()
    rounding = 4 * x.abs().max().item() * torch.finfo(torch.float32).eps + 1e-42
    assert bool(back.isfinite().all())
    assert (back - x).abs().max().item() <= spread / 508 + rounding


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_a_constant_channel_is_exact_in_int8(value: float) -> None:
    x = torch.full((1, 3, 3), value)
    assert torch.equal(from_int8(*to_int8(x)), x)


@pytest.mark.parametrize(("dtype", "megabytes"), [("float16", 0.524), ("int8", 0.262)])
def test_a_picture_at_512_takes_the_space_that_is_told(tmp_path: Path, dtype: Dtype, megabytes: float) -> None:
    header = replace(HEADER, image_size=512, dtype=dtype, channels=256, grid=32)
    with CacheWriter(tmp_path / "cache", header) as writer:
        for name, seen in zip(NAMES, fingerprints(FRAMES), strict=True):
            writer.add(name, seen, torch.randn(256, 32, 32))
    total = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert total / 10 / 1e6 == pytest.approx(megabytes, rel=0.02)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_embedding_that_is_not_finite_is_refused_by_its_pictures_name(
    tmp_path: Path, dtype: Dtype, value: float
) -> None:
    bad = VALUES[0].clone()
    bad[2, 1, 1] = value
    with CacheWriter(tmp_path, replace(HEADER, dtype=dtype)) as writer:
        with pytest.raises(EdgeSamError, match=r"picture 0\.jpg holds NaN or infinity"):
            writer.add(NAMES[0], b"", bad)
        assert writer.known(NAMES[0]) is None


def test_values_out_of_float16s_range_are_refused_and_int8_takes_them(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "a", replace(HEADER, dtype="float16")) as writer:
        with pytest.raises(EdgeSamError, match=r"picture 0\.jpg is out of float16's range") as caught:
            writer.add(NAMES[0], b"", VALUES[0] * 1e6)
        assert caught.value.hint == "cache as int8"
    with CacheWriter(tmp_path / "b", HEADER) as writer:
        writer.add(NAMES[0], bytes(48), VALUES[0] * 1e6)


def test_a_writer_goes_on_where_an_earlier_one_stopped(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}
    (tmp_path / ".shard-00002.safetensors.killed.safetensors").write_bytes(b"half")
    (tmp_path / "shard-00002.safetensors").write_bytes(b"whole, but killed before its record was written")
    cache = opened(fill(tmp_path))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob(".shard-*"))
    torch.testing.assert_close(cache.get(NAMES, FRAMES), VALUES, atol=1.0, rtol=0)


def test_what_is_finished_can_be_read_while_the_rest_is_written(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, HEADER, shard_size=2) as writer:
        for name, seen, value in zip(NAMES[:3], fingerprints(FRAMES[:3]), VALUES[:3], strict=True):
            writer.add(name, seen, value)
        cache = opened(tmp_path)
        assert [name in cache for name in NAMES[:3]] == [True, True, False]
        assert cache.get(NAMES[:2], FRAMES[:2]).shape == (2, 5, 4, 4)
    assert len(opened(tmp_path)) == 3


def test_only_a_few_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_OPEN_SHARDS", 2)
    cache = opened(fill(tmp_path, shard_size=1))
    first = cache.get(NAMES, FRAMES)
    assert len(cache._open) == 2
    assert torch.equal(cache.get(NAMES, FRAMES), first)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    cache = opened(fill(tmp_path, 5))
    with pytest.raises(UsageError, match=r"no embedding of picture 5\.jpg") as caught:
        cache.get(NAMES[3:7], FRAMES[3:7])
    assert "teach" in str(caught.value.hint)


@pytest.mark.parametrize(
    "alter",
    [
        lambda frame: frame.flip(-1),
        lambda frame: torch.nn.functional.pad(frame[:, 8:, 8:], (0, 8, 0, 8)),
        lambda frame: (frame.float() * 0.9).to(torch.uint8),
    ],
    ids=["flipped", "cropped", "darker"],
)
def test_an_altered_picture_is_not_answered_with_the_embedding_of_the_original(
    tmp_path: Path, alter: Callable[[Tensor], Tensor]
) -> None:
    cache = opened(fill(tmp_path))
    with pytest.raises(UsageError, match=r"picture 2\.jpg is not the picture"):
        cache.get([NAMES[2]], alter(FRAMES[2])[None])


def test_a_picture_decoded_with_other_rounding_is_the_same_picture() -> None:
    noise = torch.randint(-1, 2, FRAMES.shape, generator=torch.Generator().manual_seed(0))
    other = (FRAMES.int() + noise).clamp(0, 255).to(torch.uint8)
    assert all(alike(a, b) for a, b in zip(fingerprints(FRAMES), fingerprints(other), strict=True))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(_cut, r"bytes instead of"), (_alter, "its sha256 is not the recorded one"), (Path.unlink, "is missing")],
)
def test_a_damaged_shard_is_refused_when_it_is_needed_and_can_be_made_again(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    fill(tmp_path)
    harm(tmp_path / "shard-00001.safetensors")
    cache = opened(tmp_path)
    cache.get(NAMES[:4], FRAMES[:4])
    with pytest.raises(EdgeSamError, match=rf"shard-00001\.safetensors .*{reason}") as caught:
        cache.get([NAMES[4]], FRAMES[4:5])
    assert "delete shard-00001.*" in str(caught.value.hint)
    for path in tmp_path.glob("shard-00001.*"):
        path.unlink()
    torch.testing.assert_close(opened(fill(tmp_path)).get(NAMES, FRAMES), VALUES, atol=1.0, rtol=0)


@pytest.mark.parametrize("content", ["{", "[]", '{"pictures": {}}'])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    fill(tmp_path)
    (tmp_path / "shard-00001.json").write_text(content)
    with pytest.raises(EdgeSamError, match=r"shard-00001\.json"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"teacher_sha256": "b" * 64}, "teacher_sha256 b+, not a+"),
        ({"image_size": 128}, "image_size 128, not 64"),
        ({"preprocessing": "BGR"}, "preprocessing BGR, not RGB"),
        ({"version": 2}, "version 2, this version reads 1"),
        ({"format": "photos"}, "not a cache of embeddings"),
    ],
)
def test_a_cache_of_another_kind_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    rewrite(fill(tmp_path) / "cache.json", **changes)
    with pytest.raises(EdgeSamError, match=reason) as caught:
        opened(tmp_path)
    assert caught.value.hint
    with pytest.raises(EdgeSamError, match=reason):
        fill(tmp_path)


def test_a_header_that_lacks_something_is_refused(tmp_path: Path) -> None:
    header = json.loads((fill(tmp_path) / "cache.json").read_text())
    del header["grid"]
    (tmp_path / "cache.json").write_text(json.dumps(header))
    with pytest.raises(EdgeSamError, match="lacks 'grid'"):
        opened(tmp_path)


def test_one_cache_holds_one_dtype(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with pytest.raises(UsageError, match="dtype int8, not float16"):
        fill(tmp_path, header=replace(HEADER, dtype="float16"))


def test_no_cache_and_a_folder_with_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cache of embeddings"):
        opened(tmp_path / "missing")
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds something else"):
        fill(tmp_path)


def test_a_writer_killed_before_it_wrote_anything_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "write.lock").touch()
    (tmp_path / ".cache.json.half.json").write_text("{")
    assert len(opened(fill(tmp_path))) == 10


def test_a_file_in_the_caches_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        fill(tmp_path / "cache")


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, HEADER), pytest.raises(StorageError, match="another process is writing"):
        fill(tmp_path)
    fill(tmp_path)


def test_a_full_disk_leaves_whole_shards_and_the_cache_can_be_gone_on_with(small_disk: Path) -> None:
    header, folder = replace(HEADER, channels=256, grid=8), small_disk / "cache"
    many = [
        (name, frame[None]) for batch in pictures(40) for name, frame in zip(batch.names, batch.frames, strict=True)
    ]
    with pytest.raises(StorageError, match="no space left"), CacheWriter(folder, header, shard_size=4) as writer:
        for name, frame in many:
            writer.add(name, fingerprints(frame)[0], torch.randn(256, 8, 8))
    cache = opened(folder)
    assert 4 <= len(cache) < 40
    for name, frame in many[: len(cache)]:
        assert cache.get([name], frame).isfinite().all()
    assert not list(folder.glob(".shard-*"))
