"""Bringing a store to this program's version: once, however many processes open it at the same moment."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from edgesam_mobile.errors import StorageError
from edgesam_mobile.lab.store.connect import Database

VERSION = 2
VERSION_TABLE = "edgesam_store_version"
SCRIPTS = Path(__file__).with_name("migrations")


def bring_up_to_date(database: Database) -> None:
    """Make the tables of an empty database, or migrate those of an older version.

    Raises:
        StorageError: the database holds something else, is of a newer version, or cannot be read or written.
    """
    with database.reading() as connection:
        found = _version(connection, database)
    if found == VERSION:
        return
    with database.writing() as connection:
        database.alone(connection)
        # Another process may have done it while this one waited.
        if _version(connection, database) < VERSION:
            _upgrade(connection)
    if found == 0:
        database.share()


def _version(connection: sa.Connection, database: Database) -> int:
    """The version of the store; 0 for an empty database."""
    names = sa.inspect(connection).get_table_names()
    if VERSION_TABLE not in names:
        if names:
            raise StorageError(
                f"{database.name} is a database, but no store of measurements",
                hint="choose another with --store or EDGESAM_STORE",
            )
        return 0
    text = str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar())
    found = int(text) if text.isdecimal() else VERSION + 1
    if found > VERSION:
        raise StorageError(
            f"{database.name} is of version {text}; this edgesam-mobile knows up to {VERSION}",
            hint="install a newer edgesam-mobile",
        )
    return found


def _upgrade(connection: sa.Connection) -> None:
    # Not above: alembic takes a third of a second to load, and nearly always there is nothing to do.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes |= {"connection": connection, "version_table": VERSION_TABLE}
    command.upgrade(config, "head")
