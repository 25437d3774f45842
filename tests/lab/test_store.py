"""The store, on SQLite and on a real PostgreSQL: what goes in comes out, whole, once, whoever else writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from needed_tools import skip_without
from store_records import CASE, a_launch, a_run, launches, runs
from store_server import Server, programs

from edgesam_mobile.errors import StorageError, UsageError
from edgesam_mobile.lab.records import LaunchRecord, RunRecord
from edgesam_mobile.lab.store import migrate, open_store
from edgesam_mobile.lab.store.connect import connect
from edgesam_mobile.lab.store.owner import Owner
from edgesam_mobile.lab.store.store import Store
from edgesam_mobile.lab.store.tables import metadata

# hypothesis: all examples of a test share its store.
shared_store = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = programs()
    if found is None:
        skip_without("PostgreSQL is not installed: apt install postgresql")
    running = Server(tmp_path_factory.mktemp("pg"), found)
    yield running
    running.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a store can be, and is not yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if request.param == "sqlite":
        return str(tmp_path / "measured.sqlite")
    found: Server = request.getfixturevalue("server")
    return found.new_database()


@pytest.fixture
def store(place: str) -> Store:
    return open_store(place)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return open_store(tmp_path / "other.sqlite")


@contextmanager
def transaction(place: str) -> Iterator[sa.Connection]:
    """Somebody else's writing transaction, which is given up at the end."""
    with connect(place, create=False, patience=5).engine.execution_options(writes=True).connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE launches, runs IN ACCESS EXCLUSIVE MODE")
        else:
            connection.exec_driver_sql("SELECT 1")
        yield connection
        connection.rollback()


def begun(store: Store, *added: LaunchRecord, **changes: object) -> RunRecord:
    run = a_run(**changes)
    store.begin(run)
    for launch in added:
        store.add_launch(run.id, launch)
    return replace(run, launches=added)


@shared_store
@given(run=runs, added=st.lists(launches, max_size=2))
def test_every_run_comes_out_as_it_went_in(store: Store, run: RunRecord, added: list[LaunchRecord]) -> None:
    store.begin(run)
    for launch in added:
        store.add_launch(run.id, launch)
    assert store.run(run.id) == replace(run, launches=tuple(added))


@shared_store
@given(run=runs, added=st.lists(launches, max_size=2))
def test_every_run_survives_an_export_and_an_import(
    store: Store, other: Store, tmp_path: Path, run: RunRecord, added: list[LaunchRecord]
) -> None:
    file = tmp_path / "run.jsonl"
    store.begin(run)
    for launch in added:
        store.add_launch(run.id, launch)
    store.finish(run.id, "complete")
    assert store.export(run.id, file) == replace(run, status="complete")
    taken = other.import_(file)
    assert (taken.new, taken.added, taken.present) == (True, len(added), 0)
    assert other.run(run.id) == replace(run, status="complete", launches=tuple(added))
    again = other.import_(file)
    assert (again.new, again.added, again.present) == (False, 0, len(added))
    assert other.run(run.id) == store.run(run.id)


def test_the_same_launch_again_is_no_double_and_another_of_its_id_is_refused(store: Store) -> None:
    launch = a_launch(hello={"pair": (1, 2)})  # comes back as a list, and is the same all the same
    run = begun(store, launch)
    store.add_launch(run.id, launch)
    (kept,) = store.run(run.id).launches
    assert kept == replace(launch, hello={"pair": [1, 2]})
    with pytest.raises(StorageError, match="with other content"):
        store.add_launch(run.id, replace(launch, samples=launch.samples[:-1]))
    assert store.run(run.id).launches == (kept,)


def test_runs_are_listed_newest_first_and_chosen(store: Store) -> None:
    other = replace(CASE, id="onnx-fp16")
    old = begun(store, a_launch(), created="2026-11-01T00:00:00Z")
    new = begun(store, a_launch(case=other), a_launch(), created="2026-11-02T00:00:00Z", model="mobile-sam")
    listed = store.runs()
    assert [run.id for run in listed] == [new.id, old.id]
    assert listed[0].launches == tuple(replace(launch, samples=(), states=()) for launch in new.launches)
    assert [run.id for run in store.runs(case="onnx-fp16")] == [new.id]
    assert [run.id for run in store.runs(case="tflite-fp16")] == [new.id, old.id]
    assert [run.id for run in store.runs(model="edge-sam-open")] == [old.id]
    assert [run.id for run in store.runs(limit=1)] == [new.id]
    assert store.runs(device="host") == []
    (timed,) = store.launches(new.id, "onnx-fp16", stage="frame")
    assert timed.times("frame") == new.launches[0].times("frame") and not timed.times("encode")


