"""The command line. ``app`` is the Typer application; ``main`` is the console script's entry."""

from __future__ import annotations

import os

import typer

from edgesam_mobile import __version__
from edgesam_mobile.cli import (
    bench,
    build,
    compare,
    devices,
    distill,
    doctor,
    eval,
    history,
    package,
    placement,
    predict,
    quantize,
    quickstart,
    regress,
    report,
    verify,
    weights,
)
from edgesam_mobile.cli.command import Program

app = typer.Typer(
    name="edgesam-mobile",
    cls=Program,
    help="Take promptable segmentation (SAM) onto phones: build, verify and measure EdgeSAM-class models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(quickstart.app)
app.add_typer(weights.app, name="weights")
app.add_typer(build.app)
app.add_typer(quantize.app)
app.add_typer(verify.app)
app.add_typer(package.app, name="package")
app.add_typer(distill.app)
app.add_typer(eval.app)
app.add_typer(devices.app)
app.add_typer(bench.app)
app.add_typer(history.app, name="history")
app.add_typer(compare.app)
app.add_typer(regress.app)
app.add_typer(report.app)
app.add_typer(placement.app)
app.add_typer(predict.app)
app.add_typer(doctor.app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line; the exit code tells what happened (see :mod:`edgesam_mobile.errors`).

    Threads of PyTorch that wait for each other sleep instead of spinning, unless the user says otherwise: beside
    another busy process the spinning ones took 25 times as long. Benchmarks undo it for the processes they time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()
