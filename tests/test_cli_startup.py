"""Every command explains itself at once: help with examples, nothing heavy loaded, little CPU time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.models import CommandInfo

from edgesam_mobile.cli import app

HEAVY = {
    *("torch", "coremltools", "executorch", "litert_torch", "ai_edge_litert", "onnx", "onnxruntime", "jax"),
    *("numpy", "PIL", "requests", "safetensors", "psutil", "scipy", "pandas"),
}
# Against the least program that Typer can be: half a second of CPU where that one takes 0.17 s.
# A ratio, since a machine's seconds are nobody's fault.
MOST = 3
LEAST_PROGRAM = """
import typer, sys
app = typer.Typer()
@app.command()
def least(sides: int = typer.Option(1, help="How many.")) -> None:
    "Do nothing."
sys.argv = ["least", "--help"]
app()
"""
HELP = """
import json, sys
try:
    from edgesam_mobile.cli import main
    early = list(sys.modules)
    sys.argv = ["edgesam-mobile", *sys.argv[1:], "--help"]
    main()
finally:
    print(json.dumps({"early": early, "modules": list(sys.modules)}), file=sys.stderr)
"""


def commands(group: typer.Typer, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], CommandInfo]]:
    """Every command under a group, after the words that call it."""
    for info in group.registered_commands:
        yield (*above, info.name or ""), info
    for sub in group.registered_groups:
        if sub.typer_instance is not None:
            # A group without a name adds its commands to the group above.
            yield from commands(sub.typer_instance, (*above, sub.name) if isinstance(sub.name, str) else above)


COMMANDS = dict(commands(app))
each_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def cpu_seconds(*arguments: str) -> float:
    """User and system seconds that the interpreter takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_commands_are_found() -> None:
    assert {("doctor",), ("weights", "fetch")} <= COMMANDS.keys()


@each_command
def test_help_shows_an_example_and_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    told = python("-c", HELP, *command)
    name = " ".join(("edgesam-mobile", *command))
    assert f"$ {name}" in told.stdout, "no example"
    assert "--json" in told.stdout
    assert "--quiet" in told.stdout
    loaded = json.loads(told.stderr)
    assert not HEAVY & set(loaded["modules"])
    # Typer itself loads pydantic to read the command line; the commands must not, before that.
    assert "pydantic" not in loaded["early"]


def test_the_list_of_commands_loads_nothing_heavy() -> None:
    told = python("-c", HELP)
    assert {command[0] for command in COMMANDS} <= set(told.stdout.split())
    assert not HEAVY & set(json.loads(told.stderr)["modules"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("bench",), ("build",)], ids=" ".join)
def test_help_takes_little_cpu_time(command: tuple[str, ...]) -> None:
    """In turns, and the least of each: what else the machine does can only add."""
    turns = [
        [cpu_seconds("-c", *words) for words in (("pass",), (LEAST_PROGRAM,), (HELP, *command))] for _ in range(5)
    ]
    bare, least, ours = (min(times) for times in zip(*turns, strict=True))
    assert ours - bare < MOST * (least - bare)


@each_command
def test_help_says_what_the_command_does_and_what_every_option_is(command: tuple[str, ...]) -> None:
    """Checked on the declarations: the printed help wraps."""
    function = COMMANDS[command].callback
    assert function is not None
    assert (function.__doc__ or "").strip().endswith(".")
    for name, parameter in function.__annotations__.items():
        assert any(getattr(note, "help", None) for note in getattr(parameter, "__metadata__", ())), (
            f"{name} has no help"
        )
