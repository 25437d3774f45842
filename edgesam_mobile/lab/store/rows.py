"""Records as rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from edgesam_mobile.lab.records import (
    CaseRecord,
    DeviceRecord,
    LaunchRecord,
    RunRecord,
    SampleRecord,
    StateRecord,
)
from edgesam_mobile.lab.store.tables import launches, runs, samples, states

_HEAD = ("id", "created", "status", "model", "weights_sha256", "trained", "package_sha256", "settings", "tools")
_LAUNCH = ("id", "status", "started", "ended", "error", "hello", "check", "result")
_CASE = ("format", "precision", "runtime", "delegate", "threads", "bytes", "accuracy", "reference")


def insert_run(connection: sa.Connection, run: RunRecord, owner: Mapping[str, Any]) -> None:
    """Insert a run without its tags and launches; ``owner``: the columns that say who measures it."""
    connection.execute(sa.insert(runs), {name: getattr(run, name) for name in _HEAD} | dict(owner))


def run_record(row: sa.RowMapping, *, tags: Iterable[str]) -> RunRecord:
    """A run without its launches."""
    return RunRecord(**{name: row[name] for name in _HEAD}, tags=tuple(tags))


def insert_launch(connection: sa.Connection, run_id: str, launch: LaunchRecord) -> None:
    """Insert a launch with its samples and states."""
    case, device = launch.case, launch.device
    row = {name: getattr(launch, name) for name in _LAUNCH} | {name: getattr(case, name) for name in _CASE}
    row |= {"run_id": run_id, "round": launch.index, "case_id": case.id, "sha256": list(case.sha256)}
    row |= {"device_key": device.key, "device_kind": device.kind, "device_info": device.info}
    (number,) = connection.execute(sa.insert(launches), row).inserted_primary_key or (None,)
    for table, found in ((samples, launch.samples), (states, launch.states)):
        names = [column.name for column in table.columns][1:]
        rows = [{name: getattr(record, name) for name in names} | {"launch": number} for record in found]
        if rows:
            connection.execute(sa.insert(table), rows)


def launch_record(
    row: sa.RowMapping, found: tuple[SampleRecord, ...] = (), conditions: tuple[StateRecord, ...] = ()
) -> LaunchRecord:
    """A launch with these samples and states."""
    case = CaseRecord(
        id=row["case_id"], sha256=tuple(row["sha256"]), **{name: row[name] for name in _CASE}
    )  # fmt: skip
    device = DeviceRecord(row["device_key"], row["device_kind"], row["device_info"])
    fields = {name: row[name] for name in _LAUNCH}
    return LaunchRecord(
        case=case, device=device, index=row["round"], samples=found, states=conditions, **fields
    )  # fmt: skip


def samples_of(connection: sa.Connection, number: int, stage: str | None) -> tuple[SampleRecord, ...]:
    """Samples of a launch, of one stage or of all, in order of time."""
    columns = [column for column in samples.columns if column.name != "launch"]
    query = sa.select(*columns).where(samples.c.launch == number).order_by(samples.c.seq)
    if stage is not None:
        query = query.where(samples.c.stage == stage)
    return tuple(SampleRecord(*row) for row in connection.execute(query))


def states_of(connection: sa.Connection, number: int) -> tuple[StateRecord, ...]:
    """States of a launch, in order of time."""
    query = sa.select(states.c.seq, states.c.at_ns, states.c.body).where(states.c.launch == number)
    return tuple(StateRecord(*row) for row in connection.execute(query.order_by(states.c.seq)))
