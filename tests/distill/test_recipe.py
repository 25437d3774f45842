"""Recipes: what is in the file is what is used, and what cannot work is refused by the option's name."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.recipe import DataRecipe, OptimRecipe, Recipe, SourceRecipe, shipped
from distill.tables import differences, from_table, override, to_toml
from edgesam_mobile.errors import UsageError

SMALLEST = """
[data]
sources = [{ spec = "images:photos" }]
[optim]
lr = 0.01
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    return written(tmp_path, SMALLEST)


def test_defaults_are_filled_in_and_whole_numbers_taken_for_numbers(tmp_path: Path) -> None:
    recipe = Recipe.load(written(tmp_path, SMALLEST + "clip = 5\n"))
    assert recipe.optim == OptimRecipe(lr=0.01, clip=5.0)
    assert recipe.data == DataRecipe(sources=(SourceRecipe(spec="images:photos"),))
    assert type(recipe.optim.clip) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("optim.lr=-1", "optim.lr must be above 0, not -1"),
        ("optim.lr=nan", "optim.lr must be above 0, not nan"),
        ("optim.lr=inf", "optim.lr must be above 0, not inf"),
        ("optim.lr=true", "optim.lr must be a number, not true"),
        ('optim.lr="fast"', 'optim.lr must be a number, not "fast"'),
        ("optim.min_lr=0.5", "optim.min_lr must be from 0 to optim.lr (0.01), not 0.5"),
        ("optim.clip=-2", "optim.clip must be 0 or more, not -2"),
        ("run.steps=-1", "run.steps must be 0 (take run.epochs) or more, not -1"),
        ("run.steps=2.5", "run.steps must be a whole number, not 2.5"),
        ("run.batch_size=0", "run.batch_size must be 1 or more, not 0"),
        ("run.accumulate=3", "run.batch_size 8 is no multiple of 3"),
        ("run.ema=1", "run.ema must be at least 0 and below 1, not 1"),
        ("run.compile=1", "run.compile must be true or false, not 1"),
        ("run.precision=float16", "run.precision must be 'float32' or 'bfloat16', not \"float16\""),
        ("model.architecture=", "model.architecture must be a name, not empty"),
        ("model.decoder_init=init", 'model.decoder_init is "init" but model.init names no checkpoint'),
        ("data.workers=-1", "data.workers must be from 0 to 64, not -1"),
        ("data.sources=[]", "data.sources must be at least one source, not []"),
        ('data.sources=["images:x"]', 'data.sources[0] must be a table, not "images:x"'),
        ("data.sources=[{weight=1}]", "data.sources[0].spec is missing"),
        ('data.sources=[{spec="images:x", weight=0}]', "data.sources weight must be above 0, not 0"),
        ("data.augment.flip=2", "data.augment.flip must be from 0 to 1, not 2"),
        ("data.augment.scale=[2, 1]", "data.augment.scale must be [smallest, largest], 0.1 to 10, not [2.0, 1.0]"),
        ("data.augment.scale=[1]", "data.augment.scale must have 2 values, not 1"),
        ("data.prompts.source=teacher", 'data.prompts.source is "teacher" but data.prompts.file is empty'),
        ("data.prompts.file=x", "data.prompts.file would not be used"),
        ("stage.name=prompts", "images:photos has no annotations to prompt with"),
        ("stage.rounds=-1", "stage.rounds must be from 0 to 16, not -1"),
        ("optim=3", "optim must be a table, not 3"),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(smallest: Path, setting: str, told: str) -> None:
    if setting == "optim=3":
        smallest.write_text('optim = 3\n[data]\nsources = [{ spec = "images:photos" }]\n')
        setting = "run.seed=0"
    with pytest.raises(UsageError) as refusal:
        Recipe.load(smallest, (setting,))
    assert refusal.value.message == told


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (("teacher.cache=c", "data.augment.flip=0.5"), "teacher.cache holds plain pictures, but data.augment"),
        (("stage.name=proposals",), "stage proposals trains a head on a finished encoder"),
        (("stage.name=proposals", "model.init=m.safetensors"), "stage proposals needs boxes; images:photos has none"),
        (
            ("stage.name=proposals", "model.init=m.pt", "data.prompts.source=teacher", "data.prompts.file=p"),
            "stage proposals trains on annotated boxes",
        ),
        (("stage.head_init=p.safetensors",), "stage encoder trains no head to begin with"),
        (("stage.mask_prompts=0.5", "stage.rounds=0"), "stage.mask_prompts needs correction rounds"),
        (("stage.iou_loss=1", "stage.freeze_decoder=true"), "stage.iou_loss trains the decoder"),
        (("stage.freeze_encoder=true", "stage.freeze_decoder=true"), "nothing to train"),
        (("stage.bce=0", "stage.dice=0"), "stage.bce or stage.dice must be above 0"),
    ],
)
def test_options_that_exclude_each_other_are_refused(smallest: Path, chosen: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Recipe.load(smallest, chosen)
    assert refusal.value.message.startswith(told) or refusal.value.message.endswith(told)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ("optim.learning_rate=1", "unknown option optim.learning_rate", "known: lr, min_lr"),
        ("optim.warmup_epoch=1", "unknown option optim.warmup_epoch", "did you mean optim.warmup_epochs?"),
        ("data.augment.color=1", "unknown option data.augment.color", "did you mean data.augment.colour?"),
        ("modle.init=x", "unknown option modle", "did you mean model?"),
        ("run.precision=bfloat", "run.precision must be", "did you mean bfloat16?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(smallest: Path, setting: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Recipe.load(smallest, (setting,))
    assert refusal.value.message.startswith(message)
    assert (refusal.value.hint or "").startswith(hint)


@pytest.mark.parametrize("setting", ["steps=2", "run.steps", "run.=2", "data.workers.x=1"])
def test_a_setting_that_cannot_be_read_is_refused(smallest: Path, setting: str) -> None:
    smallest.write_text(SMALLEST.replace("[data]", "[data]\nworkers = 1"))
    with pytest.raises(UsageError, match=r"cannot (read|set)"):
        Recipe.load(smallest, (setting,))


def test_missing_options_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^optim\.lr is missing"):
        Recipe.load(written(tmp_path, SMALLEST.partition("lr")[0]))
    with pytest.raises(UsageError, match=r"^data is missing"):
        Recipe.load(written(tmp_path, "[optim]\nlr = 1\n"))
    with pytest.raises(UsageError, match=r"is no TOML: .*line 2"):
        Recipe.load(written(tmp_path, "[optim]\nlr = \n"))
    with pytest.raises(UsageError, match=r"cannot read the recipe .*absent"):
        Recipe.load(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="no recipe named dmo") as refusal:
        Recipe.load("dmo")
    assert "demo" in str(refusal.value.hint)


@settings(max_examples=40)
@given(st.text(), st.floats(1e-9, 1e3), st.lists(st.sampled_from(["a", "b:c", "ü\x7f\"'\\\n"]), min_size=1))
def test_a_written_recipe_is_read_back_equal(text: str, lr: float, specs: list[str]) -> None:
    table: dict[str, Any] = {
        "data": {"sources": [{"spec": spec} for spec in specs]},
        "optim": {"lr": lr},
        "teacher": {"cache": text},
    }
    recipe = from_table(Recipe, table)
    again = from_table(Recipe, tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


def test_the_fingerprint_tells_recipes_apart_but_not_how_they_are_written(smallest: Path, tmp_path: Path) -> None:
    one = Recipe.load(smallest)
    assert Recipe.load(smallest, ("optim.lr=1e-2", "run.epochs=10")).fingerprint == one.fingerprint
    assert Recipe.load(smallest, ("run.seed=1",)).fingerprint != one.fingerprint


def test_differences_name_options() -> None:
    before, after = {"a": {"x": 1, "y": [1]}, "b": "t"}, {"a": {"x": 2, "y": [1]}, "b": "u"}
    assert differences(before, after) == ["a.x: 1 -> 2", 'b: "t" -> "u"']


def test_settings_are_toml_or_plain_texts() -> None:
    table: dict[str, Any] = {}
    for text in ("a.b=1", "a.c=[1, 2]", "a.d=some/path x.pt", 'a.e="1"', "f.g.h=true", "a.i=1\nj=2"):
        override(table, text)
    assert table == {
        "a": {"b": 1, "c": [1, 2], "d": "some/path x.pt", "e": "1", "i": "1\nj=2"},
        "f": {"g": {"h": True}},
    }
    assert "[f.g]\nh = true" in to_toml({"f": {"g": {"h": True}}})


def test_the_published_settings_are_the_published_figures() -> None:
    one, two = Recipe.load("edgesam-stage1"), Recipe.load("edgesam-stage2")
    assert (one.optim.lr, one.optim.min_lr, one.optim.warmup_lr) == pytest.approx(
        tuple(rate * 64 / 512 for rate in (1e-1, 5e-6, 5e-7))
    )
    assert (one.run.epochs, one.run.batch_size, one.optim.warmup_epochs, one.optim.clip) == (10, 64, 5, 5)
    assert (two.run.epochs, two.run.batch_size, two.optim.clip, two.optim.weight_decay) == (5, 16, 0.01, 0.05)
    assert two.optim.lr == pytest.approx(3.2e-3 * 16 / 512)
    assert set(shipped()) >= {"demo", "edgesam-stage1", "edgesam-stage2", "edgesam-stage3", "laptop-stage1"}
