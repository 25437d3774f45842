"""Every shipped recipe runs, for two steps, on the smallest student and pictures made in code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.data.prompt_book import PromptWriter
from distill.recipe import Recipe, shipped
from distill.teach import teach
from distill.train import train
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.proposals import read_proposals
from edgesam_mobile.model.standin import write_standin

SMALL = (
    "model.architecture=edge-sam-tiny",
    "model.image_size=256",
    'data.sources=[{spec="generated:4"}]',
    "data.workers=0",
    "run.steps=2",
    "run.batch_size=2",
    "run.log_every=1",
    "run.sync_batch_norm=false",
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


def write_prompts(path: Path) -> None:
    """Prompts for the four pictures: an untrained teacher finds no object in them."""
    box, point = np.array([[10, 10, 90, 80]], np.float32), np.array([[50, 40]], np.float32)
    with PromptWriter(path, teacher_sha256="0" * 64, image_size=256, settings={}) as book:
        book.add([(sample.name, b"", box, point) for sample in map(open_source("generated:4").__getitem__, range(4))])


@pytest.mark.parametrize("name", shipped())
def test_it_runs_two_steps_and_leaves_a_checkpoint_that_loads(name: str, teacher: Path, tmp_path: Path) -> None:
    recipe = shrunk(name, teacher, tmp_path)
    if recipe.teacher.cache:
        assert teach(recipe, Path(recipe.teacher.cache)).embedded == 4
    if recipe.data.prompts.file:
        write_prompts(Path(recipe.data.prompts.file))
    result = train(recipe, tmp_path / "run")
    assert result.outcome.step == 2
    assert result.outcome.bad_steps == 0
    assert result.outcome.loss is not None
    assert np.isfinite(result.outcome.loss)
    assert result.weights is not None
    if recipe.stage.name == "proposals":
        read_proposals(result.weights, load_model(teacher))
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
