"""The one place where commands speak: data to standard output, everything else to standard error.

Three modes. *human*: tables, notes and progress. *json*: one object with a versioned ``schema`` on standard
output and nothing else there. *quiet*: the bare result (a path, a name) and errors only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from edgesam_mobile.errors import EdgeSamError

if TYPE_CHECKING:
    from rich.console import Console

Mode = Literal["human", "json", "quiet"]
Advance = Callable[[str], None]


class Output:
    """A sink for results, notes, warnings, progress and errors; :data:`out` is the process's own."""

    def __init__(self) -> None:
        self.mode: Mode = "human"

    def configure(self, *, as_json: bool, quiet: bool) -> None:
        """Choose the mode for this command; ``--json`` wins over ``--quiet``."""
        self.mode = "json" if as_json else "quiet" if quiet else "human"

    def result(
        self, schema: str, data: dict[str, Any], *, human: Callable[[], None], quiet: Iterable[object] = ()
    ) -> None:
        """Print a command's result once, in the mode asked for.

        Args:
            schema: name and version of the JSON object, such as ``edgesam.verify/1``.
            data: the JSON object, without its schema.
            human: prints the same for a person (through :meth:`table` and :meth:`say`).
            quiet: the bare values that ``--quiet`` prints, one a line.
        """
        if self.mode == "json":
            sys.stdout.write(json.dumps({"schema": schema, **data}, indent=2, default=str) + "\n")
        elif self.mode == "quiet":
            for value in quiet:
                sys.stdout.write(f"{value}\n")
        else:
            human()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
        """Print a table to standard output; columns that hold only numbers align right."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        cells = [[str(cell) for cell in row] for row in rows]
        for index, name in enumerate(columns):
            numeric = bool(cells) and all(_numeric(row[index]) for row in cells)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        self._stdout().print(table)

    def say(self, text: str = "") -> None:
        """Print a line for a person to standard output (part of a result)."""
        self._stdout().print(text, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line about what is going on to standard error; silent unless a person reads."""
        if self.mode == "human":
            self._stderr().print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error, in every mode."""
        self._stderr().print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)

    def error(self, error: EdgeSamError) -> None:
        """Print an error and its hint to standard error; one JSON object in JSON mode."""
        if self.mode == "json":
            record = {
                "kind": error.kind,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            sys.stderr.write(json.dumps({"schema": "edgesam.error/1", "error": record}) + "\n")
            return
        hint = f" — {error.hint}" if error.hint else ""
        self._stderr().print(f"error: {error.message}{hint}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """Show progress with time left; give a function that ends one step and says what it was.

        A live bar on a terminal, one plain line a step elsewhere, nothing in JSON and quiet modes.
        """
        if self.mode != "human":
            yield lambda _: None
        elif not self._stderr().is_terminal:
            yield _plain_steps(self.note, total)
        else:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            with Progress(*columns, console=self._stderr(), transient=True) as bar:
                task = bar.add_task(what, total=total)

                def advance(text: str) -> None:
                    bar.console.print(text, markup=False, highlight=False)
                    bar.advance(task)

                yield advance

    @contextmanager
    def download(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a download with time left; give a function to call with the bytes here and, if known, in all.

        A live bar on a terminal, a plain line every tenth of it elsewhere, nothing in JSON and quiet modes.
        """
        if self.mode != "human":
            yield lambda _done, _total: None
        elif not self._stderr().is_terminal:
            yield _plain_bytes(self.note, what)
        else:
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            with Progress(*columns, console=self._stderr(), transient=True) as bar:
                task = bar.add_task(what, total=None, visible=False)
                yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)

    @property
    def watched(self) -> bool:
        """Whether a person looks on at a terminal."""
        return self.mode == "human" and self._stderr().is_terminal

    @property
    def console(self) -> Console:
        """Standard error, for what changes while it is shown."""
        return self._stderr()

    # Consoles are made at each call: tests and redirections swap the streams underneath. Without emoji, since names
    # come from devices and files: `ios:A:` is not to become a picture.
    def _stdout(self) -> Console:
        from rich.console import Console

        return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, emoji=False)

    def _stderr(self) -> Console:
        from rich.console import Console

        return Console(file=sys.stderr, stderr=True, emoji=False)


def _plain_steps(line: Callable[[str], None], total: int) -> Advance:
    import time

    started, done = time.monotonic(), 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - started) / done * (total - done)
        line(f"[{done}/{total}] {text}" + (f"  (about {left:.0f} s left)" if done < total else ""))

    return advance


def _plain_bytes(line: Callable[[str], None], what: str) -> Callable[[int, int | None], None]:
    tenths = 0

    def advance(done: int, total: int | None) -> None:
        nonlocal tenths
        if total and done * 10 // total > tenths:
            tenths = done * 10 // total
            line(f"{what}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    return advance


def _numeric(cell: str) -> bool:
    return cell in ("", "–") or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())


def number(value: float | None, form: str) -> str:
    """A number for a table, in a format such as ``.4f``; a dash for what was not measured."""
    return "–" if value is None else format(value, form)


out = Output()
