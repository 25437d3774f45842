"""Files around the store: exports that are damaged or foreign, a store that an old version left, a full disk."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_records import a_launch, a_run

from edgesam_mobile.errors import StorageError, UsageError
from edgesam_mobile.lab.records import LaunchRecord, RunRecord
from edgesam_mobile.lab.store import default_store, exchange, open_store
from edgesam_mobile.lab.store.store import Store

HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "measured.sqlite")


@pytest.fixture
def kept() -> RunRecord:
    return a_run(status="complete", tags=("release-1.2",), launches=(a_launch(), a_launch(index=1)))


@pytest.fixture
def exported(tmp_path: Path, kept: RunRecord) -> Path:
    path = tmp_path / "run.jsonl"
    exchange.write(path, kept.id, kept, kept.launches)
    return path


def sealed(path: Path, records: list[dict[str, object]]) -> Path:
    """Write lines with the right count and hash, whatever they say."""
    body = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    end = {"type": "end", "lines": len(records), "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(body + json.dumps(end).encode() + b"\n")
    return path


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()[:-1]]


def test_an_export_is_json_lines_that_say_their_version_first(exported: Path, kept: RunRecord) -> None:
    first, *_, end = [json.loads(line) for line in exported.read_text().splitlines()]
    assert first == {"schema": "edgesam.run/1", "run": kept.id}
    assert end["lines"] == 1 + 1 + 2 * (1 + 15 + 2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_export_is_refused_and_nothing_of_it_taken(
    store: Store, exported: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = exported.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 2))
    damage = data.draw(st.sampled_from(("cut", "flip", "double", "drop")))
    damaged = {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "double": whole[:at] + whole[at : at + 1] * 2 + whole[at + 1 :],
        "drop": whole[:at] + whole[at + 1 :],
    }[damage]
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(damaged)
    with pytest.raises(StorageError) as caught:
        store.import_(path)
    assert "\n" not in caught.value.message and caught.value.hint
    assert store.runs() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is cut off after 0 lines"),
        (b"hello\n", "is no export of runs"),
        (b"[1, 2]\n", "is no export of runs"),
        (b"{" * 100_000 + b"\n", "is no export of runs"),
        (b"\xff\xfe\n", "is no export of runs"),
        (gzip.compress(b"x" * 1000, mtime=0), "is no export of runs"),
        (b'{"schema": "edgesam.bench/1"}\n', "is no export of runs"),
        (b'{"schema": "edgesam.run/2"}\n', "is of a newer version: edgesam.run/2"),
        (b'{"schema": "edgesam.run/1", "run": NaN}\n', "is no export of runs"),
    ],
)
def test_foreign_files_are_refused(store: Store, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=words):
        store.import_(path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: lines[1].update(trained="perhaps"), "a RunRecord whose trained is wrong"),
        (lambda lines: lines[1].pop("model"), "a RunRecord whose model is wrong"),
        (lambda lines: lines[1].update(id="0" * 32), "is no id of the run"),
        (lambda lines: lines[1].update(tags=["two words"]), "cannot be a tag"),
        (lambda lines: lines[2].update(status="great"), "a LaunchRecord whose status is wrong"),
        (lambda lines: lines[2].update(id="../x"), "is no id of a launch"),
        (lambda lines: lines[3].update(ns="quick"), r"a LaunchRecord whose samples.0.ns is wrong"),
        (lambda lines: lines[3].update(ns=2**80), "too large"),
        (lambda lines: lines[4].update(seq=0), "UNIQUE constraint failed"),
        (lambda lines: lines[3].update(type="surprise"), "unexpected type 'surprise'"),
        (lambda lines: lines.pop(1), "is not in the store"),
        (lambda lines: lines.pop(2), "unexpected type 'sample'"),
    ],
)
def test_a_whole_file_that_says_nonsense_is_refused_and_nothing_of_it_taken(
    store: Store, exported: Path, edit: Callable[[list[dict[str, object]]], None], words: str
) -> None:
    lines = records(exported)
    edit(lines)
    with pytest.raises((StorageError, UsageError), match=words):
        store.import_(sealed(exported, lines))
    assert store.runs() == []


def test_missing_files_and_folders_are_refused(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(StorageError, match="cannot read"):
            store.import_(path)


def test_an_export_that_contradicts_the_store_is_refused(store: Store, exported: Path, kept: RunRecord) -> None:
    store.import_(exported)
    lines = records(exported)
    lines[1]["model"] = "another"
    with pytest.raises(StorageError, match=f"run {kept.id} is in the store with other content"):
        store.import_(sealed(exported, lines))
    lines[1]["model"] = kept.model
    lines[3]["ns"] = 1
    with pytest.raises(StorageError, match=f"launch {kept.launches[0].id} is in the store with other content"):
        store.import_(sealed(exported, lines))
    assert store.run(kept.id) == kept


def test_a_later_export_of_a_run_adds_what_was_missing(store: Store, exported: Path, kept: RunRecord) -> None:
    earlier = exported.with_name("earlier.jsonl")
    exchange.write(earlier, kept.id, replace(kept, status="running"), kept.launches[:1])
    store.import_(earlier)
    assert store.run(kept.id).status == "partial"
    taken = store.import_(exported)
    assert (taken.new, taken.added, taken.present) == (False, 1, 1)
    assert store.run(kept.id) == kept


def test_a_tag_that_another_run_has_stays_there(store: Store, exported: Path, kept: RunRecord) -> None:
    here = a_run(tags=("release-1.2",))
    store.begin(here)
    assert store.import_(exported).tags_left == ("release-1.2",)
    assert store.run("release-1.2").id == here.id
    assert store.run(kept.id).tags == ()


def test_an_export_to_a_place_that_cannot_be_written_says_so(store: Store, exported: Path, tmp_path: Path) -> None:
    store.import_(exported)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        store.export("release-1.2", tmp_path / "file" / "run.jsonl")


def test_the_store_that_version_1_left_is_read(tmp_path: Path) -> None:
    """``store_v1.sql`` is a dump of what version 1 wrote; it must stay as it is."""
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript((HERE / "store_v1.sql").read_text())
    connection.close()
    good = a_launch(2, id="2" * 32, check={"passed": True}, result={"applied": "xnnpack"})
    bad = a_launch(1, id="3" * 32, index=1, status="failed", error="the device was lost", samples=())
    expected = a_run(id="1" * 32, status="complete", tags=("release-1.0", "first"), launches=(good, bad))
    assert open_store(path).run("first") == expected


@pytest.mark.parametrize("content", [b"hello, this is no database at all" * 40, b"SQLite format 3\0" + b"\1" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"cannot read .*photo.jpg: file is not a database"):
        open_store(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "where",
    [
        "mysql://user:geheim@host/x",
        "postgresql+psycopg://user:geheim@host/x",
        "sqlite://",
        "postgresql://h:x/y",
        "://",
    ],
)
def test_places_of_other_kinds_are_refused_without_their_password(where: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(where)
    assert "geheim" not in caught.value.message and caught.value.hint


def test_a_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    with pytest.raises(StorageError, match="cannot read postgresql://") as caught:
        open_store("postgresql://user:geheim@127.0.0.1:1/x", patience=1)
    assert "geheim" not in caught.value.message and "\n" not in caught.value.message


def test_the_default_is_a_file_in_the_data_folder_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("EDGESAM_STORE", raising=False)
    assert open_store().name == str(tmp_path / "edgesam-mobile" / "measurements.sqlite")
    monkeypatch.setenv("EDGESAM_STORE", f"sqlite:///{tmp_path}/other file?.sqlite")
    assert default_store() == os.environ["EDGESAM_STORE"]
    monkeypatch.setenv("EDGESAM_STORE", str(tmp_path / "50% of #1?.sqlite"))
    open_store().begin(a_run())
    assert (tmp_path / "50% of #1?.sqlite").stat().st_size > 0


def test_a_store_is_not_made_by_whoever_only_reads(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        open_store(tmp_path / "typo.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_read_while_another_process_writes(store: Store) -> None:
    run = a_run()
    store.begin(run)
    writer = sqlite3.connect(store.name, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE runs SET status = 'partial'")
    assert open_store(store.name, patience=0).run(run.id) == run
    writer.rollback()
    writer.close()


@pytest.mark.parametrize("module", ["sqlalchemy", "alembic", "pg8000"])
def test_what_is_not_installed_is_said_with_the_line_that_installs_it(tmp_path: Path, module: str) -> None:
    where = "postgresql://u@h/x" if module == "pg8000" else str(tmp_path / "measured.sqlite")
    code = f"""
