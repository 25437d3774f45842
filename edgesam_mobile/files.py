"""Writing files so that a crash, a full disk or a second process never leaves half of one behind."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesam_mobile.errors import StorageError

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """The lower-case hexadecimal SHA-256 of a file, or of a folder's relative names and contents, sorted."""
    if path.is_dir():
        digest = hashlib.sha256()
        for member in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{member.relative_to(path).as_posix()}\0{sha256_of(member)}\n".encode())
        return digest.hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files under a folder (an ``.mlpackage`` is a folder)."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line about ``target`` that says what to do.

    Raises:
        StorageError: for any ``OSError`` raised inside.
    """
    try:
        yield
    except OSError as error:
        # Copying a folder gathers its errors, as text, into one without a number.
        if error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
            raise StorageError(f"no space left while writing {target}", hint="free some disk space") from error
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {target}: {reason}", hint="choose another output") from error


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` to write to; it takes ``target``'s place only on success.

    Raises:
        StorageError: the folder cannot be written or the disk is full; ``target`` is then untouched.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with storage_errors(target):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target`` to fill; it takes ``target``'s place only on success.

    A folder already at ``target`` is replaced as a whole, after the new one is complete.

    Raises:
        StorageError: the parent cannot be written or the disk is full; ``target`` is then untouched.
    """
    with storage_errors(target):
        target = target.resolve()  # the folder itself: "." and links cannot be moved aside
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with storage_errors(target):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Put ``new`` at ``target``; the old folder is moved aside first, so that a crash keeps one of the two."""
    if not target.exists():
        new.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.replace(aside / target.name)
        new.replace(target)
    finally:
        if not target.exists():  # refused or interrupted between the two
            (aside / target.name).replace(target)
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
