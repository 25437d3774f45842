"""What a store that fails, and a host's run without PyTorch, do to the launches that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare_manifest import bare_manifest
from store_records import a_launch, a_run

from edgesam_mobile.cli.bench_devices import StorePlace, kept
from edgesam_mobile.errors import StorageError
from edgesam_mobile.lab.cases import PYTORCH, Case
from edgesam_mobile.lab.host import Prepared
from edgesam_mobile.lab.host_records import HostRecorder
from edgesam_mobile.lab.launch import Launch
from edgesam_mobile.lab.records import LaunchRecord
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.lab.store.store import Store

TFLITE, EAGER = Case("tflite-fp32", "artifact", 1, "tflite"), Case(PYTORCH, "pytorch", 1, "PyTorch")


def full(*_: object) -> None:
    raise StorageError("the disk is full", hint="it is kept in elsewhere.jsonl")


def recorder(*cases: Case) -> tuple[HostRecorder, list[LaunchRecord]]:
    taken: list[LaunchRecord] = []
    prepared = Prepared(Path(), bare_manifest("1" * 64, ("tflite",)), Path(), (0, 0), {c: {} for c in cases}, ())
    return HostRecorder(prepared, taken.append), taken


def test_a_run_with_a_launch_that_is_not_stored_is_partial_and_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, run, stored = StorePlace(str(tmp_path / "store.sqlite")), a_run(), a_launch()
    with kept(place, run) as keep:
        keep(stored)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_launch", full)
            keep(a_launch())
        keep.status = "complete"
    assert open_store(place.where).run(run.id).status == keep.status == "partial"
    assert len(keep.launches) == 2 and "elsewhere.jsonl" in capsys.readouterr().err
    with pytest.raises(StorageError, match="the disk is full"):
        keep.refuse_unstored()


def test_a_store_that_fails_at_the_end_takes_no_result_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept(StorePlace(str(tmp_path / "store.sqlite")), a_run()) as keep:
        keep(a_launch())
        keep.status = "complete"
        monkeypatch.setattr(Store, "finish", full)
    assert len(keep.launches) == 1 and "the disk is full" in capsys.readouterr().err
    with pytest.raises(StorageError):
        keep.refuse_unstored()


def test_a_run_that_is_wholly_stored_is_complete(tmp_path: Path) -> None:
    with kept(StorePlace(str(tmp_path / "store.sqlite")), a_run()) as keep:
        keep(a_launch())
        keep.status = "complete"
    keep.refuse_unstored()
    assert keep.status == "complete"


def test_launches_do_not_wait_for_a_pytorch_that_is_not_to_run() -> None:
    recorded, taken = recorder(TFLITE)
    recorded.take(Launch(TFLITE, 0))
    assert [launch.case.id for launch in taken] == [TFLITE.id]


def test_launches_wait_for_pytorch_and_are_given_out_at_the_end_at_the_latest() -> None:
    recorded, taken = recorder(TFLITE, EAGER)
    recorded.take(Launch(TFLITE, 0))
    recorded.take(Launch(EAGER, 0))  # it failed: there is no mask
    assert taken == []
    recorded.finish()
    assert [launch.case.id for launch in taken] == [TFLITE.id, EAGER.id]
