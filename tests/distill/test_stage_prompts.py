"""Stage 2 against a loop over pictures, prompts and pixels; who is trained; batches that are out of the ordinary."""

from __future__ import annotations

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
from small_stage import frozen, inside, make_batch, part, small_model, tiny_model
from torch import Tensor

from distill.data.batch import Batch, normalise
from distill.stages.prompts import PromptOptions, PromptStage
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.sam import Sam

TEACHER = frozen(small_model(1))


def stage_of(seed: int = 0, **options: object) -> PromptStage:
    return PromptStage(small_model(seed), TEACHER, PromptOptions(**options))


def naive(student: Sam, batch: Batch, *, rounds: int, iou: float = 0.0, masks: bool = False) -> list[Tensor]:
    """The loss of each pass, 5 BCE + 5 Dice + ``iou`` times the IoU head's, with gradients; one prompt at a time."""
    prompts = batch.prompts
    assert prompts is not None
    teacher, frames = TEACHER.model, normalise(student, batch)
    losses = [torch.zeros(())] * (rounds + 1)
    for n, picture in enumerate(prompts.image.tolist()):
        pixels = inside(batch.sizes[picture], 64, 4)
        rows, columns = torch.tensor(pixels).T
        pictures = [model.image_encoder(frames[picture : picture + 1]) for model in (teacher, student)]
        share = 1 / (len(batch) * int((prompts.image == picture).sum()))
        points = [] if prompts.kind == "box" else [prompts.points[n].tolist()]
        labels = [1.0] * len(points)
        box = prompts.boxes[n : n + 1] if prompts.kind == "box" else None
        previous: list[Tensor | None] = [None, None]
        for turn in range(rounds + 1):
            outputs = []
            for model, embedding, mask in zip((teacher, student), pictures, previous, strict=True):
                given = (torch.tensor([points]), torch.tensor([labels])) if points else None
                tokens, dense = model.prompt_encoder(given, box, mask)
                for place, label in enumerate(labels):
                    if label == -2:
                        tokens = torch.cat([tokens[:, :place], torch.zeros(1, 1, 256), tokens[:, place + 1 :]], 1)
                pe = model.prompt_encoder.get_dense_pe()
                outputs.append(model.mask_decoder(embedding, pe, tokens, dense, 1 if box is not None else 4))
            (theirs, quality), (ours, score) = outputs
            for m in range(ours.shape[1]):
                x, t = ours[0, m][rows, columns], (theirs[0, m][rows, columns] > 0).float()
                p = x.sigmoid()
                bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
                dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
                both, any_ = ((x > 0) & (t > 0)).sum(), ((x > 0) | (t > 0)).sum()
                overlap = (both / any_).item() if any_ else 1.0
                head = (score[0, m] - quality[0, m] * overlap) ** 2
                losses[turn] = losses[turn] + (5 * bce + 5 * dice + iou * head) * share / ours.shape[1]
            best = int(quality[0].argmax())
            mine, wanted = ours[0, best] > 0, theirs[0, best] > 0
            wrong = [(y, x) for y, x in pixels if mine[y, x] != wanted[y, x]]
            if turn < rounds:
                if len(wrong) < 10:
                    points, labels = [*points, [0.0, 0.0]], [*labels, -2.0]
                else:
                    y, x = wrong[int(prompts.uniform[n, turn].item() * len(wrong))]
                    points, labels = [*points, [4 * x + 1.5, 4 * y + 1.5]], [*labels, float(wanted[y, x])]
                if masks:
                    previous = [theirs[:, best : best + 1].detach(), ours[:, best : best + 1].detach()]
    return losses


def encoder_gradient(model: Sam) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.image_encoder.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["box", "point"])
@pytest.mark.parametrize(
    "options",
    [{"rounds": 0}, {"rounds": 1}, {"rounds": 2, "iou_loss": 0.5}, {"rounds": 2, "mask_prompts": 1.0}],
    ids=["no round", "one round", "two rounds and IoU", "mask prompts"],
)
def test_loss_and_gradient_equal_a_loop_over_prompts(kind: str, options: dict[str, float]) -> None:
    stage, batch = stage_of(**options), make_batch(kind, (2, 0, 3), rounds=2)
    told = stage(batch)
    told["loss"].backward()
    reference = small_model(0)
    asked = {"iou": options.get("iou_loss", 0.0), "masks": bool(options.get("mask_prompts"))}
    losses = naive(reference, batch, rounds=int(options["rounds"]), **asked)
    expected = torch.stack(losses).mean()
    expected.backward()
    assert told["loss"].item() == pytest.approx(expected.item(), rel=1e-3)
    torch.testing.assert_close(
        encoder_gradient(stage.model), encoder_gradient(reference), rtol=1e-2, atol=1e-3 * expected.item()
    )


