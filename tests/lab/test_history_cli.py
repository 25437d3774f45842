"""``edgesam-mobile history``: lists, exports, imports and tags, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from command_line import refusal
from store_records import CASE, DEVICE, a_launch, a_run
from typer.testing import CliRunner, Result

from edgesam_mobile.cli import history
from edgesam_mobile.errors import StorageError
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.lab.store.store import Store

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(history.app, name="history")

TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
COUNT, MAYBE = {"type": "integer", "minimum": 0}, {"type": ["number", "null"]}


def closed(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


RUN = {
    "id": TEXT,
    "created": TEXT,
    "model": TEXT,
    "trained": {"type": "boolean"},
    "devices": TEXTS,
    "cases": TEXTS,
    "launches": COUNT,
    "status": {"enum": ["running", "complete", "partial"]},
    "tags": TEXTS,
}
TIMING = {
    "run": TEXT,
    "created": TEXT,
    "device": TEXT,
    "delegate": {"type": ["string", "null"]},
    "threads": MAYBE,
    "launches": COUNT,
    "frames": COUNT,
    "p50_ms": MAYBE,
    "p90_ms": MAYBE,
    "tags": TEXTS,
}
HISTORY = closed(
    {
        "schema": {"const": "edgesam.history/1"},
        "store": TEXT,
        "runs": {"type": "array", "items": closed(RUN)},
        "case": TEXT,
        "timings": {"type": "array", "items": closed(TIMING)},
    },
    *("case", "timings"),
)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store where the environment says."""
    monkeypatch.setenv("EDGESAM_STORE", str(tmp_path / "measured.sqlite"))
    return open_store()


@pytest.fixture
def filled(store: Store) -> Store:
    """Two runs: one of this morning with two cases, and one of yesterday on another device."""
    old = a_run(id="aaaa1" + "0" * 27, created="2026-11-24T08:00:00Z", tags=("release-1.2",))
    new = a_run(id="bbbb2" + "0" * 27, created="2026-11-25T08:00:00Z", trained=False)
    host = replace(DEVICE, key="host", kind="host")
    store.begin(old)
    store.add_launch(old.id, a_launch(10, device=host))
    store.finish(old.id, "complete")
    store.begin(new)
    for index in range(2):
        store.add_launch(new.id, a_launch(100, index=index))
        store.add_launch(new.id, a_launch(case=replace(CASE, id="onnx-fp16"), index=index))
    store.add_launch(new.id, a_launch(50, index=2, status="failed", error="the device was lost"))
    return store


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["history", *map(str, words)])


def data(*words: object) -> dict[str, Any]:
    told = call(*words, "--json")
    assert told.exit_code == 0, told.output
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def table(told: Result) -> list[list[str]]:
    """Cells of a table; those of one row are two blanks apart."""
    assert told.exit_code == 0, told.output
    lines = [line for line in told.stdout.splitlines() if line.strip() and "─" not in line]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_runs_are_listed_with_what_tells_them_apart(filled: Store) -> None:
    header, new, old = table(call())
    assert header == ["run", "date", "model", "devices", "cases", "launches", "status", "tags"]
    assert new == ["bbbb2000", "2026-11-25 08:00", "edge-sam-open (untrained)", "adb:R58M", "2", "5", "running"]
    assert old == ["aaaa1000", "2026-11-24 08:00", "edge-sam-open", "host", "1", "1", "complete", "release-1.2"]
    assert table(call("list")) == [header, new, old]
    assert table(call("--device", "host")) == [header, old]
    assert table(call("--limit", "1")) == [header, new]


def test_one_case_has_its_times_in_every_run(filled: Store) -> None:
    header, new, old = table(call("--case", "tflite-fp16"))
    assert header[-5:] == ["launches", "frames", "p50 ms", "p90 ms", "tags"]
    # 100 frames of 1.000004, 1.000009 … milliseconds in each of two launches; the failed one does not count.
    assert new == ["bbbb2000", "2026-11-25 08:00", "adb:R58M", "xnnpack", "4", "2", "200", "1.00", "1.00"]
    assert old[-5:] == ["1", "10", "1.00", "1.00", "release-1.2"]
    (timed,) = data("--case", "tflite-fp16", "--device", "host")["timings"]
    assert timed["p50_ms"] == pytest.approx(1.0000265, abs=1e-9)
    assert timed["p90_ms"] == pytest.approx(1.0000445, abs=1e-9)
    assert len(table(call("--case", "onnx-fp16"))) == 2
    assert call("--case", "none").stdout.startswith("no such runs in ")


