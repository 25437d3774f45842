"""The store of measurements: every run of ``bench`` with its launches and raw samples, in SQLite or PostgreSQL.

``docs/store.md`` says where it lies and what is promised.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgesam_mobile.errors import EnvironmentMissing

if TYPE_CHECKING:
    from edgesam_mobile.lab.store.store import Store

__all__ = ["default_store", "open_store"]


def default_store() -> str:
    """Where measurements are kept: ``EDGESAM_STORE``, else a file in the user's data folder."""
    if chosen := os.environ.get("EDGESAM_STORE"):
        return chosen
    return str(data_folder() / "measurements.sqlite")


def data_folder() -> Path:
    """The user's data folder of this program."""
    import platformdirs

    return Path(platformdirs.user_data_dir("edgesam-mobile"))


def open_store(where: str | Path | None = None, *, create: bool = True, patience: float = 30.0) -> Store:
    """Open a store; an older one is migrated first.

    Args:
        where: a file, a URL such as ``postgresql://user@host/name``, or None for :func:`default_store`.
        create: make the file if it is not there.
        patience: seconds to wait for another process that writes, and for a server's answer.

    Raises:
        UsageError: the URL is of no kind known here, or the file is missing and not to be made.
        StorageError: it cannot be opened, is no store, or was written by a newer version of this program.
        EnvironmentMissing: the ``lab`` extra is not installed.
    """
    try:
        from edgesam_mobile.lab.store.connect import connect
        from edgesam_mobile.lab.store.migrate import bring_up_to_date
        from edgesam_mobile.lab.store.store import Store

        database = connect(default_store() if where is None else where, create=create, patience=patience)
        bring_up_to_date(database)
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"{error.name} is not installed", hint='pip install "edgesam-mobile[lab]"'
        ) from error
    return Store(database)
