"""The store: begins runs, takes in launches as they end, and gives them back. Never loses a measured sample."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from edgesam_mobile.errors import EdgeSamError, StorageError, UsageError
from edgesam_mobile.lab.records import LaunchRecord, RunRecord, RunStatus
from edgesam_mobile.lab.store import exchange, rows
from edgesam_mobile.lab.store.connect import Database, reason
from edgesam_mobile.lab.store.owner import Owner
from edgesam_mobile.lab.store.tables import launches, runs, tags

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LAUNCH_ID = re.compile(r"[a-z0-9-]{1,64}")
_PREFIX = re.compile(r"[0-9a-f]{4,32}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIST = "`edgesam-mobile history` lists the runs"


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        new: the run was not here before.
        added: launches that were not here before.
        present: launches that were.
        tags_left: tags of the file's run that another run has here and keeps.
    """

    run_id: str
    new: bool
    added: int
    present: int
    tags_left: tuple[str, ...] = ()


class Store:
    """Runs with their launches, in one database; made by :func:`edgesam_mobile.lab.store.open_store`.

    Every method raises :class:`StorageError` where the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun: dict[str, RunRecord] = {}

    @property
    def name(self) -> str:
        """Where it is, for people: a file, or a URL without its password."""
        return self._database.name

    def begin(self, run: RunRecord) -> None:
        """Note a run before its first launch; this process is its owner from now on.

        Raises:
            UsageError: it has launches already, is known, or its id or a tag is malformed.
        """
        if run.launches or not _RUN_ID.fullmatch(run.id):
            raise UsageError(f"run {run.id!r:.80} cannot begin: it needs 32 hexadecimal digits and no launches yet")
        owner = Owner.this_process()
        row = {"owner_host": owner.host, "owner_pid": owner.pid, "owner_started": owner.started, "seen": _now()}
        with self._database.writing() as connection:
            if _head(connection, run.id) is not None:
                raise UsageError(f"run {run.id} was begun before", hint="begin another run")
            rows.insert_run(connection, replace(run, status="running"), row)
            for tag in run.tags:
                _set_tag(connection, run.id, tag)
        self._begun[run.id] = replace(run, status="running")

    def add_launch(self, run_id: str, launch: LaunchRecord) -> None:
        """Store a launch with all its samples and states, or nothing of it; a second time it changes nothing.

        Samples and states come back in the order of ``seq``.

        Raises:
            StorageError: it could not be stored. It is then in a file, which the error names and which
                :meth:`import_` takes in.
        """
        try:
            with self._database.writing() as connection:
                _put(connection, run_id, launch)
        except KeyboardInterrupt:
            self._spill(run_id, launch)
            raise
        # Whatever it was, the measurement must survive it.
        except Exception as error:
            why = error.message if isinstance(error, EdgeSamError) else reason(error)
            path = self._spill(run_id, launch)
            raise StorageError(
                f"launch {launch.id} is not in the store ({why}); it is kept in {path}",
                hint=f"later: edgesam-mobile history import {path}",
            ) from error

    def finish(self, run_id: str, status: Literal["complete", "partial"]) -> None:
        """Note how a run ended.

        Raises:
            UsageError: there is no such run.
        """
        with self._database.writing() as connection:
            changed = connection.execute(
                sa.update(runs).where(runs.c.id == run_id).values(status=status, seen=_now())
            ).rowcount
            if not changed:
                raise UsageError(f"no run {run_id} in {self.name}", hint=_LIST)

    def runs(
        self,
        *,
        model: str | None = None,
        case: str | None = None,
        device: str | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """Runs, the newest first, with their launches but without samples and states.

        Args:
            case: only runs that measured the artefact or baseline of this id.
            device: only runs on the device of this key.
        """
        query = sa.select(runs).order_by(runs.c.created.desc(), runs.c.id).limit(limit)
        if model is not None:
            query = query.where(runs.c.model == model)
        for column, wanted in ((launches.c.case_id, case), (launches.c.device_key, device)):
            if wanted is not None:
                query = query.where(runs.c.id.in_(sa.select(launches.c.run_id).where(column == wanted)))
        with self._database.reading() as connection:
            found = connection.execute(query).mappings().all()
            return [
                replace(
                    _shown(connection, row), launches=tuple(map(rows.launch_record, _rows(connection, row["id"])))
                )
                for row in found
            ]

    def run(self, name: str) -> RunRecord:
        """A whole run, by its id, the first four or more digits of it, or its tag.

        Raises:
            UsageError: no run has this name, or several have.
        """
        with self._database.reading() as connection:
            row = _find(connection, name)
            return replace(_shown(connection, row), launches=tuple(_whole(connection, row["id"])))

    def launches(self, run_id: str, case: str, *, stage: str) -> tuple[LaunchRecord, ...]:
        """A run's launches of one case, with the samples of one stage and without states."""
        with self._database.reading() as connection:
            return tuple(
                rows.launch_record(row, rows.samples_of(connection, row["number"], stage))
                for row in _rows(connection, run_id)
                if row["case_id"] == case
            )

    def tag(self, name: str, tag: str) -> tuple[str, str | None]:
        """Give a run a tag; another run that had it loses it.

        Args:
            name: as for :meth:`run`.

        Returns:
            The run's id, and that of the run that lost the tag.

        Raises:
            UsageError: there is no such run, or the tag could be taken for an id or is malformed.
        """
        with self._database.writing() as connection:
            run_id: str = _find(connection, name)["id"]
            return run_id, _set_tag(connection, run_id, tag)

    def export(self, name: str, path: Path) -> RunRecord:
        """Write a run with everything to a JSON Lines file (``exchange.py``); gives the run without launches.

        Args:
            name: as for :meth:`run`.
        """
        with self._database.reading() as connection:
            row = _find(connection, name)
            head = _shown(connection, row)
            exchange.write(path, head.id, head, _whole(connection, head.id))
        return head

    def import_(self, path: Path) -> Imported:
        """Take in an export or a spilled launch: what is missing here is added, all of it or nothing.

        A spilled launch's file is removed from the store's own folder once it is in.

        Raises:
            StorageError: the file is damaged, or contradicts what is here.
        """
        exchange.verify(path)
        run_id, new, added, present, left = "", False, 0, 0, []
        with self._database.writing() as connection:
            self._database.alone(connection)
            for run_id, record in exchange.read(path):
                if isinstance(record, RunRecord):
                    new = _merge(connection, run_id, record)
                    left = [tag for tag in record.tags if not _keep_tag(connection, run_id, tag)]
                elif _put(connection, run_id, record):
                    added += 1
                else:
                    present += 1
        if path.absolute().parent == self._database.spill:
            path.unlink(missing_ok=True)
        return Imported(run_id, new, added, present, tuple(left))

    def waiting(self) -> list[Path]:
        """Files of launches that could not be stored when they were measured, and are not imported yet."""
        return sorted(self._database.spill.glob("*.jsonl"))

    def _spill(self, run_id: str, launch: LaunchRecord) -> Path:
        # The id comes from a caller, and a path must not.
        name = f"launch-{re.sub('[^a-z0-9-]', '_', launch.id)[:64]}.jsonl"
        beside, elsewhere = self._database.spill / name, Path(tempfile.gettempdir()) / f"edgesam-{name}"
        run = self._begun.get(run_id)
        try:
            exchange.write(beside, run_id, run, [launch])
        except StorageError:
            exchange.write(elsewhere, run_id, run, [launch])
            return elsewhere
        return beside