def test_json_keeps_to_its_schema_and_quiet_prints_ids(filled: Store) -> None:
    for words in ((), ("--case", "tflite-fp16"), ("--model", "none")):
        jsonschema.validate(data(*words), HISTORY)
    assert [run["id"][:5] for run in data()["runs"]] == ["bbbb2", "aaaa1"]
    assert call("--quiet").stdout.split() == ["bbbb2" + "0" * 27, "aaaa1" + "0" * 27]


def test_a_run_goes_to_another_store_and_back(filled: Store, tmp_path: Path) -> None:
    file, other = tmp_path / "run.jsonl", tmp_path / "other.sqlite"
    assert call("export", "release-1.2", file, "--quiet").stdout == f"{file}\n"
    assert data("export", "aaaa1", file) == {
        "schema": "edgesam.history.export/1",
        "path": str(file),
        "run": "aaaa1" + "0" * 27,
        "bytes": file.stat().st_size,
    }
    told = call("import", file, "--store", other)
    assert told.stdout == "new run aaaa1000: 1 launches added, 0 were there\n"
    assert data("import", file, "--store", other) == {
        "schema": "edgesam.history.import/1",
        "run": "aaaa1" + "0" * 27,
        "new": False,
        "launches_added": 0,
        "launches_present": 1,
        "tags_left": [],
    }
    assert open_store(other).run("release-1.2") == filled.run("release-1.2")


def test_a_tag_is_given_and_moved(filled: Store) -> None:
    assert call("tag", "bbbb2", "best").stdout == "best is bbbb2000\n"
    assert call("tag", "bbbb2", "release-1.2").stdout == "release-1.2 is bbbb2000, no longer aaaa1000\n"
    assert data("tag", "aaaa1", "best") == {
        "schema": "edgesam.history.tag/1",
        "tag": "best",
        "run": "aaaa1" + "0" * 27,
        "before": "bbbb2" + "0" * 27,
    }
    assert filled.run("best").id == "aaaa1" + "0" * 27


def test_an_imported_tag_that_is_taken_is_warned_of(filled: Store, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    filled.export("release-1.2", file)
    filled.tag("bbbb2", "release-1.2")
    told = call("import", file)
    assert told.stderr == "warning: another run here is tagged release-1.2 and stays so\n"


def test_launches_that_wait_for_being_imported_are_told_of(filled: Store) -> None:
    with pytest.raises(StorageError):
        filled.add_launch("0" * 32, a_launch())
    (waiting,) = filled.waiting()
    told = call("--quiet")
    assert told.stderr == f"warning: launches not in the store yet: edgesam-mobile history import {waiting}\n"


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("export", "cccc", "run.jsonl"), 2, "no run is called cccc"),
        (("tag", "aaaa1", "two words"), 2, "'two words' cannot be a tag"),
        (("--store", "missing.sqlite"), 2, "there is no store at"),
        (("--store", "mysql://host/x"), 2, "a store cannot be kept at mysql://"),
        (("import", "missing.jsonl"), 12, "cannot read missing.jsonl"),
        (("export", "aaaa1", "measured.sqlite/x"), 12, "cannot write measured.sqlite/x"),
    ],
)
def test_refusals_are_one_line_with_a_hint(
    filled: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    exit_code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(call(*words), exit_code)


def test_help_names_every_command_and_a_misspelt_one_is_refused() -> None:
    told = call("--help")
    assert told.exit_code == 0 and {"list", "export", "import", "tag"} <= set(told.stdout.split())
    assert call("-h").stdout == told.stdout
    assert call("exprot").exit_code == 2