def test_a_run_is_found_by_id_by_its_first_digits_and_by_tag(store: Store) -> None:
    one = begun(store, id="abcd1" + "0" * 27, tags=("release-1.2",))
    two = begun(store, id="abcd2" + "0" * 27)
    assert [store.run(name).id for name in (one.id, "abcd1", "release-1.2")] == [one.id] * 3
    with pytest.raises(UsageError, match="several runs begin with abcd"):
        store.run("abcd")
    for name in ("abcd3", "abc", "release-1.3", "", "%", "ABCD1"):
        with pytest.raises(UsageError, match="no run is called"):
            store.run(name)
    assert store.tag("abcd2", "release-1.2") == (two.id, one.id)
    assert store.run("release-1.2").id == two.id
    assert store.run(one.id).tags == ()
    assert store.tag("abcd2", "release-1.2") == (two.id, None)
    for tag in ("abcd", "", "two words", "-x", "x" * 65):
        with pytest.raises(UsageError, match="cannot be a tag"):
            store.tag(two.id, tag)


def test_a_run_begins_once_and_only_known_runs_end(store: Store) -> None:
    run = begun(store)
    with pytest.raises(UsageError, match="begun before"):
        store.begin(run)
    with pytest.raises(UsageError, match="cannot begin"):
        store.begin(a_run(id="../x"))
    with pytest.raises(UsageError, match="no run"):
        store.finish("0" * 32, "complete")
    store.finish(run.id, "partial")
    assert store.run(run.id).status == "partial"


def test_a_run_whose_process_died_is_partial(store: Store, place: str) -> None:
    run = begun(store)
    dead = in_another_process("store.begin(a_run(id='e' * 32)); store.add_launch('e' * 32, a_launch())", place)
    assert ended(dead) == [0]
    assert {found.id: found.status for found in store.runs()} == {run.id: "running", "e" * 32: "partial"}
    with transaction(place) as connection:
        kept = connection.execute(sa.text("SELECT status FROM runs WHERE id = :id"), {"id": "e" * 32}).scalar()
    assert kept == "running"


def test_owners_on_this_host_are_looked_for_and_others_trusted_for_a_day() -> None:
    me, now = Owner.this_process(), int(time.time())
    assert me.is_alive(now)
    assert not replace(me, started=me.started - 3600).is_alive(now), "a later process with its number"
    elsewhere = replace(me, host="elsewhere")
    assert elsewhere.is_alive(now - 3600)
    assert not elsewhere.is_alive(now - 25 * 3600)


def in_another_process(code: str, place: str, *, patience: float = 30) -> subprocess.Popen[str]:
    """Run ``code`` with an open ``store``; its standard output can be read."""
    prelude = (
        "import os, sys; from store_records import *; from edgesam_mobile.lab.store import open_store\n"
        f"store = open_store({place!r}, patience={patience})\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    command, environment = [sys.executable, "-c", prelude + code], os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def ended(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        process.communicate(timeout=120)
    return [process.returncode for process in processes]


def test_two_processes_that_write_at_once_lose_nothing(place: str) -> None:
    """They even open, and so make, the store at the same moment."""
    code = "store.begin(a_run(id={0!r}))\nfor i in range(8): store.add_launch({0!r}, a_launch(100, index=i))"
    writers = [in_another_process(code.format(digit * 32), place) for digit in "ab"]
    assert ended(*writers) == [0, 0]
    store = open_store(place)
    for digit in "ab":
        launches = store.run(digit * 32).launches
        assert [launch.index for launch in launches] == list(range(8))
        assert {(len(launch.samples), len(launch.states)) for launch in launches} == {(500, 2)}
    assert store.waiting() == []


def test_two_processes_that_store_the_same_launches_store_them_once(store: Store, place: str) -> None:
    run = begun(store)
    code = f"for i in range(10): store.add_launch({run.id!r}, a_launch(20, id=f'launch-{{i}}'))"
    writers = [in_another_process(code, place) for _ in range(2)]
    assert ended(*writers) == [0, 0]
    assert sorted(launch.id for launch in store.run(run.id).launches) == sorted(f"launch-{i}" for i in range(10))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["launches", "samples", "states"])
def test_killed_in_the_middle_of_a_write_leaves_nothing_of_the_launch(store: Store, place: str, table: str) -> None:
    """``table``: the last one that it wrote to."""
    first = a_launch(index=0)
    run = begun(store, first)
    code = f"""
import signal, sqlalchemy as sa
@sa.event.listens_for(store._database.engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if statement.startswith(("INSERT INTO {table} ", "UPDATE {table} ")):
        os.kill(os.getpid(), signal.SIGKILL)
store.add_launch({run.id!r}, a_launch(4000))
"""
    assert ended(in_another_process(code, place)) == [-signal.SIGKILL]
    assert store.run(run.id).launches == (first,)
    store.add_launch(run.id, a_launch())  # and nothing is left locked


@pytest.mark.slow
def test_killed_at_any_moment_leaves_what_was_reported_and_only_whole_launches(store: Store, place: str) -> None:
    run = begun(store)
    code = f"for i in range(10000): store.add_launch({run.id!r}, a_launch(300, index=i)); print(i, flush=True)"
    reported = 0
    for moment in range(3):
        with in_another_process(code, place) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(2 + moment)]
            time.sleep(0.007 * moment)
            writer.kill()
            lines += writer.stdout.read().splitlines()
        reported += len(lines)
        found = store.run(run.id).launches
        assert len(found) in range(reported, reported + moment + 2)
        assert {(len(launch.samples), len(launch.states)) for launch in found} == {(1500, 2)}