import sys
sys.modules[{module!r}] = None
from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.lab.store import open_store
try:
    open_store({where!r})
except EnvironmentMissing as error:
    print(error.message, error.hint, sep="|")
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parents[1])
    assert told.stdout == f'{module} is not installed|pip install "edgesam-mobile[lab]"\n', told.stderr


def test_a_store_that_was_removed_meanwhile_spills(store: Store, tmp_path: Path) -> None:
    run, launch = a_run(), a_launch()
    store.begin(run)
    Path(store.name).unlink()
    with pytest.raises(StorageError, match=r"unable to open database file.*kept in"):
        store.add_launch(run.id, launch)
    anew = open_store(store.name)
    taken = anew.import_(anew.waiting()[0])
    assert (taken.new, taken.added) == (True, 1)
    assert anew.run(run.id) == replace(run, status="partial", launches=(launch,))


@pytest.mark.parametrize(
    "launch",
    [
        a_launch(hello={"headroom": float("nan")}),
        a_launch(hello={"path": Path("x")}),
        a_launch(error="half \ud800"),
        a_launch(id="Not An Id"),
        replace(a_launch(), samples=(replace(a_launch().samples[0], ns=2**70),)),
    ],
    ids=["nan", "no JSON", "no Unicode", "id", "too large"],
)
def test_what_no_database_can_hold_is_still_kept(store: Store, launch: LaunchRecord) -> None:
    run = a_run()
    store.begin(run)
    with pytest.raises(StorageError, match="kept in"):
        store.add_launch(run.id, launch)
    (spilled,) = store.waiting()
    kept = [json.loads(line) for line in spilled.read_text().splitlines()]
    assert [line["ns"] for line in kept if line.get("type") == "sample"] == [s.ns for s in launch.samples]
    assert store.run(run.id).launches == ()


