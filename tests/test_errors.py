"""One exit code for each kind of error, as drawn; one line for a person, one object for a program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import call, refusal
from typer.testing import CliRunner, Result

from edgesam_mobile import errors
from edgesam_mobile.cli.command import command
from edgesam_mobile.errors import EdgeSamError

LEAVES = sorted(EdgeSamError.__subclasses__(), key=lambda leaf: leaf.exit_code)
RESERVED = {0, 130, 143}


def run(raised: BaseException | None, *options: str) -> Result:
    """A command that raises, called with these options."""
    app = typer.Typer()

    @command(app, "work", examples=("work",))
    def work() -> None:
        """Do it."""
        if raised is not None:
            raise raised

    return CliRunner().invoke(app, options)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = re.findall(r"^    (?:[├└]── )?(\w+) +(\d+) ", errors.__doc__ or "", flags=re.MULTILINE)
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert {name: int(code) for name, code in drawn} == {value.__name__: value.exit_code for value in classes}
    assert all(value is EdgeSamError or value.__bases__ == (EdgeSamError,) for value in classes)


def test_exit_codes_and_kinds_are_unique_and_leave_the_reserved_ones_free() -> None:
    codes = [EdgeSamError.exit_code, *(leaf.exit_code for leaf in LEAVES)]
    assert len(set(codes)) == len(codes)
    assert not RESERVED & set(codes)
    assert len({leaf.kind for leaf in LEAVES}) == len(LEAVES)


@pytest.mark.parametrize("leaf", [EdgeSamError, *LEAVES], ids=lambda leaf: leaf.__name__)
def test_each_error_ends_a_command_with_its_code_and_one_line(leaf: type[EdgeSamError]) -> None:
    long = "it broke while doing " + "a long thing " * 30
    told = run(leaf(f"{long}to [bold]x[/bold]", hint="mend it"))
    assert told.exit_code == leaf.exit_code
    assert told.stdout == ""
    assert told.stderr == f"error: {long}to [bold]x[/bold] — mend it\n"
    assert run(leaf("it broke"), "--quiet").stderr == "error: it broke\n"


@pytest.mark.parametrize("leaf", [EdgeSamError, *LEAVES], ids=lambda leaf: leaf.__name__)
def test_each_error_is_one_object_in_json_mode(leaf: type[EdgeSamError]) -> None:
    told = run(leaf("it broke", hint="mend it"), "--json")
    assert (told.exit_code, told.stdout) == (leaf.exit_code, "")
    assert json.loads(told.stderr) == {
        "schema": "edgesam.error/1",
        "error": {"kind": leaf.kind, "message": "it broke", "hint": "mend it", "exit_code": leaf.exit_code},
    }


def test_an_unforeseen_error_ends_with_1_and_one_line_that_asks_for_a_report() -> None:
    told = run(ValueError("first line\nsecond line"))
    assert told.exit_code == 1
    hint = "please report it; EDGESAM_DEBUG=1 shows the traceback"
    assert told.stderr == f"error: unexpected ValueError: first line — {hint}\n"
    assert json.loads(run(KeyError(), "--json").stderr)["error"]["message"] == "unexpected KeyError: "


@pytest.mark.parametrize("raised", [errors.PackageError("it broke"), ValueError("it broke")], ids=repr)
def test_tracebacks_are_printed_only_when_asked_for(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGESAM_DEBUG", raising=False)
    assert "Traceback" not in run(raised).output
    monkeypatch.setenv("EDGESAM_DEBUG", "1")
    told = run(raised)
    assert told.stderr.startswith("Traceback")
    assert told.stderr.splitlines()[-1].startswith("error: ")


def test_an_interrupt_ends_with_130() -> None:
    told = run(KeyboardInterrupt())
    assert (told.exit_code, told.stdout) == (130, "")
    assert told.stderr == "interrupted: nothing half-written is left\n"


WAITS = "print('working', flush=True); time.sleep(60)"
# As `bench`, which tells what it has measured and ends by itself.
KEEPS = f"""
    try:
        {WAITS}
    except KeyboardInterrupt:
        print("kept", file=sys.stderr)
        raise typer.Exit(130)
