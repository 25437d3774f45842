"""Keeping native libraries from talking over the program's own output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


@contextmanager
def hushed() -> Iterator[None]:
    """Send what is printed inside (by C++ libraries too) to nowhere, unless ``EDGESAM_DEBUG`` is set.

    Converters and runtimes announce missing processors, untested versions and delegates on standard error while
    they load; none of it is about the user's work, and their real failures arrive as exceptions.
    """
    if os.environ.get("EDGESAM_DEBUG"):
        yield
        return
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        try:
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)
            # Some print through Python's streams, which in a notebook are not the descriptors.
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            for stream in streams:
                stream.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
