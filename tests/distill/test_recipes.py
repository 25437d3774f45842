"""Every shipped recipe runs, for two steps, on the smallest student and pictures made in code."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data.loader import Loader
from distill.data.prompt_book import PromptWriter
from distill.embeddings import fingerprints
from distill.recipe import Recipe, shipped
from distill.teach import teach
from distill.train import bound_files, train
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.proposals import read_proposals
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.weights.checkpoint import read_checkpoint

SMALL = (
    "model.architecture=edge-sam-tiny",
    "model.image_size=256",
    'data.sources=[{spec="generated:4"}]',
    "data.workers=0",
    "run.steps=2",
    "run.batch_size=2",
    "run.log_every=1",
    "run.sync_batch_norm=false",
    "optim.warmup_epochs=0.5",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam-tiny", tmp_path_factory.mktemp("teacher") / "t.safetensors", 1, image_size=256)


def shrunk(name: str, teacher: Path, folder: Path) -> Recipe:
    """A shipped recipe with what it names made here: cache, prompts, and the weights it begins with."""
    settings = [*SMALL, f"teacher.weights={teacher}"]
    own = Recipe.load(name)
    if own.model.init:
        settings.append(f"model.init={teacher}")
    if own.teacher.cache:
        settings.append(f"teacher.cache={folder / 'embeddings'}")
    if own.data.prompts.file:
        settings.append(f"data.prompts.file={folder / 'prompts.tsv'}")
    return Recipe.load(name, settings)


def write_prompts(path: Path, teacher: Path) -> None:
    """Prompts for the four pictures: an untrained teacher finds no object in them."""
    names, marks = [], []
    for number in range(4):
        sample = open_source("generated:4")[number]
        frame = ResizeLongestSide(256).pad_image(ResizeLongestSide(256).apply_image(sample.picture()), (0, 0, 0))
        names.append(sample.name)
        marks += fingerprints(torch.from_numpy(frame).permute(2, 0, 1)[None])
    box, point = np.array([[10, 10, 90, 80]], np.float32), np.array([[50, 40]], np.float32)
    with PromptWriter(path, teacher_sha256=sha256_of(teacher), image_size=256, settings={}) as book:
        book.add([(name, mark, box, point) for name, mark in zip(names, marks, strict=True)])


def go_on_with_a_head(recipe: Recipe, head: Path, teacher: Path, folder: Path) -> None:
    """A learning rate next to nothing leaves the head as it began, but for the statistics of its batch norms."""
    begun = read_proposals(head, load_model(teacher))
    optim = replace(recipe.optim, lr=1e-12, min_lr=0.0)
    again = train(replace(recipe, optim=optim, stage=replace(recipe.stage, head_init=str(head))), folder / "more")
    assert again.weights is not None
    for (name, before), after in zip(
        begun.named_parameters(), read_proposals(again.weights, load_model(teacher)).parameters(), strict=True
    ):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6, msg=name)
    assert f"started from {sha256_of(head)[:12]}" in (read_checkpoint(again.weights).metadata.provenance or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_it_runs_two_steps_and_leaves_a_checkpoint_that_loads(name: str, teacher: Path, tmp_path: Path) -> None:
    recipe = shrunk(name, teacher, tmp_path)
    if recipe.teacher.cache:
        assert teach(recipe, Path(recipe.teacher.cache)).embedded == 4
    if recipe.data.prompts.file:
        write_prompts(Path(recipe.data.prompts.file), teacher)
    result = train(recipe, tmp_path / "run")
    assert result.outcome.step == 2
    assert result.outcome.bad_steps == 0
    assert result.outcome.loss is not None
    assert np.isfinite(result.outcome.loss)
    assert result.weights is not None
    if recipe.stage.name == "proposals":
        go_on_with_a_head(recipe, result.weights, teacher, tmp_path)
        return
    provenance = load_model(result.weights).provenance
    assert provenance is not None
    assert provenance.architecture == "edge-sam-tiny"
    assert provenance.image_size == 256
    assert provenance.upsample == recipe.model.upsample
    assert provenance.commercial_use is True
    assert not provenance.trained, "a student of a stand-in is one itself"
    assert recipe.stage.name in (provenance.origin or "")
    assert str(tmp_path) not in (provenance.origin or "")


def test_a_run_is_bound_to_its_pictures_and_prompts(teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.tsv"
    write_prompts(path, teacher)
    recipe = Recipe.load("laptop-stage2", [*SMALL, f"teacher.weights={teacher}", f"data.prompts.file={path}"])

    def bound() -> dict[str, Any]:
        options = {"image_size": 256, "batch_size": 2, "rank": 0, "world": 1, "seed": 0, "rounds": 1}
        with Loader(recipe.data, box_probability=0.5, needs_prompts=True, **options) as loader:  # type: ignore[arg-type]
            return bound_files(recipe, loader, None)

    before = bound()
    assert before == bound() and before["files"].keys() == {"generated:4"}
    with PromptWriter(path, teacher_sha256=sha256_of(teacher), image_size=256, settings={}) as book:
        book.add([("new.png", bytes(48), np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32))])
    assert {key for key, value in bound().items() if value != before[key]} == {"prompts"}


@pytest.mark.slow
def test_the_documented_command_goes_on_from_edge_sam_open(teacher: Path, tmp_path: Path) -> None:
    """Encoder and decoder both: a learning rate next to nothing leaves them as they are."""
    text = (Path(__file__).parents[2] / "docs" / "edge-sam-open.md").read_text()
    ((name, words),) = re.findall(r"^edgesam-mobile distill (\S+) -o runs/more(.*)$", text, re.MULTILINE)
    settings = [*SMALL[1:], f"teacher.weights={teacher}", f"teacher.cache={tmp_path / 'embeddings'}"]
    settings += [f"data.prompts.file={tmp_path / 'prompts.tsv'}", "run.precision=float32", "optim.lr=1e-12"]
    recipe = Recipe.load(name, [*re.findall(r"--set (\S+)", words), *settings, "optim.min_lr=0"])
    assert teach(recipe, Path(recipe.teacher.cache)).embedded == 4
    write_prompts(Path(recipe.data.prompts.file), teacher)
    told: list[str] = []
    result = train(recipe, tmp_path / "run", report=told.append)
    assert result.weights is not None and result.outcome.step == 2 and result.outcome.bad_steps == 0
    assert not [line for line in told if line.startswith("warning")]
    begun = load_model("edge-sam-open", image_size=256)
    for (key, before), after in zip(begun.named_parameters(), load_model(result.weights).parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5, msg=key)
