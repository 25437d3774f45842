"""Eight simulated devices at once, as ``benchmarks/lab_of_fifty.py`` has fifty."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lab_of_fifty import SCRIPTS, print_visits, run_lab


def test_every_sample_of_eight_devices_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visits = run_lab(8, jobs=2, rounds=20, folder=tmp_path)
    assert [visit.script for visit in visits] == list(SCRIPTS)[:8]
    assert {v.script: (v.refused, [n.status for n in v.launches]) for v in visits if not v.as_scripted()} == {}
    assert sum(visit.kept for visit in visits) == sum(visit.arrived for visit in visits) > 1000
    print_visits(visits)
    assert capsys.readouterr().out.count("| yes |") == 8
