"""The flat list of prompts against one prompt at a time."""

from __future__ import annotations

import pytest
import torch
from small_stage import make_batch, small_model
from torch import Tensor, nn

from distill.decode import Prompted, decode

MODEL = small_model(0).requires_grad_(False)
PICTURES = torch.randn(3, 256, 4, 4, generator=torch.Generator().manual_seed(0))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def alone(
    picture: Tensor,
    points: tuple[Tensor, Tensor] | None,
    boxes: Tensor | None,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All four masks by the model's own parts, as its predictor uses them."""
    sparse, dense = MODEL.prompt_encoder(points, boxes, masks)
    return MODEL.mask_decoder(picture[None], MODEL.prompt_encoder.get_dense_pe(), sparse, dense, 4)


@pytest.mark.parametrize("kind", ["box", "point"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_prompts_on_several_pictures_decode_as_each_does_alone(kind: str, layout: torch.memory_format) -> None:
    prompts = make_batch(kind).prompts
    assert prompts is not None
    logits, iou = Prompted.first(prompts).decode(MODEL, PICTURES.contiguous(memory_format=layout))
    assert logits.shape == (9, 1 if kind == "box" else 4, 16, 16) and iou.shape == logits.shape[:2]
    for n, picture in enumerate(prompts.image):
        if kind == "box":
            one, score = alone(PICTURES[picture], None, prompts.boxes[n : n + 1])
        else:
            point = prompts.points[n].reshape(1, 1, 2), torch.ones(1, 1)
            one, score = alone(PICTURES[picture], point, None)
        masks = logits.shape[1]
        torch.testing.assert_close(logits[n : n + 1], one[:, :masks], **CLOSE)
        torch.testing.assert_close(iou[n : n + 1], score[:, :masks], **CLOSE)


def test_later_points_join_the_box_and_the_earlier_points() -> None:
    prompts = make_batch("box").prompts
    assert prompts is not None
    extra = prompts.points.flip(0)
    asked = Prompted.first(prompts)
    for points, label in ((prompts.points, 0.0), (extra, 1.0)):
        asked = asked.then(points[:, None], torch.full((9, 1), label), None)
    logits, _ = asked.decode(MODEL, PICTURES)
    both = torch.stack([prompts.points[4], extra[4]])[None], torch.tensor([[0.0, 1.0]])
    expected, _ = alone(PICTURES[prompts.image[4]], both, prompts.boxes[4:5])
    torch.testing.assert_close(logits[4:5], expected[:, :1], **CLOSE)


@pytest.mark.parametrize("box", [True, False])
def test_no_disagreement_is_a_token_of_zeros(box: bool) -> None:
    """And changes neither the other points' tokens nor the padding token."""
    where, boxes = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[1.0, 2.0, 30.0, 40.0]]) if box else None
    seen: list[Tensor] = []
    hook = MODEL.mask_decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    labels = torch.tensor([[1.0, -2.0]])
    try:
        decode(MODEL, PICTURES, torch.tensor([1]), points=where, labels=labels, boxes=boxes, num_masks=1)
    finally:
        hook.remove()
    expected, _ = MODEL.prompt_encoder((where[:, :1], torch.ones(1, 1)), boxes, None)
    torch.testing.assert_close(seen[0][:, [0, *range(2, expected.shape[1] + 1)]], expected)
    assert not seen[0][:, 1].any()


def test_a_mask_is_a_prompt_only_where_wanted() -> None:
    prompts, masks = (
        make_batch("point").prompts,
        torch.randn(9, 1, 16, 16, generator=torch.Generator().manual_seed(1)),
    )
    assert prompts is not None
    points, labels, wanted = prompts.points[:, None], torch.ones(9, 1), torch.arange(9) % 2 == 0
    given = {"points": points, "labels": labels, "num_masks": 4}
    logits, _ = decode(MODEL, PICTURES, prompts.image, masks=masks, masked=wanted, **given)
    without, _ = decode(MODEL, PICTURES, prompts.image, **given)
    for n in range(9):
        own = masks[n : n + 1] if wanted[n] else None
        expected, _ = alone(PICTURES[prompts.image[n]], (points[n : n + 1], labels[n : n + 1]), None, own)
        torch.testing.assert_close(logits[n : n + 1], expected, **CLOSE)
        assert torch.allclose(logits[n], without[n], rtol=1e-4) is not bool(wanted[n])


def test_prompts_keep_single_precision_under_autocast() -> None:
    """Two points a quarter of a pixel apart must not become one."""
    where = torch.tensor([[[60.0, 60.0]], [[60.25, 60.0]]])
    tokens: list[Tensor] = []
    hook = MODEL.mask_decoder.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[2]))
    try:
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                decode(MODEL, PICTURES, torch.tensor([0, 1]), points=where, labels=torch.ones(2, 1), num_masks=4)
    finally:
        hook.remove()
    assert torch.equal(*tokens)
    assert not torch.equal(tokens[1][0], tokens[1][1])


def test_gradients_of_all_prompts_add_up_in_their_pictures_embedding() -> None:
    prompts = make_batch("box", (2, 0, 1)).prompts
    assert prompts is not None
    pictures = nn.Parameter(PICTURES.clone())
    logits, _ = Prompted.first(prompts).decode(MODEL, pictures)
    logits.square().sum().backward()
    assert pictures.grad is not None and pictures.grad[[0, 2]].flatten(1).any(1).all() and not pictures.grad[1].any()
    expected = 0.0
    for n in (0, 1):
        own = PICTURES[0].clone().requires_grad_()
        alone(own, None, prompts.boxes[n : n + 1])[0][:, :1].square().sum().backward()
        assert own.grad is not None
        expected = expected + own.grad
    torch.testing.assert_close(pictures.grad[0], expected, rtol=1e-3, atol=1e-3)
