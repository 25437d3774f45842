"""``edgesam-mobile distill`` and ``teach``: training a student, and preparing its teacher's answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgesam_mobile.cli.command import INTERRUPTED, command
from edgesam_mobile.cli.output import number, out
from edgesam_mobile.errors import UsageError

if TYPE_CHECKING:
    from edgesam_mobile.evaluate.data.samples import Source

app = typer.Typer()

_Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change an option: section.option=value; can be repeated.")
]


@command(
    app,
    "distill",
    examples=(
        "edgesam-mobile distill demo -o runs/demo",
        "edgesam-mobile distill recipe.toml -o runs/mine --set run.steps=2000 --set optim.lr=1e-3",
        "edgesam-mobile distill laptop-stage2 --eval coco:coco-val100",
        "torchrun --nproc-per-node 8 -m distill edgesam-stage1 -o runs/stage1",
        "edgesam-mobile distill --list",
    ),
)
def distill(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped recipe (see --list).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; runs/NAME by default.")] = None,
    settings: _Settings = None,
    data: Annotated[
        str | None,
        typer.Option("--eval", help="Annotated pictures to measure the trained student on, as `eval` does."),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the shipped recipes.")] = False,
) -> None:
    """Train a student by a recipe; started again on the same folder, it goes on where it was stopped or killed."""
    if listing:
        _list()
        return
    if recipe is None:
        raise UsageError("no recipe given", hint="name a file or a shipped recipe: edgesam-mobile distill --list")
    from distill.recipe import Recipe
    from distill.train import train
    from edgesam_mobile.evaluate.data.open import open_source

    loaded = Recipe.load(recipe, settings or ())
    if data is not None and loaded.stage.name == "proposals":
        raise UsageError("--eval measures masks, and stage proposals trains none", hint="leave --eval out")
    source = open_source(data) if data is not None else None  # refused now, rather than after hours
    result = train(loaded, output or Path("runs") / Path(recipe).stem, report=_report)
    if not result.main:
        raise typer.Exit(INTERRUPTED if result.outcome.interrupted else 0)
    end = result.outcome
    measured = _evaluated(result.weights, source) if result.weights and source else None

    def human() -> None:
        if result.weights is not None:
            out.say(f"{result.weights}: trained in {end.step} steps, loss {number(end.loss, '.4g')}; {end.corrupt}")
        if measured is not None:
            means = ", ".join(f"{100 * mean['miou']:.1f} from {name}" for name, mean in measured["results"].items())
            out.say(f"mIoU on {measured['data']}: {means}; {measured['objects']} objects")

    told = {
        "weights": result.weights,
        "checkpoint": end.checkpoint,
        "step": end.step,
        "loss": end.loss,
        "interrupted": end.interrupted,
        "bad_steps": end.bad_steps,
        "corrupt": end.corrupt,
        "evaluation": measured,
    }
    out.result("edgesam.distill/1", told, human=human, quiet=[result.weights] if result.weights else [])
    if end.interrupted:
        out.note(f"stopped after step {end.step}, saved in {end.checkpoint}: the same command goes on from there")
        raise typer.Exit(INTERRUPTED)


def _evaluated(weights: Path, source: Source) -> dict[str, Any]:
    """What `eval --refine 0` says of trained weights."""
    from edgesam_mobile.evaluate.accuracy import Settings, evaluate
    from edgesam_mobile.evaluate.subjects import TorchSubject
    from edgesam_mobile.model.load import load_model

    settings = Settings(refine=0)
    with out.progress(f"evaluating on {source.spec}", len(source)) as report:
        found = evaluate(TorchSubject(load_model(weights)), source, settings, report=report)
    return {"data": source.spec, "protocol": settings.protocol(), **found.summary()}


@command(
    app,
    "teach",
    examples=(
        "edgesam-mobile teach recipe.toml -o embeddings",
        "edgesam-mobile teach recipe.toml --prompts prompts.tsv --set run.batch_size=4",
    ),
)
def teach(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the cache of embeddings.")] = None,
    dtype: Annotated[
        str, typer.Option(help="How embeddings are stored: float16, or int8 of half its size.")
    ] = "int8",
    prompts: Annotated[Path | None, typer.Option(help="File for prompts from the teacher's own masks.")] = None,
    grid: Annotated[int, typer.Option(help="Points that are tried along a picture's longer side for prompts.")] = 8,
    settings: _Settings = None,
) -> None:
    """Let a recipe's teacher embed all pictures once, find prompts in them, or both; interrupted, it can go on.

    Without --output and --prompts it writes what the recipe names: teacher.cache and data.prompts.file.
    """
    if dtype not in ("float16", "int8"):
        raise UsageError(f"no such dtype: {dtype}", hint="choose float16 or int8")
    from distill.data.teacher_prompts import PromptSettings
    from distill.recipe import Recipe
    from distill.teach import teach as fill

    chosen: Literal["float16", "int8"] = "int8" if dtype == "int8" else "float16"
    loaded = Recipe.load(recipe, settings or ())
    if output is None and prompts is None:
        output = Path(loaded.teacher.cache) if loaded.teacher.cache else None
        prompts = Path(loaded.data.prompts.file) if loaded.data.prompts.file else None
    if output is None and prompts is None:
        raise UsageError("the recipe names neither cache nor prompts", hint="give --output, --prompts or both")
    written = fill(
        loaded, output, dtype=chosen, prompts=prompts, settings=PromptSettings(points_per_side=grid), report=out.note
    )
    for name, reason in written.corrupt:
        out.warn(f"skipped {name}: {reason}")

    def human() -> None:
        said = f"{written.embedded} pictures embedded, {written.kept} were there already"
        out.say(f"{output}: {said}, {written.bytes / 1e6:.1f} MB" if output else said)
        if prompts is not None:
            nothing = len(written.without_prompts)
            out.say(f"{prompts}: {written.prompts} prompts added, {nothing} pictures without any")

    data = {
        "cache": output,
        "prompts_file": prompts,
        "embedded": written.embedded,
        "kept": written.kept,
        "corrupt": written.corrupt,
        "prompts": written.prompts,
        "without_prompts": written.without_prompts,
        "bytes": written.bytes,
    }
    out.result("edgesam.teach/1", data, human=human, quiet=[place for place in (output, prompts) if place])


def _list() -> None:
    from distill.recipe import shipped

    rows = [(name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")) for name, path in shipped().items()]
    data = {"recipes": [{"name": name, "about": about} for name, about in rows]}
    out.result(
        "edgesam.recipes/1",
        data,
        human=lambda: out.table(("recipe", "about"), rows),
        quiet=[name for name, _ in rows],
    )


def _report(line: str) -> None:
    """Warnings always, everything else to people."""
    if line.startswith("warning: "):
        out.warn(line.removeprefix("warning: "))
    else:
        out.note(line)
