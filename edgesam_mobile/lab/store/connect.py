"""Opening a database and holding a transaction: the only place that knows SQLite from PostgreSQL."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from edgesam_mobile.errors import StorageError, UsageError
from edgesam_mobile.files import storage_errors
from edgesam_mobile.lab.store import data_folder

_ANOTHER = "choose another with --store or EDGESAM_STORE"
_LOCK = 0x65646765  # PostgreSQL's advisory locks are numbers; any that nobody else uses


@dataclass(frozen=True)
class Database:
    """A database that holds, or will hold, a store.

    Attributes:
        name: for people: the file, or the URL without its password.
        spill: folder for launches that could not be written.
    """

    engine: sa.Engine
    name: str
    spill: Path

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads.

        Raises:
            StorageError: the database is damaged, gone or no database.
        """
        with self._errors("read"), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is committed as a whole at the end, or not at all.

        Raises:
            StorageError: another process writes for too long, the disk is full, the server is gone.
        """
        with self._errors("write"), self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    def alone(self, connection: sa.Connection) -> None:
        """Wait, in a writing transaction, for others that migrate or import; in SQLite it is alone already."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def share(self) -> None:
        """Let others read while one writes: SQLite's write-ahead log, which the file then keeps."""
        if self.engine.dialect.name == "sqlite":
            try:
                with self.engine.connect() as connection:
                    # The switch is refused inside a transaction, so it goes around SQLAlchemy's.
                    connection.connection.driver_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
            except (sa.exc.OperationalError, sqlite3.OperationalError):
                pass  # in use at this moment; without it they wait for each other, which is as safe

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        # The last two come from values that the database has no place for, before it sees them.
        except (sa.exc.SQLAlchemyError, OSError, OverflowError, UnicodeError) as error:
            raise StorageError(f"cannot {what} {self.name}: {reason(error)}", hint=_ANOTHER) from error


def connect(where: str | Path, *, create: bool, patience: float) -> Database:
    """Prepare to use a file or a URL; see :func:`edgesam_mobile.lab.store.open_store`."""
    text = str(where)
    if "://" not in text:
        return _sqlite(Path(text), create=create, patience=patience)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError("the store's URL cannot be read", hint="such as postgresql://user@host/name") from None
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite" and url.database:
        return _sqlite(Path(url.database), create=create, patience=patience)
    if backend in ("postgresql", "postgres") and driver in ("", "pg8000"):
        return _postgresql(url, patience)
    raise UsageError(
        f"a store cannot be kept at {url.drivername}://…", hint="give a file, or postgresql://user@host/name"
    )


def _sqlite(path: Path, *, create: bool, patience: float) -> Database:
    path = path.expanduser().resolve()
    if not path.exists():
        if not create:
            raise UsageError(
                f"there is no store at {path}", hint="`edgesam-mobile bench` makes it; --store names another"
            )
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def opened() -> sqlite3.Connection:
        # mode=rw: a store that was removed meanwhile is an error, not a new empty one.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=patience, isolation_level=None)
        connection.execute("PRAGMA foreign_keys=ON")
        # A launch that was said to be stored survives a power failure.
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    engine = sa.create_engine("sqlite+pysqlite://", creator=opened, poolclass=NullPool)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and then wants to write is refused at once while another writes; one that
        # says so from the start waits.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return Database(engine, str(path), path.with_name(f"{path.stem}.spill"))


def _postgresql(url: sa.URL, patience: float) -> Database:
    # A connection for each use: one that idles for the minutes of a launch may be cut by then.
    engine = sa.create_engine(
        url.set(drivername="postgresql+pg8000"), poolclass=NullPool, connect_args={"timeout": patience}
    )
    # pg8000 sends one row at a time otherwise.
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A little less than the socket's limit, so that the server says what it waited for.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, int(patience * 900))}")

    name = url.render_as_string(hide_password=True)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return Database(engine, name, data_folder() / f"{url.database}-{digest}.spill")


def reason(error: BaseException) -> str:
    """What went wrong, in one line, in the database's own words."""
    cause = error.orig if isinstance(error, sa.exc.StatementError) and error.orig is not None else error
    first = cause.args[0] if cause.args else None
    if isinstance(first, dict) and "M" in first:  # how pg8000 passes on a server's message
        text = str(first["M"])
    else:
        text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
    return (text.strip().splitlines() or [type(cause).__name__])[0]