def test_an_interrupt_while_storing_keeps_the_launch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, launch = a_run(), a_launch()
    store.begin(run)

    def interrupt(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO samples"):
            raise KeyboardInterrupt

    sa.event.listen(store._database.engine, "before_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.add_launch(run.id, launch)
    sa.event.remove(store._database.engine, "before_cursor_execute", interrupt)
    assert store.run(run.id).launches == ()
    store.import_(store.waiting()[0])
    assert store.run(run.id).launches == (launch,)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_full_disk_loses_no_launch(small_disk: Path, temporary: Path) -> None:
    """Neither the store nor the place beside it takes it, so it goes to the temporary folder."""
    store = open_store(small_disk / "measured.sqlite")
    run, first, second = a_run(), a_launch(20), a_launch(2000)
    store.begin(run)
    store.add_launch(run.id, first)
    with pytest.raises(StorageError, match=r"(full|I/O error).*kept in") as caught:
        store.add_launch(run.id, second)
    (spilled,) = temporary.iterdir()
    assert str(spilled) in caught.value.message
    assert store.run(run.id).launches == (first,)
    other = open_store(temporary.parent / "other.sqlite")
    other.import_(spilled)
    assert other.run(run.id).launches == (second,)


def test_a_full_temporary_folder_too_is_said(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    store = open_store(small_disk / "measured.sqlite")
    run = a_run()
    store.begin(run)
    with pytest.raises(StorageError, match="no space left"):
        store.add_launch(run.id, a_launch(2000))


def test_a_limit_on_file_sizes_spills_beside_the_store(tmp_path: Path) -> None:
    """As a quota does: the growing database is refused, a new small file is not."""
    code = f"""
import resource
from store_records import *
from edgesam_mobile.errors import StorageError
from edgesam_mobile.lab.store import open_store
store = open_store({str(tmp_path / "measured.sqlite")!r})
store.begin(a_run(id="a" * 32))
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, {resource.RLIM_INFINITY}))
stored = 0
try:
    while True:
        store.add_launch("a" * 32, a_launch(60, index=stored))
        stored += 1
except StorageError as error:
    print(stored, error.message)
"""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=60,
    )
    stored, _, message = told.stdout.partition(" ")
    assert int(stored) > 0 and "kept in" in message, told.stderr
    store = open_store(tmp_path / "measured.sqlite")
    assert len(store.run("a" * 32).launches) == int(stored)
    (spilled,) = store.waiting()
    store.import_(spilled)
    found = store.run("a" * 32).launches
    assert [launch.index for launch in found] == list(range(int(stored) + 1))
    assert {len(launch.samples) for launch in found} == {300}
