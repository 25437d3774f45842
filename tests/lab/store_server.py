"""A PostgreSQL server of the tests' own: a fresh cluster, reached by a Unix socket in its folder only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import sqlalchemy as sa

_USER = "nobody"  # the server refuses to run as root
_TRIES = 5


def programs() -> Path | None:
    """The folder of the newest PostgreSQL server installed: Debian keeps it off PATH."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in folders), key=lambda path: float(path.parent.name), default=None)


class Server:
    """A cluster in an empty folder that it may keep."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._numbers = count()
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        self._call("initdb", "-D", "data", "-U", "lab", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        self._call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a power failure does."""
        self._call("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://lab@/{database}?unix_sock={self._folder}/.s.PGSQL.5432"

    def new_database(self) -> str:
        """Make an empty database; gives its URL."""
        name = f"store_{next(self._numbers)}"
        url = self.url("postgres").replace("postgresql:", "postgresql+pg8000:")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def _call(self, program: str, *words: str) -> None:
        as_user = {"user": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
        # To a file: the server would hold a pipe open.
        told = self._folder / "calls"
        for _ in range(_TRIES):
            self._let_through()
            with told.open("w") as stream:
                done = subprocess.run(
                    [self._programs / program, *words],
                    cwd=self._folder, stdout=stream, stderr=stream, timeout=60, **as_user,
                )  # type: ignore[call-overload]  # fmt: skip
            if done.returncode == 0:
                return
        raise AssertionError(told.read_text())

    def _let_through(self) -> None:
        """Let the server's user reach the folder. Every pytest that starts closes the upper ones again."""
        if os.geteuid() == 0:
            for above in self._folder.parents:
                if above == Path(tempfile.gettempdir()):
                    break
                above.chmod(above.stat().st_mode | 0o011)
