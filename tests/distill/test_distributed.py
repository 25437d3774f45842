"""Two processes on CPU (gloo) compute what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import curve, feed, recipe, trainer

from distill.distributed import World, processes
from distill.log import RunLog
from distill.update import Updater
from edgesam_mobile.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def together(*arguments: object) -> list[str]:
    """Run a Python program in two processes; gives what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "distill"))),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    return [stdout for stdout, _ in told]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "portions"])
def test_two_processes_with_unequal_shares_equal_one(tmp_path: Path, mode: str) -> None:
    """The same pictures a step, three in one process and one in the other. The student has no batch norm: without
    SyncBatchNorm, which needs CUDA, each process has the statistics of its own share."""
    alone = trainer(tmp_path / "one", recipe(batch_size=4, ema=0.5, steps=5), feed(4))
    weights = alone.train().weights
    main, other = together(ROOT / "tests" / "distill" / "two_processes.py", tmp_path / "two", mode)
    assert "step 5/5" in main
    assert other == ""
    entries = RunLog(tmp_path / "two" / "log.jsonl").entries()
    two = [(e["step"], e["loss"], e["gradient_norm"], e["lr"]) for e in entries]
    torch.testing.assert_close(torch.tensor(two), torch.tensor(curve(alone)), rtol=1e-5, atol=1e-6)
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"weights {rank}.pt"), weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_where_one_process_has_no_picture_both_skip_the_step(tmp_path: Path) -> None:
    main, other = together(ROOT / "tests" / "distill" / "two_processes.py", tmp_path / "two", "one has nothing")
    entries = RunLog(tmp_path / "two" / "log.jsonl").entries()
    assert [e["bad_steps"] for e in entries] == [0, 1, 1, 1, 1]
    assert [e["newly_corrupt"] for e in entries] == [{}, {"x.jpg": "cut short"}, {}, {}, {}]
    assert "warning: skipped x.jpg: cut short" in main and other == ""
    ends = [(tmp_path / f"corrupt {rank}").read_text() for rank in (0, 1)]
    assert ends == ["1 of 20 pictures could not be used: x.jpg (cut short)"] * 2
    one, two = (torch.load(tmp_path / f"weights {rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_alone_nothing_is_communicated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as world:
        assert (world.rank, world.size, world.main) == (0, 1, True)
        assert world.gather("x") == ["x"]
        assert world.share("x") == "x"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 but RANK is not set"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many', not a whole number"),
    ],
)
def test_variables_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=told), processes():
        pytest.fail("began anyway")


def test_batch_statistics_over_processes_need_cuda(tmp_path: Path) -> None:
    built = trainer(tmp_path, recipe())
    with pytest.raises(UsageError, match="sync_batch_norm works on CUDA only"):
        Updater(built.stage, recipe("run.sync_batch_norm=true"), World(0, 2, torch.device("cpu")))
