"""Quantisation-aware training: the rounding by hand, that gradients pass, and that checkpoints stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_stage import frozen, make_batch, tiny_model
from torch import nn

from distill.recipe import Recipe
from distill.rounding import round_activations, round_as_integers, round_weights
from distill.stages.encoder import EncoderStage
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.sam import Sam


def test_weights_are_whole_multiples_of_a_scale_for_each_channel() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(5).view(-1, 1, 1, 1)
    rounded = round_weights(weight).numpy()
    for channel, original in zip(rounded, weight.numpy(), strict=True):
        scale = np.abs(original).max() / 127
        steps = np.round(original / scale) if scale else np.zeros_like(original)
        np.testing.assert_allclose(channel, steps * scale, atol=1e-6)


def test_activations_take_256_values_between_their_extremes_and_zero_is_exact() -> None:
    x = torch.cat([torch.zeros(1), torch.linspace(-1, 3, 5000)])
    rounded = round_activations(x)
    assert len(rounded.unique()) <= 256
    assert rounded[0] == 0
    assert (rounded - x).abs().max() <= 4 / 255
    assert torch.equal(round_activations(torch.zeros(4)), torch.zeros(4))


def test_an_encoder_computes_what_its_folded_form_computes_with_rounded_weights() -> None:
    """With activations of few values, which rounding leaves alone, one layer is exactly the exported one."""
    layer = tiny_model(0).image_encoder.features[1].token_mixer[0].eval()
    x = torch.randint(0, 256, (1, layer.conv.c.in_channels, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    x[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    folded = layer.fused()
    with torch.no_grad():
        folded.weight.copy_(round_weights(folded.weight))
    holder = nn.Sequential(layer)
    round_as_integers(holder)
    torch.testing.assert_close(holder(x), folded(x), rtol=1e-4, atol=1e-3)


def rounded(model: Sam, *left_out: str) -> Sam:
    round_as_integers(model.image_encoder, left_out)
    return model


def test_names_and_statistics_of_the_weights_stay() -> None:
    plain, model = tiny_model(0), rounded(tiny_model(0))
    model.image_encoder.train()(torch.randn(1, 3, 256, 256))
    before, after = plain.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_every_parameter_is_trained_through_the_rounding() -> None:
    stage = EncoderStage(rounded(tiny_model(0)), frozen(tiny_model(1))).train()
    stage(make_batch("box", (1, 1), side=256))["loss"].backward()
    for name, parameter in stage.trainable():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_layers_left_out_are_not_rounded() -> None:
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    groups = [f"encoder.{name}" for name, _ in tiny_model(0).image_encoder.named_children()]
    with torch.no_grad():
        plain = tiny_model(0).image_encoder(x)
        none = rounded(tiny_model(0), *groups).image_encoder(x)
        some = rounded(tiny_model(0), *groups[1:]).image_encoder(x)
        every = rounded(tiny_model(0)).image_encoder(x)
    assert torch.equal(none, plain)
    distances = [(found - plain).square().mean() for found in (some, every)]
    assert 0 < distances[0] < distances[1]
    with pytest.raises(UsageError, match=r"no layer encoder\.nowhere"):
        rounded(tiny_model(0), "encoder.nowhere")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model.init=''", "model.decoder_init=teacher"], "model.int8 fine-tunes"),
        (["model.int8=false", "model.float_layers=['encoder.neck']"], "without model.int8"),
        (["stage.freeze_decoder=false", "stage.freeze_encoder=true"], "not trained here"),
    ],
)
def test_recipes_that_round_nothing_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Recipe.load("laptop-qat", settings)