def test_the_second_pass_reaches_the_encoder_on_its_own() -> None:
    """The second pass's gradient is twice that of both passes' mean less the first's; a loop gives the same."""
    batch, gradients = make_batch("box"), []
    for rounds in (0, 1):
        stage = stage_of(rounds=rounds)
        stage(batch)["loss"].backward()
        gradients.append(encoder_gradient(stage.model))
    second = 2 * gradients[1] - gradients[0]
    reference = small_model(0)
    naive(reference, batch, rounds=1)[1].backward()
    expected = encoder_gradient(reference)
    assert expected.norm() > 0
    assert (second - expected).norm() < 1e-2 * expected.norm()


def test_a_student_that_equals_its_teacher_has_nothing_to_correct() -> None:
    stage = PromptStage(copy.deepcopy(TEACHER.model), TEACHER, PromptOptions(iou_loss=1.0, mask_prompts=0.5))
    seen: list[Tensor] = []
    stage.model.prompt_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][1]))
    for kind in ("box", "point"):
        told = stage(make_batch(kind))
        assert told["agreement"] == 1 and told["corrected"] == 0 and told["iou"] == 0
        assert (seen[-1][:, -1] == -2).all()


def test_rounds_add_points_and_keep_the_box_or_the_first_point() -> None:
    for kind, first in (("box", 0), ("point", 1)):
        stage, batch = stage_of(rounds=3), make_batch(kind, rounds=3)
        seen: list[tuple[tuple[Tensor, Tensor], Tensor | None]] = []
        hook = stage.model.prompt_encoder.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[:2])
        )
        told = stage(batch)
        hook.remove()
        assert [points.shape[1] for (points, _), _ in seen] == [first, first + 1, first + 2, first + 3]
        for (points, labels), (later, later_labels) in zip(
            [s[0] for s in seen], [s[0] for s in seen[1:]], strict=False
        ):
            count = points.shape[1]
            assert torch.equal(later[:, :count], points) and torch.equal(later_labels[:, :count], labels)
        assert batch.prompts is not None
        for _, boxes in seen:
            assert boxes is None if kind == "point" else boxes is batch.prompts.boxes
        assert 0 < told["corrected"] <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rounds": 0},
        {"train_tokens": False},
        {"freeze_decoder": True},
        {"freeze_encoder": True},
        {"iou_loss": 1.0, "mask_prompts": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["box", "point"])
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one_does(kind: str, options: dict) -> None:
    stage = stage_of(**options).train()
    stage(make_batch(kind))["loss"].backward()
    trainable = {name for name, _ in stage.trainable()}
    parts = {name.removeprefix("model.").split(".")[0] for name in trainable}
    assert ("image_encoder" in parts) is not options.get("freeze_encoder", False)
    assert ("mask_decoder" in parts) is not options.get("freeze_decoder", False)
    assert "prompt_encoder" not in parts
    tokens = {"model.mask_decoder.mask_tokens.weight", "model.mask_decoder.iou_token.weight"}
    assert (tokens <= trainable) is (options.get("train_tokens", True) and "mask_decoder" in parts)
    assert any("iou_prediction_head" in name for name in trainable) is ("iou_loss" in options)
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is not None) == (name in trainable), name
        if parameter.grad is not None:
            # A box asks for mask 0 only; the other masks' layers get a gradient of zeros. A constant added to
            # every key changes no softmax, so a key's bias gets nothing but rounding.
            other = kind == "box" and any(f"hypernetworks_mlps.{n}." in name for n in (1, 2, 3))
            if not name.endswith("k_proj.bias"):
                assert bool(parameter.grad.any()) is not other, name
    assert all(parameter.grad is None for parameter in TEACHER.model.parameters())


@pytest.mark.parametrize("freeze", [None, "freeze_encoder", "freeze_decoder"])
def test_a_batch_without_prompts_gives_zero_and_a_gradient_of_zeros_to_all_that_is_trained(
    freeze: str | None,
) -> None:
    stage = PromptStage(tiny_model(0), frozen(tiny_model(1)), PromptOptions(**({freeze: True} if freeze else {})))
    told = stage.train()(make_batch("box", (0, 0), side=256))
    assert told["loss"] == 0
    told["loss"].backward()
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or not parameter.grad.any()
    assert stage.comparison(make_batch("box", (0, 0), side=256)) == []


