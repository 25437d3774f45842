"""Palettes fitted to calibration data: few values, small harm to what layers put out, and the Core ML file."""

from __future__ import annotations

import copy
import io
import json
import logging
import re

import pytest
import torch
from torch import nn

from edgesam_mobile.deploy import tuning
from edgesam_mobile.deploy.palettes import Palette, _nearest, centroids, fit_palettes
from edgesam_mobile.deploy.tuning import tune_palettes
from edgesam_mobile.deploy.worker import _Notes


class Layers(nn.Module):
    """A dense, a strided and a depth-wise convolution, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(8, 64, 3, padding=1)
        self.depth = nn.Conv2d(64, 64, 9, groups=64)
        self.down = nn.Conv2d(64, 96, 1, stride=2)
        self.head = nn.Sequential(nn.Linear(96, 72), nn.GELU(), nn.Linear(72, 90))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.down(self.depth(self.stem(x).relu())).flatten(2).transpose(1, 2))
        return y


@pytest.fixture
def layers() -> Layers:
    torch.manual_seed(0)
    return Layers().eval().requires_grad_(False)


def correlated(number: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Inputs whose channels go together, as those of real layers do."""
    few = torch.randn(number, 2, 24, 24, generator=generator)
    mix = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    noise = 0.1 * torch.randn(number, 8, 24, 24, generator=generator)
    return {"x": torch.einsum("oc,nchw->nohw", mix, few) + noise}


@pytest.fixture
def samples() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [correlated(2, generator) for _ in range(4)]


def test_groups_of_channels_share_few_values_exact_in_half_precision(
    layers: Layers, samples: list[dict[str, torch.Tensor]]
) -> None:
    before = copy.deepcopy(layers)
    found = fit_palettes(layers, samples, bits=4, group=16, finer=["down"], left_out=["head.0"])
    assert found == {
        "stem": (16, 4, True),
        "down": (16, 6, True),
        "head.2": (15, 4, True),
    }  # 90 channels are no multiple of 16
    for name, (size, bits, _) in found.items():
        weight = layers.get_submodule(name).weight
        assert torch.equal(weight, weight.half().float())
        assert all(
            2 ** (bits - 1) < len(weight[i : i + size].unique()) <= 2**bits for i in range(0, len(weight), size)
        )
    for name in ("depth", "head.0"):
        assert torch.equal(layers.get_submodule(name).weight, before.get_submodule(name).weight)


def test_all_channels_of_a_layer_can_share_their_values(
    layers: Layers, samples: list[dict[str, torch.Tensor]]
) -> None:
    found = fit_palettes(layers, samples, bits=3, group=0)
    assert found == {
        "stem": (64, 3, False),
        "down": (96, 3, False),
        "head.0": (72, 3, False),
        "head.2": (90, 3, False),
    }
    assert all(len(layers.get_submodule(name).weight.unique()) == 8 for name in found)


def test_values_are_the_best_there_are_and_outliers_get_theirs() -> None:
    """Evenly spaced ones would leave the crowd around 0 a single value."""
    row = torch.tensor([[-0.25, -0.25, 0.0, 0.25, 0.5, 64.0]])
    assert centroids(row, torch.ones_like(row), 5).tolist() == [[-0.25, 0.0, 0.25, 0.5, 64.0]]
    heavy = torch.tensor([[3.0, 3.0, 1.0, 1.0, 5.0, 1.0]])  # 0 and 0.25 matter least
    assert centroids(row, heavy, 4)[0].tolist() == [-0.25, 0.125, 0.5, 64.0]
    assert centroids(row, torch.ones_like(row), 8).tolist() == [[-0.25, 0.0, 0.25, 0.5, 64.0, 64.0, 64.0, 64.0]]


def test_outputs_change_less_than_by_nearest_values(layers: Layers, samples: list[dict[str, torch.Tensor]]) -> None:
    fresh = correlated(4, torch.Generator().manual_seed(3))["x"]
    expected = layers.stem(fresh)
    rows = layers.stem.weight.flatten(1).clone()
    groups = rows.reshape(4, -1)
    nearest = _nearest(groups, centroids(groups, torch.ones_like(groups), 8)).reshape(layers.stem.weight.shape)
    plain = nn.functional.conv2d(fresh, nearest, layers.stem.bias, padding=1)
    fit_palettes(layers, samples, bits=3, group=16)
    harm, plain_harm = ((found - expected).square().mean() for found in (layers.stem(fresh), plain))
    assert 0 < harm < plain_harm / 2


def test_the_same_samples_give_the_same_weights_and_dead_inputs_do_no_harm(layers: Layers) -> None:
    silent = [{"x": torch.zeros(1, 8, 24, 24)}]
    other = copy.deepcopy(layers)
    fit_palettes(layers, silent, bits=4, group=8)
    fit_palettes(other, silent, bits=4, group=8)
    for name, weight in layers.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]) and weight.isfinite().all()


@pytest.fixture
def rounded(layers: Layers, samples: list[dict[str, torch.Tensor]]) -> tuple[Layers, dict[str, Palette]]:
    small = copy.deepcopy(layers)
    return small, fit_palettes(small, samples, bits=2, group=16)


def test_tuned_palettes_answer_better_than_fitted_ones_on_what_they_have_not_seen(
    layers: Layers, rounded: tuple[Layers, dict[str, Palette]], samples: list[dict[str, torch.Tensor]]
) -> None:
    small, palettes = rounded
    fresh = correlated(4, torch.Generator().manual_seed(3))["x"]
    expected, before = layers(fresh), small(fresh)
    tune_palettes(small, layers, palettes, 8 * samples)
    harm, earlier = ((found - expected).square().mean() for found in (small(fresh), before))
    assert 0 < harm < 0.95 * earlier


def test_tuning_moves_values_and_leaves_them_palettes(
    layers: Layers, rounded: tuple[Layers, dict[str, Palette]], samples: list[dict[str, torch.Tensor]]
) -> None:
    small, palettes = rounded
    before, other = copy.deepcopy(small), copy.deepcopy(small)
    tune_palettes(small, layers, palettes, samples)
    tune_palettes(other, layers, palettes, samples)
    for name, value in small.named_parameters():
        assert not value.requires_grad and torch.equal(value, value.half().float())
        assert torch.equal(value, other.get_parameter(name)) and not torch.equal(value, before.get_parameter(name))
    for name, palette in palettes.items():
        weights = (part.get_submodule(name).weight for part in (small, before))
        for now, then in zip(*(w.reshape(len(w) // palette.channels, -1) for w in weights), strict=True):
            assert 1 < len(torch.stack([now, then]).unique(dim=1).T) == len(then.unique()) <= 2**palette.bits


def test_tuning_says_how_far_it_is(
    layers: Layers,
    rounded: tuple[Layers, dict[str, Palette]],
    samples: list[dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)
    answers = io.StringIO()
    log = logging.getLogger("edgesam_mobile")
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(log, "handlers", [_Notes(answers)])
    tune_palettes(rounded[0], layers, rounded[1], samples)
    notes = [json.loads(line)["note"] for line in answers.getvalue().splitlines()]
    assert [note.split(" (")[0] for note in notes] == [f"tuned {step} of 16 steps" for step in range(1, 17)]
    assert all(re.search(r"\(about \d+ s left\)$", note) for note in notes)
