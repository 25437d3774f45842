"""``benchmarks/distill_steps.py`` at its smallest: what it prints, not how fast anything is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = ("--model", "edge-sam-tiny", "--image-size", "256", "--pictures", "1", "--prompts", "2", "--repeats", "1")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(ROOT / "benchmarks" / "distill_steps.py"), *SMALLEST, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=500)


def table(text: str) -> list[list[str]]:
    """Cells of a Markdown table's rows below the line under its head; all rows are as wide as the head."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    assert {len(row) for row in rows} == {len(head)}
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("data", ["generated:8", f"images:{ROOT / 'examples'}"], ids=["generated", "photographs"])
def test_steps_are_compared_and_broken_down_with_their_rates(data: str) -> None:
    done = run(*(("--data", data) if data.startswith("images:") else ()))
    assert done.returncode == 0, done.stderr
    said, *tables = done.stdout.split("\n\n")
    assert data in said
    compared, broken_down = map(table, tables)
    assert [row[0] for row in compared] == [
        "sampling and loss, 2 box prompts", "sampling and loss, 2 point prompts", "stage 1, 1 pictures",
        "stage 2, 2 box prompts",
    ]  # fmt: skip
    rates = [cell.split() for row in compared for cell in row[5:7]] + [row[-1].split() for row in broken_down]
    assert [unit for _, unit in rates] == ["prompts/s"] * 4 + ["images/s"] * 2 + ["prompts/s"] * 2 + [
        "images/s", "prompts/s",
    ]  # fmt: skip
    assert all(float(number) > 0 for number, _ in rates)
    assert [row[0] for row in broken_down] == ["stage 1", "stage 2"]
    for row in broken_down:
        assert sum(int(share.rstrip("%")) for share in row[1:6]) == pytest.approx(100, abs=3)


@pytest.mark.slow
def test_data_that_is_not_there_is_said_in_one_line() -> None:
    done = run("--data", "images:absent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no such file or folder: absent\n"
