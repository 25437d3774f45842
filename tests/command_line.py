"""The program as a user starts it, and what its refusals have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from edgesam_mobile.cli import app

# Takes Ctrl-C even where this process ignores it. Set in there, since a hook before the start (preexec_fn) would
# fork, which JAX, where a test has loaded it, warns of.
_START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = (sys.executable, "-c", f"{_START}; from edgesam_mobile.cli import main; main()")


def call(*words: object) -> Result:
    """Run the program inside this process, which spares loading torch again."""
    return CliRunner().invoke(app, [str(word) for word in words])


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Run the program in a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def run(*words: object, **environment: str) -> Result:
    """As :func:`call`, but in a process of its own."""
    with start(*words, **environment) as process:
        stdout, stderr = process.communicate(timeout=500)
    return Result(
        CliRunner(), stdout.encode(), stderr.encode(), (stdout + stderr).encode(), None, process.returncode, None
    )


def refusal(told: Result, exit_code: int) -> str:
    """The one line of a refusal, after warnings and progress: what is wrong and what to do about it."""
    assert told.exit_code == exit_code, told.output
    assert told.stdout == ""
    lines = [line for line in told.stderr.splitlines() if not line.startswith(("warning: ", "["))]
    assert len(lines) == 1, told.stderr
    assert lines[0].startswith("error: ")
    assert " — " in lines[0]
    return lines[0]


def entries(folder: Path) -> list[str]:
    """Everything below a folder, hidden things too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
