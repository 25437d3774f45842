"""What every command has in common: ``--json``, ``--quiet``, examples in its help, errors as exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperGroup

from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import EdgeSamError, UsageError

Function = TypeVar("Function", bound=Callable[..., None])
Arithmetic = Annotated[
    Literal["device-like", "exact"],
    typer.Option(help="Of Core ML, which is interpreted here: device-like rounds half precision, exact does not."),
]

_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print one JSON object with a versioned schema.")],
)
_QUIET = inspect.Parameter(
    "quiet",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--quiet", "-q", help="Print the bare result and errors only.")],
)


INTERRUPTED, TERMINATED = 130, 143  # exit codes, as shells give them: 128 and the signal's number


class Program(TyperGroup):
    """The whole command line. What Typer refuses is told as any other usage error, not in a box of several lines."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, *more, **{**extra, "standalone_mode": False})
        except typer.TyperException as refused:
            out.configure(as_json="--json" in words, quiet="--quiet" in words or "-q" in words)
            # A group called without a word has printed its help, and says nothing more.
            if said := " ".join(refused.format_message().split()).removesuffix("."):
                context = getattr(refused, "ctx", None)
                path = context.command_path if context else self.name
                out.error(UsageError(said, hint=f"`{path} --help` shows what there is"))
            code = UsageError.exit_code
        sys.exit(code or 0)


def command(app: typer.Typer, name: str, *, examples: tuple[str, ...]) -> Callable[[Function], Function]:
    """Register a function as a command of ``app``.

    Adds ``--json`` and ``--quiet``, shows ``examples`` under the help, and ends the process with the exit
    code of the error that comes out, after printing it in one line. Set ``EDGESAM_DEBUG=1`` for tracebacks.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, **options: Any) -> None:
            out.configure(as_json=as_json, quiet=quiet)
            terminated = threading.Event()
            try:
                with _terminable(terminated):
                    function(**options)
            except KeyboardInterrupt:
                out.note("interrupted: nothing half-written is left")
                raise typer.Exit(TERMINATED if terminated.is_set() else INTERRUPTED) from None
            except EdgeSamError as error:
                _traceback_if_asked()
                out.error(error)
                raise typer.Exit(error.exit_code) from None
            except typer.Exit as end:
                # A command that keeps what it has measured ends by itself.
                if terminated.is_set() and end.exit_code == INTERRUPTED:
                    raise typer.Exit(TERMINATED) from None
                raise
            except typer.Abort:
                raise
            except BrokenPipeError:
                # The reader (head, less) has gone; a second write at exit must not complain either.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(0) from None
            except Exception as error:
                _traceback_if_asked()
                text = str(error).strip().splitlines() or [""]
                hint = "please report it; EDGESAM_DEBUG=1 shows the traceback"
                out.error(EdgeSamError(f"unexpected {type(error).__name__}: {text[0]}", hint=hint))
                raise typer.Exit(1) from None

        signature = inspect.signature(function, eval_str=True)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
        combined = signature.replace(parameters=[*parameters, _JSON, _QUIET])
        run.__signature__ = combined  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in combined.parameters.values()}
        epilog = "Examples:\n\n" + "\n\n".join(f"  $ {example}" for example in examples)
        app.command(name, epilog=epilog, no_args_is_help=False)(run)
        return function

    return register


@contextmanager
def _terminable(terminated: threading.Event) -> Iterator[None]:
    """Within it, SIGTERM ends a command as Ctrl-C does, and sets the event; a second one ends it at once.

    Where Python takes no signals (another thread), or somebody else handles or ignores this one, it changes nothing.
    """

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        terminated.set()
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _traceback_if_asked() -> None:
    if os.environ.get("EDGESAM_DEBUG"):
        traceback.print_exc()
