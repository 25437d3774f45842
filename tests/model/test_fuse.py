"""Encoders folded for inference: the same function from fewer layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgesam_mobile.model.layers import ConvNorm
from edgesam_mobile.model.repvit import RepDepthwise, RepVitEncoder
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.model.tiny_vit import TinyVitEncoder, WindowAttention


@pytest.fixture(scope="module", params=["edge-sam", "mobile-sam"])
def encoder(request: pytest.FixtureRequest) -> RepVitEncoder | TinyVitEncoder:
    """With untrained weights; no test changes it."""
    encoder = untrained_model(request.param).image_encoder
    assert isinstance(encoder, RepVitEncoder | TinyVitEncoder)
    if isinstance(encoder, TinyVitEncoder):  # zero until trained
        for attention in encoder.modules():
            if isinstance(attention, WindowAttention):
                nn.init.normal_(attention.attention_biases)
    return encoder


def count(module: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> int:
    return sum(isinstance(layer, kind) for layer in module.modules())


@pytest.mark.slow
@torch.no_grad()
def test_fusing_is_exact_in_double_precision(encoder: RepVitEncoder | TinyVitEncoder, cat_at_512: Tensor) -> None:
    exact = copy.deepcopy(encoder).double()
    difference = exact(cat_at_512.double()) - exact.fuse()(cat_at_512.double())
    assert difference.abs().max() <= 1e-9


@pytest.mark.slow
@torch.no_grad()
def test_fusing_in_single_precision_moves_no_more_than_rounding(
    encoder: RepVitEncoder | TinyVitEncoder, cat_at_512: Tensor
) -> None:
    """The folded weights, rounded to float32, are within 1e-5 of the exact output (which has unit deviation).

    Running either network in float32 rounds by about as much again: both are 9e-6 away from the exact output,
    so their difference is held to 1e-5 of the largest value rather than to 1e-5 itself.
    """
    exact = copy.deepcopy(encoder).double()(cat_at_512.double())
    fused = encoder.fuse()
    folding = copy.deepcopy(fused).double()(cat_at_512.double()) - exact
    assert folding.abs().max() <= 1e-5
    before, after = encoder(cat_at_512), fused(cat_at_512)
    assert (after - before).abs().max() <= 1e-5 * exact.abs().max()
    assert (after - exact).abs().max() <= 2 * (before - exact).abs().max()


def test_nothing_foldable_is_left(encoder: RepVitEncoder | TinyVitEncoder) -> None:
    foldable = (nn.BatchNorm2d, ConvNorm, RepDepthwise)
    assert count(encoder, foldable) > 0
    assert count(encoder.fuse(), foldable) == 0


def test_every_parallel_branch_of_repvit_becomes_one_convolution() -> None:
    """Each of the 23 stride-1 blocks loses a 1x1 depthwise convolution, and the neck's 1x1 folds away."""
    encoder = RepVitEncoder()
    assert count(encoder, RepDepthwise) == 23
    assert count(encoder, nn.Conv2d) == 130
    assert count(encoder.fuse(), nn.Conv2d) == 130 - 23 - 1


def test_fused_repvit_has_fewer_parameters() -> None:
    without_branches = 5_485_896
    fused = RepVitEncoder().fuse()
    assert sum(parameter.numel() for parameter in fused.parameters()) == without_branches - 256 * 256


def test_fused_tiny_vit_drops_its_unused_head_and_the_tables_of_its_biases() -> None:
    keys = TinyVitEncoder().fuse().state_dict()
    assert not [key for key in keys if "head" in key or "attention_biases" in key]


def test_biases_of_a_window_go_by_rows_and_columns_apart() -> None:
    window, heads = 3, 2
    attention = WindowAttention(8, heads, window)
    nn.init.normal_(attention.attention_biases)
    cells = torch.arange(window * window)
    row, column = cells // window, cells % window
    offset = (row - row[:, None]).abs() * window + (column - column[:, None]).abs()
    expected = attention.attention_biases[:, offset].detach()
    assert torch.equal(attention.biases(), expected)
    assert torch.equal(attention.fused().biases(), expected)


def test_fusing_leaves_the_original_alone(encoder: RepVitEncoder | TinyVitEncoder) -> None:
    layers, state = [type(layer) for layer in encoder.modules()], copy.deepcopy(encoder.state_dict())
    fused = encoder.fuse()
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.fill_(0)
    assert [type(layer) for layer in encoder.modules()] == layers
    now = encoder.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[key], state[key]) for key in state)


def test_fusing_a_network_in_training_folds_its_running_statistics(cat_at_512: Tensor) -> None:
    encoder = untrained_model("edge-sam").image_encoder
    assert isinstance(encoder, RepVitEncoder)
    with torch.no_grad():
        expected = encoder(cat_at_512)
        fused = encoder.train().fuse()
        assert encoder.training and not fused.training
        torch.testing.assert_close(fused(cat_at_512), expected, atol=1e-4, rtol=0)
