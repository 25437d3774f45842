"""Stage 1 on real students: the loss by hand, who is trained, and what a look at it leaves alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_stage import SIZES, frozen, inside, make_batch, part, small_model, tiny_model
from torch import Tensor

from distill.data.batch import Batch
from distill.stages.encoder import EncoderStage

TEACHER = frozen(small_model(1))


def state(stage: EncoderStage) -> dict[str, Tensor]:
    return copy.deepcopy(stage.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_loss_equals_a_loop_over_pictures_cells_and_channels() -> None:
    stage, batch = EncoderStage(small_model(0), TEACHER), make_batch("box")
    told = stage(batch)
    total = cosines = 0.0
    for n in range(3):
        height, width = SIZES[n]
        one = torch.zeros(1, 3, 64, 64)
        shown = batch.frames[n, :, :height, :width].float()
        one[0, :, :height, :width] = (shown - stage.model.pixel_mean) / stage.model.pixel_std
        found, wanted = stage.model.image_encoder(one)[0], TEACHER.model.image_encoder(one)[0]
        cells = inside(batch.sizes[n], 64, 16)
        total += sum((found[:, y, x] - wanted[:, y, x]).square().sum().item() / 256 for y, x in cells) / len(cells)
        angles = (torch.cosine_similarity(found[:, y, x], wanted[:, y, x], dim=0).item() for y, x in cells)
        cosines += sum(angles) / len(cells)
    assert told["loss"].item() == pytest.approx(total / 3, rel=1e-4)
    assert told["cosine"].item() == pytest.approx(cosines / 3, rel=1e-3)
    assert not told["cosine"].requires_grad


def test_the_loss_of_a_batch_is_the_mean_over_processes_that_share_it() -> None:
    stage, batch = EncoderStage(small_model(0), TEACHER), make_batch("point", (2, 1))
    halves = [stage(part(batch, rows))["loss"] for rows in (slice(0, 1), slice(1, 2))]
    torch.testing.assert_close(torch.stack(halves).mean(), stage(batch)["loss"])


def test_every_parameter_of_the_encoder_is_trained_and_no_other() -> None:
    teacher = frozen(tiny_model(1))
    stage = EncoderStage(tiny_model(0), teacher).train()
    batch = make_batch("box", (1, 1), side=256)
    stage(batch)["loss"].backward()
    names = {name for name, _ in stage.trainable()}
    assert names == {f"model.image_encoder.{name}" for name, _ in stage.model.image_encoder.named_parameters()}
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == (name in names), name
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_a_batch_without_pictures_gives_zero_and_a_gradient_of_zeros() -> None:
    stage = EncoderStage(tiny_model(0), TEACHER).train()
    batch = part(make_batch("box", (1,), side=256), slice(0, 0))
    told = stage(batch)
    told["loss"].backward()
    assert told["loss"] == 0
    assert all(p.grad is not None and not p.grad.any() for _, p in stage.trainable())


def test_a_teacher_is_neither_saved_nor_moved_with_its_student() -> None:
    student = small_model(0)
    stage = EncoderStage(student, TEACHER)
    assert {name for name, _ in stage.named_parameters()} == {
        f"model.{name}" for name, _ in student.named_parameters()
    }


def test_only_the_encoder_leaves_evaluation_mode() -> None:
    stage = EncoderStage(small_model(0), TEACHER)
    for mode in (True, False):
        assert stage.train(mode) is stage and stage.training is mode
        assert stage.model.image_encoder.training is mode
        assert not stage.model.prompt_encoder.training and not stage.model.mask_decoder.training
    assert not TEACHER.model.training


def test_an_optimiser_brings_the_loss_down() -> None:
    stage, batch = EncoderStage(small_model(0), TEACHER), make_batch("box")
    optimiser = torch.optim.AdamW([p for _, p in stage.trainable()], lr=1e-3)
    losses = []
    for _ in range(20):
        told = stage(batch)
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
        losses.append(told["loss"].item())
    assert losses[-1] < 0.5 * losses[0]


def test_bfloat16_and_channels_last_change_the_loss_little() -> None:
    """Here without batch statistics: those of an untrained network blow rounding up."""
    stage, batch = EncoderStage(tiny_model(0), frozen(tiny_model(1))).eval(), make_batch("box", (1, 1), side=256)
    plain = stage(batch)
    stage.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        quick = stage(batch)
    assert quick["loss"].dtype == torch.float32
    assert quick["loss"].item() == pytest.approx(plain["loss"].item(), rel=0.05)
    quick["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for _, p in stage.trainable())


@pytest.mark.parametrize("kind", ["box", "point", None])
def test_comparison_shows_pictures_with_two_masks_each_and_changes_nothing(kind: str | None) -> None:
    stage = EncoderStage(tiny_model(0), frozen(tiny_model(1))).train()
    batch = make_batch(kind or "box", (2, 1), side=256)
    if kind is None:
        batch = Batch(batch.names, batch.frames, batch.sizes)
    before = state(stage)
    shown = stage.comparison(batch)
    assert same(before, state(stage)) and stage.training and stage.model.image_encoder.training
    assert len(shown) == 2
    for (photo, told, found), frame, (height, width) in zip(shown, batch.frames, batch.sizes.tolist(), strict=True):
        assert np.array_equal(photo, frame[:, :height, :width].permute(1, 2, 0).numpy())
        assert told.shape == found.shape == (height, width) and told.dtype == found.dtype == np.bool_


def test_comparison_of_equal_encoders_shows_equal_masks_of_four_pictures_at_most() -> None:
    stage = EncoderStage(copy.deepcopy(TEACHER.model), TEACHER)
    batch = make_batch("point", (1, 2, 1))
    batch.frames, batch.sizes = batch.frames.repeat(2, 1, 1, 1), batch.sizes.repeat(2, 1)
    batch.names *= 2
    batch.prompts = None
    shown = stage.comparison(batch)
    assert len(shown) == 4
    assert all(np.array_equal(told, found) for _, told, found in shown)
    assert any(told.any() and not told.all() for _, told, _ in shown)
