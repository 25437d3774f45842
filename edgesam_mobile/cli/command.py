"""What every command has in common: ``--json``, ``--quiet``, examples in its help, errors as exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import typer

from edgesam_mobile.cli.output import out
from edgesam_mobile.errors import EdgeSamError

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


def command(app: typer.Typer, name: str, *, examples: tuple[str, ...]) -> Callable[[Function], Function]:
    """Register a function as a command of ``app``.

    Adds ``--json`` and ``--quiet``, shows ``examples`` under the help, and ends the process with the exit
    code of the error that comes out, after printing it in one line. Set ``EDGESAM_DEBUG=1`` for tracebacks.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, **options: Any) -> None:
            out.configure(as_json=as_json, quiet=quiet)
            try:
                function(**options)
            except KeyboardInterrupt:
                out.note("interrupted: nothing half-written is left")
                raise typer.Exit(130) from None
            except EdgeSamError as error:
                _traceback_if_asked()
                out.error(error)
                raise typer.Exit(error.exit_code) from None
            except (typer.Exit, typer.Abort):
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


def _traceback_if_asked() -> None:
    if os.environ.get("EDGESAM_DEBUG"):
        traceback.print_exc()