def _now() -> int:
    return int(time.time())


def _head(connection: sa.Connection, run_id: str) -> sa.RowMapping | None:
    return connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().first()


def _find(connection: sa.Connection, name: str) -> sa.RowMapping:
    tagged = sa.select(tags.c.run_id).where(tags.c.name == name)
    if _TAG.fullmatch(name) and (row := connection.execute(tagged).first()) is not None:
        name = row.run_id
    if not _PREFIX.fullmatch(name):
        raise UsageError(f"no run is called {name!r:.80}", hint=_LIST)
    found = connection.execute(sa.select(runs).where(runs.c.id.like(f"{name}%")).limit(2)).mappings().all()
    if not found:
        raise UsageError(f"no run is called {name}", hint=_LIST)
    if len(found) > 1:
        raise UsageError(f"several runs begin with {name}", hint="give more digits")
    return found[0]


def _shown(connection: sa.Connection, row: sa.RowMapping) -> RunRecord:
    """A run without launches; one that nobody measures any more is no longer running."""
    query = sa.select(tags.c.name).where(tags.c.run_id == row["id"]).order_by(tags.c.position)
    run = rows.run_record(row, tags=connection.execute(query).scalars())
    if run.status == "running":
        owned = row["owner_host"] is not None
        alive = owned and Owner(row["owner_host"], row["owner_pid"], row["owner_started"]).is_alive(row["seen"])
        return run if alive else replace(run, status="partial")
    return run