"""
GOES_ON = f"""
    try:
        {WAITS}
    except KeyboardInterrupt:
        print("first", file=sys.stderr, flush=True)
        {WAITS}
"""
CLEAN = "interrupted: nothing half-written is left\n"


def begin(script: Path, work: str) -> subprocess.Popen[str]:
    """A program with one command, which has begun to work."""
    script.write_text(
        "import signal, sys, time, typer\n"
        "from edgesam_mobile.cli.command import command\n"
        "app = typer.Typer()\n"
        # Shells start what runs in the background with interrupts ignored, and tests inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "@command(app, 'work', examples=('work',))\n"
        f"def work() -> None:\n    {work.strip()}\n"
        "app()\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize(
    ("number", "work", "code", "told"),
    [
        (signal.SIGINT, WAITS, 130, CLEAN),
        (signal.SIGTERM, WAITS, 143, CLEAN),
        (signal.SIGINT, KEEPS, 130, "kept\n"),
        (signal.SIGTERM, KEEPS, 143, "kept\n"),
    ],
)
def test_ctrl_c_and_sigterm_end_a_process_cleanly_and_each_with_its_code(
    number: signal.Signals, work: str, code: int, told: str, tmp_path: Path
) -> None:
    with begin(tmp_path / "work.py", work) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (code, told)


def test_a_second_sigterm_is_not_waited_for(tmp_path: Path) -> None:
    with begin(tmp_path / "work.py", GOES_ON) as process:
        assert process.stderr is not None
        process.terminate()
        assert process.stderr.readline() == "first\n"
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


def test_a_command_leaves_signals_as_they_were() -> None:
    run(None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_exit_asked_for_by_the_command_is_kept() -> None:
    assert run(typer.Exit(4)).exit_code == 4
    assert run(None).exit_code == 0


def test_a_wrong_option_ends_with_the_code_of_usage_errors() -> None:
    assert run(None, "--no-such-option").exit_code == errors.UsageError.exit_code


@pytest.mark.parametrize(
    ("words", "message", "path"),
    [
        (("build",), "Missing option '--output' / '-o'", "edgesam-mobile build"),
        (("build", "-o", "x", "--slots", "many"), "Invalid value for '--slots': ", "edgesam-mobile build"),
        (("build", "--no-such-option"), "No such option: --no-such-option", "edgesam-mobile build"),
        (("weights", "fetch"), "Missing argument ", "edgesam-mobile weights fetch"),
        (("verify", "x", "--arithmetic", "other"), "Invalid value for '--arithmetic': ", "edgesam-mobile verify"),
        (("bild",), "No such command 'bild'. Did you mean 'build'?", "edgesam-mobile"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_the_command_line_s_library_refuses_is_told_as_any_other_error(
    words: tuple[str, ...], message: str, path: str
) -> None:
    said = refusal(call(*words), errors.UsageError.exit_code)
    assert said.startswith(f"error: {message}")
    assert said.endswith(f" — `{path} --help` shows what there is")
    told = call(*words, "--json")
    assert (told.exit_code, told.stdout) == (errors.UsageError.exit_code, "")
    record = json.loads(told.stderr)
    assert record["schema"] == "edgesam.error/1"
    assert (record["error"]["kind"], record["error"]["exit_code"]) == ("usage", 2)
    assert record["error"]["message"].startswith(message)


@pytest.mark.parametrize("words", [(), ("weights",)])
def test_a_group_called_without_a_word_shows_its_help(words: tuple[str, ...]) -> None:
    told = call(*words)
    assert told.exit_code == errors.UsageError.exit_code
    assert "Usage: edgesam-mobile" in told.output
    assert "error: " not in told.output


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in ``edgesam-mobile weights list | head -0``: no traceback, no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from edgesam_mobile.cli import main; main()"
    call = [sys.executable, "-c", code, "weights", "list", "--json"]
    told = subprocess.run(call, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert told.stderr == ""
    assert told.returncode == 0
