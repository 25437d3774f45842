"""What `make setup` does before pip has its turn, with interpreters and packages that only pretend."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from needed_tools import skip_without

ROOT = Path(__file__).resolve().parents[1]
# Takes Ctrl-C even where this process ignores it.
START = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp('make', sys.argv[1:])"
IS_3_11 = 'if [ "$1" = -c ]; then exit 0; fi; mkdir -p .venv/bin; '


def make(folder: Path, python: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """`make` where ``python3.11`` is a script; in a process group of its own, as on a terminal."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3.11").write_text(f"#!/bin/bash\n{IS_3_11}{python}\n")
    (folder / "bin" / "python3.11").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "PIP_EXTRA_INDEX_URL"}
    command = [sys.executable, "-c", START, "make", *words]
    surroundings = kept | {"PATH": path} | environment
    return subprocess.Popen(
        command,
        cwd=folder,
        env=surroundings,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_half_an_environment_is_removed_and_what_is_missing_named(tmp_path: Path) -> None:
    """As Debian's python3.11 leaves one where python3.11-venv is not installed."""
    with make(tmp_path, "touch .venv/bin/python; exit 1", "setup") as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "apt install python3.11-venv" in said
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_setup_leaves_no_half_environment(number: signal.Signals, tmp_path: Path) -> None:
    with make(tmp_path, "touch .venv/bin/python; sleep 60", ".venv/bin/python") as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / ".venv/bin/python").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / ".venv").exists()


PIP = "printf '#!/bin/bash\\necho Collecting this\\n' > .venv/bin/python; chmod +x .venv/bin/python"


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux's torch comes with CUDA")
@pytest.mark.parametrize("index", ["", "anywhere"])
def test_the_way_around_cuda_is_told_before_anything_is_downloaded(index: str, tmp_path: Path) -> None:
    with make(tmp_path, PIP, "setup", PIP_EXTRA_INDEX_URL=index) as process:
        told, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    lines = [line for line in told.splitlines() if "PIP_EXTRA_INDEX_URL" in line]
    assert len(lines) == (0 if index else 1)
    assert told.splitlines()[-1].strip() == "1 this"


def test_the_two_lists_of_versions_agree() -> None:
    """An extra pins what it was proved with for those who install without the constraints; both are one statement."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = dict(
        line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"
    )
    exact = dict(line.lower().split("==") for line in wanted if "==" in line)
    assert exact
    assert exact == {name: pinned.get(name) for name in exact}
    plain = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in wanted} - {"edgesam-mobile"}
    assert plain <= {name.replace("_", "-") for name in pinned}


@pytest.mark.parametrize(("said", "outcome"), [("required", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_tool_skips_a_test_but_not_where_all_tools_must_be_here(
    said: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESAM_TOOLS", said)
    with pytest.raises(outcome, match="no such tool"):
        skip_without("no such tool")