def _rows(connection: sa.Connection, run_id: str) -> list[sa.RowMapping]:
    query = sa.select(launches).where(launches.c.run_id == run_id).order_by(launches.c.number)
    return list(connection.execute(query).mappings())


def _whole(connection: sa.Connection, run_id: str) -> Iterator[LaunchRecord]:
    for row in _rows(connection, run_id):
        number = row["number"]
        yield rows.launch_record(
            row, rows.samples_of(connection, number, None), rows.states_of(connection, number)
        )  # fmt: skip


def _put(connection: sa.Connection, run_id: str, launch: LaunchRecord) -> bool:
    """Add a launch; False if it is there. Touching the run first makes two writers of one launch wait."""
    touched = connection.execute(sa.update(runs).where(runs.c.id == run_id).values(seen=_now())).rowcount
    if not touched:
        raise UsageError(f"its run {run_id!r:.80} is not in the store", hint="import the run first")
    if not _LAUNCH_ID.fullmatch(launch.id):
        raise UsageError(f"{launch.id!r:.80} is no id of a launch")
    query = sa.select(launches).where(launches.c.id == launch.id)
    row = connection.execute(query).mappings().first()
    if row is None:
        rows.insert_launch(connection, run_id, launch)
        return True
    number = row["number"]
    kept = rows.launch_record(row, rows.samples_of(connection, number, None), rows.states_of(connection, number))
    if row["run_id"] != run_id or not exchange.same(kept, launch):
        raise StorageError(f"launch {launch.id} is in the store with other content", hint="one of both is not it")
    return False


def _merge(connection: sa.Connection, run_id: str, run: RunRecord) -> bool:
    """Add a run without launches; False if it is there, which may be complete from now on."""
    if run.id != run_id or not _RUN_ID.fullmatch(run_id):
        raise StorageError(f"{run.id!r:.80} is no id of the run", hint="have it exported again")
    row = _head(connection, run.id)
    if row is None:
        status: RunStatus = "partial" if run.status == "running" else run.status
        rows.insert_run(connection, replace(run, status=status), {})
        return True
    plain = replace(run, status="running", tags=(), launches=())
    if replace(rows.run_record(row, tags=()), status="running") != plain:
        raise StorageError(f"run {run.id} is in the store with other content", hint="one of both is not it")
    if run.status == "complete":
        connection.execute(sa.update(runs).where(runs.c.id == run.id).values(status="complete"))
    return False


def _set_tag(connection: sa.Connection, run_id: str, tag: str) -> str | None:
    if not _TAG.fullmatch(tag) or _PREFIX.fullmatch(tag):
        raise UsageError(
            f"{tag!r:.80} cannot be a tag", hint="letters, digits, dots, dashes; not only what an id is made of"
        )
    before: str | None = connection.execute(sa.select(tags.c.run_id).where(tags.c.name == tag)).scalar()
    if before == run_id:
        return None
    connection.execute(sa.delete(tags).where(tags.c.name == tag))
    last = sa.select(sa.func.coalesce(sa.func.max(tags.c.position), -1)).where(tags.c.run_id == run_id)
    position = connection.execute(last).scalar_one() + 1
    connection.execute(sa.insert(tags), {"name": tag, "run_id": run_id, "position": position})
    return before


def _keep_tag(connection: sa.Connection, run_id: str, tag: str) -> bool:
    """Give an imported run its tag, unless another run has it."""
    holder = connection.execute(sa.select(tags.c.run_id).where(tags.c.name == tag)).scalar()
    if holder is None:
        _set_tag(connection, run_id, tag)
    return holder in (None, run_id)