def test_a_batch_without_pictures_gives_zero_as_well() -> None:
    stage = PromptStage(tiny_model(0), frozen(tiny_model(1)), PromptOptions()).train()
    batch = part(make_batch("box", (1,), side=256), slice(0, 0))
    told = stage(batch)
    told["loss"].backward()
    assert told["loss"] == 0
    assert all(p.grad is not None and not p.grad.any() for _, p in stage.trainable())
    assert stage.comparison(batch) == []


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_loss_of_a_batch_is_the_mean_over_processes_that_share_it(kind: str) -> None:
    """Also where one of them has no prompts, and whichever prompts are given masks."""
    stage, batch = stage_of(mask_prompts=0.5), make_batch(kind, (3, 1, 0))
    shares = [stage(part(batch, slice(n, n + 1)))["loss"] for n in range(3)]
    assert shares[2] == 0
    torch.testing.assert_close(torch.stack(shares).mean(), stage(batch)["loss"], rtol=1e-4, atol=0)


def test_padding_has_no_part_in_the_loss() -> None:
    """The same embeddings, and a frame whose padding would be full of disagreement."""
    stage, batch = stage_of(rounds=0), make_batch("point", (2, 2))
    told = stage(batch)["loss"]
    grown = Batch(batch.names, batch.frames, torch.full_like(batch.sizes, 64), batch.prompts)
    assert stage(grown)["loss"] != told
    batch.frames[0, :, 48:] = 255  # what the loader never leaves there; the encoder must not see it either
    assert stage(batch)["loss"] == told


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    for encoder, decoder in product((False, True), repeat=2):
        if encoder and decoder:
            continue
        stage = stage_of(freeze_encoder=encoder, freeze_decoder=decoder)
        for mode in (True, False):
            model = stage.train(mode).model
            assert stage.training is mode and not model.prompt_encoder.training
            assert model.image_encoder.training is (mode and not encoder)
            assert model.mask_decoder.training is (mode and not decoder)


def test_a_frozen_encoders_batch_norms_do_not_drift() -> None:
    stage = PromptStage(tiny_model(0), frozen(tiny_model(1)), PromptOptions(freeze_encoder=True)).train()
    before = copy.deepcopy(stage.model.image_encoder.state_dict())
    stage(make_batch("box", (1, 1), side=256))["loss"].backward()
    after = stage.model.image_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_bfloat16_and_channels_last_change_the_loss_little() -> None:
    stage = PromptStage(tiny_model(0), frozen(tiny_model(1)), PromptOptions()).eval()
    batch = make_batch("box", (2, 1), side=256)
    plain = stage(batch)
    stage.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        quick = stage(batch)
    assert quick["loss"].dtype == torch.float32
    assert math.isclose(quick["loss"].item(), plain["loss"].item(), rel_tol=0.1)
    quick["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for _, p in stage.trainable())


def test_an_optimiser_brings_the_masks_together() -> None:
    stage, batch = stage_of(), make_batch("box")
    optimiser = torch.optim.AdamW([p for _, p in stage.trainable()], lr=1e-3)
    told = []
    for _ in range(12):
        told.append(stage(batch))
        optimiser.zero_grad()
        told[-1]["loss"].backward()
        optimiser.step()
    assert told[-1]["loss"] < 0.8 * told[0]["loss"]
    assert told[-1]["agreement"] > told[0]["agreement"]


def test_comparison_decodes_with_each_models_own_decoder() -> None:
    stage, batch = stage_of().train(), make_batch("point")
    shown = stage.comparison(batch)
    assert len(shown) == 3 and stage.training
    same = PromptStage(copy.deepcopy(TEACHER.model), TEACHER, PromptOptions()).comparison(batch)
    assert all(np.array_equal(told, found) for _, told, found in same)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(shown, same, strict=True))
    assert any(not np.array_equal(told, found) for _, told, found in shown)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rounds": -1}, "-1 correction rounds"),
        ({"bce": -1.0}, "bce -1"),
        ({"bce": 0.0, "dice": 0.0}, "dice 0"),
        ({"mask_prompts": 1.5}, "no probability"),
        ({"mask_prompts": float("nan")}, "no probability"),
        ({"bce": float("nan")}, "bce nan"),
        ({"iou_loss": float("nan")}, "iou_loss nan"),
        ({"mask_prompts": 0.5, "rounds": 0}, "without correction rounds"),
        ({"freeze_encoder": True, "freeze_decoder": True}, "both frozen"),
        ({"freeze_decoder": True, "iou_loss": 1.0}, "frozen decoder"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        PromptOptions(**options)