def test_a_lock_held_too_long_spills_the_launch_and_import_takes_it_in(store: Store, place: str) -> None:
    impatient = open_store(place, patience=0.3)
    run, launch = begun(impatient), a_launch()
    with transaction(place), pytest.raises(StorageError, match=r"is not in the store .*lock.*kept in") as caught:
        impatient.add_launch(run.id, launch)
    (spilled,) = impatient.waiting()
    assert str(spilled) in caught.value.message and str(spilled) in (caught.value.hint or "")
    assert store.run(run.id).launches == ()
    taken = store.import_(spilled)
    assert (taken.run_id, taken.new, taken.added) == (run.id, False, 1)
    assert store.run(run.id).launches == (launch,)
    assert store.waiting() == []


def test_a_lock_held_for_a_while_is_waited_for(store: Store, place: str) -> None:
    run = begun(store)
    released: list[float] = []
    held = threading.Event()

    def hold() -> None:
        with transaction(place):
            held.set()
            time.sleep(0.5)
            released.append(time.monotonic())

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    store.add_launch(run.id, a_launch())
    assert released and time.monotonic() >= released[0]
    holder.join()
    assert len(store.run(run.id).launches) == 1


def test_a_server_that_goes_away_loses_no_launch(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = open_store(server.new_database(), patience=5)
    run, launch = begun(store), a_launch()
    server.stop()
    try:
        with pytest.raises(StorageError, match="kept in"):
            store.add_launch(run.id, launch)
        with pytest.raises(StorageError, match="cannot read"):
            store.runs()
    finally:
        server.start()
    (spilled,) = store.waiting()
    assert spilled.is_relative_to(tmp_path)
    assert store.import_(spilled).added == 1
    assert store.run(run.id).launches == (launch,)


def test_the_migrations_make_the_tables_that_the_program_uses(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store._database.reading() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_a_database_that_holds_something_else_is_refused_and_left_alone(place: str) -> None:
    database = connect(place, create=True, patience=5)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE guests (name TEXT)")
    with pytest.raises(StorageError, match="is a database, but no store of measurements"):
        open_store(place)
    with database.reading() as connection:
        assert sa.inspect(connection).get_table_names() == ["guests"]


def test_one_process_at_a_time_makes_or_migrates_a_store(place: str) -> None:
    database = connect(place, create=True, patience=5)
    with database.writing() as connection:
        database.alone(connection)
        with pytest.raises(StorageError, match="lock"):
            open_store(place, patience=0.3)
    assert open_store(place).runs() == []


def test_a_newer_store_is_refused(store: Store, place: str) -> None:
    for version in (str(migrate.VERSION + 1), "9f3a"):
        with store._database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '{version}'")
        with pytest.raises(StorageError, match=f"is of version {version}; this edgesam-mobile knows up to") as caught:
            open_store(place)
        assert caught.value.hint == "install a newer edgesam-mobile"


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give this program a version after its newest, whose migration has this body."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    current = migrate.VERSION

    def add(body: str) -> None:
        imports, revision = "import sqlalchemy as sa\nfrom alembic import op\n", f"revision = '{current + 1}'\n"
        step = f"down_revision = '{current}'\ndef upgrade():\n    {body}\n"
        (scripts / "versions" / "next.py").write_text(imports + revision + step)
        monkeypatch.setattr(migrate, "SCRIPTS", scripts)
        monkeypatch.setattr(migrate, "VERSION", current + 1)

    return add


def test_an_older_store_is_migrated_with_what_it_holds(
    store: Store, place: str, next_version: Callable[[str], None]
) -> None:
    run = begun(store, a_launch())
    next_version("op.add_column('runs', sa.Column('note', sa.Text))")
    migrated = open_store(place)
    assert migrated.run(run.id) == store.run(run.id)
    with migrated._database.reading() as connection:
        assert "note" in [column["name"] for column in sa.inspect(connection).get_columns("runs")]


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    store: Store, place: str, next_version: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store, a_launch())
    next_version("op.add_column('runs', sa.Column('note', sa.Text)); op.execute('SELECT nonsense')")
    with pytest.raises(StorageError, match="nonsense"):
        open_store(place)
    monkeypatch.undo()
    assert open_store(place).run(run.id).launches == run.launches
    with store._database.reading() as connection:
        assert "note" not in [column["name"] for column in sa.inspect(connection).get_columns("runs")]


def test_the_newest_migration_is_the_version_that_the_program_knows() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(migrate.SCRIPTS)).get_current_head() == str(migrate.VERSION)


def test_json_that_text_cannot_hold_is_kept(store: Store) -> None:
    odd = json.loads('{"nul": "\\u0000", "half": "\\ud800"}')
    launch = a_launch(hello=odd)
    run = begun(store, launch)
    assert store.run(run.id).launches == (launch,)
