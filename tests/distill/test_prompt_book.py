"""The file of prompts: everything comes back, and a file that was harmed says so."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.data.prompt_book import Found, PromptBook, PromptWriter
from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError

SETTINGS = {"points_per_side": 8}
EMPTY = np.zeros((0, 6), np.float32)


def writer(path: Path, **changes: object) -> PromptWriter:
    options = {"teacher_sha256": "a" * 64, "image_size": 512, "settings": SETTINGS} | changes
    return PromptWriter(path, **options)  # type: ignore[arg-type]


def found(name: str, rows: npt.NDArray[np.float32], mark: bytes = b"\1" * 48) -> Found:
    return name, mark, rows[:, :4], rows[:, 4:]


def some(count: int, first: int = 0) -> list[Found]:
    rng = np.random.default_rng(first)
    return [found(f"{first + i}.jpg", rng.uniform(0, 500, (3, 6)).astype(np.float32)) for i in range(count)]


def filled(path: Path, count: int = 5) -> Path:
    with writer(path) as book:
        book.add(some(count))
    return path


ROWS = st.integers(0, 5).flatmap(
    lambda count: arrays(np.float32, (count, 6), elements=st.floats(0, 5000, width=32, allow_nan=False))
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), ROWS, max_size=5))
def test_prompts_come_back_to_a_hundredth_of_a_pixel(content: dict[str, npt.NDArray[np.float32]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts"
        with writer(path) as book:
            book.add([found(name, rows) for name, rows in content.items()])
        back = PromptBook.open(path)
        assert len(back) == len(content)
        for name, rows in content.items():
            got = back.get(name)
            assert got is not None
            assert (got[0].shape, got[1].shape) == ((len(rows), 4), (len(rows), 2))
            assert got[0].dtype == got[1].dtype == np.float32
            np.testing.assert_allclose(np.hstack(got[:2]), rows, rtol=1e-6, atol=0.0051)


def test_a_picture_without_objects_is_told_from_one_that_was_never_seen(tmp_path: Path) -> None:
    with writer(tmp_path / "prompts") as book:
        book.add([found("blank.jpg", EMPTY)])
    back = PromptBook.open(tmp_path / "prompts")
    blank = back.get("blank.jpg")
    assert blank is not None
    assert len(blank[0]) == len(blank[1]) == 0
    assert "blank.jpg" in back
    assert back.get("other.jpg") is None


def test_a_second_writer_goes_on_and_knows_what_is_there(tmp_path: Path) -> None:
    path = filled(tmp_path / "prompts")
    before = path.read_bytes()
    with writer(path) as book:
        assert book.known("0.jpg") == b"\1" * 48
        assert book.known("5.jpg") is None
        book.add(some(2, first=5))
        assert book.known("6.jpg") is not None
    assert path.read_bytes().startswith(before)
    assert len(PromptBook.open(path)) == 7


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_cut_short_is_refused_by_readers_and_made_anew_by_a_writer(tmp_path: Path, cut: int) -> None:
    path = filled(tmp_path / "prompts")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(EdgeSamError, match="ends within a line") as caught:
        PromptBook.open(path)
    assert "goes on where it stopped" in str(caught.value.hint)
    with writer(path) as book:
        assert book.known("3.jpg") is not None
        assert book.known("4.jpg") is None
        book.add(some(5)[4:])
    assert path.read_bytes() == whole


@settings(max_examples=60)
@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "prompts")
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(EdgeSamError):
            PromptBook.open(path)


@pytest.mark.parametrize("content", [b"", b"dear reader\n", b"\0" * 100, b'{"a": 1}\n'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a file of prompts"):
        PromptBook.open(path)
    with pytest.raises(UsageError, match="is not a file of prompts"), writer(path):
        pass
    assert path.read_bytes() == content
    with pytest.raises(UsageError, match="no file of prompts"):
        PromptBook.open(tmp_path / "missing")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"teacher_sha256": "b" * 64}, "teacher_sha256 a+, not b+"),
        ({"image_size": 1024}, "image_size 512, not 1024"),
        ({"settings": {"points_per_side": 9}}, "settings"),
    ],
)
def test_one_file_holds_one_teachers_prompts(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    path = filled(tmp_path / "prompts")
    with pytest.raises(UsageError, match=reason), writer(path, **changes):
        pass
    assert len(PromptBook.open(path)) == 5


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("distill.data.prompt_book._VERSION", 2)
        filled(tmp_path / "prompts")
    with pytest.raises(EdgeSamError, match="version 2, this version reads 1"):
        PromptBook.open(tmp_path / "prompts")


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    with writer(path), pytest.raises(StorageError, match="another process is writing"), writer(path):
        pass
    with writer(path):
        pass


def test_a_full_disk_leaves_the_file_as_it_was(small_disk: Path) -> None:
    path = filled(small_disk / "prompts")
    before = path.read_bytes()
    with writer(path) as book:
        with pytest.raises(StorageError, match="no space left"):
            book.add(some(5000, first=5))
        assert path.read_bytes() == before
        book.add(some(5, first=5))
    assert len(PromptBook.open(path)) == 10


def test_prompts_of_another_teacher_are_refused_by_who_asks(tmp_path: Path) -> None:
    path = filled(tmp_path / "prompts")
    assert len(PromptBook.open(path, teacher_sha256="a" * 64)) == 5
    with pytest.raises(UsageError, match=r"were made by teacher a{12}, not by b{12}") as refusal:
        PromptBook.open(path, teacher_sha256="b" * 64)
    assert "edgesam-mobile teach" in str(refusal.value.hint)
