"""Objects that a teacher finds: in scenes whose objects are known, against plain loops, and at the limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from distill.data.teacher_prompts import PromptSettings, distinct, find_prompts, grid_points, stability
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.choice import stability_score
from edgesam_mobile.model.sam import Sam

SIDE, STRIDE = 256, 4
SIZE = (192, 256)  # 48 x 64 cells of the masks are the picture
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in cells


class PlainPrompts(nn.Module):
    """Hands the points' coordinates through where a prompt encoder would embed them."""

    def forward(self, points: tuple[Tensor, Tensor], boxes: None, masks: None) -> tuple[Tensor, Tensor]:
        return points[0], torch.zeros(len(points[0]), 256, SIDE // 16, SIDE // 16)

    def get_dense_pe(self) -> Tensor:
        return torch.zeros(1, 256, SIDE // 16, SIDE // 16)


class Scene(nn.Module):
    """Answers a point with the object under it, with all the rest, and with a speck; sure of what is told."""

    def __init__(self, objects: list[Box], *, iou: float = 0.95, strength: float = 8.0) -> None:
        super().__init__()
        self.objects, self.iou, self.strength = objects, iou, strength

    def forward(self, image: Tensor, pe: Tensor, points: Tensor, dense: Tensor, count: int) -> tuple[Tensor, Tensor]:
        masks = torch.zeros(len(points), count, SIDE // STRIDE, SIDE // STRIDE, dtype=torch.bool)
        masks[:, -1, 1, 1] = True
        for row, (x, y) in enumerate((points[:, 0] // STRIDE).tolist()):
            for x1, y1, x2, y2 in self.objects:
                if x1 <= x < x2 and y1 <= y < y2:
                    masks[row, 0, y1:y2, x1:x2] = True
        masks[:, 1] = ~masks[:, 0]
        logits = torch.where(masks, self.strength, -self.strength)
        return logits, torch.full(masks.shape[:2], self.iou)


def find(
    objects: list[Box],
    settings: PromptSettings = PromptSettings(),  # noqa: B008
    *,
    architecture: str = "mobile-sam",
    size: tuple[int, int] = SIZE,
    **options: float,
) -> tuple[Tensor, Tensor]:
    model = Sam(nn.Identity(), architecture=architecture, image_size=SIDE)
    model.prompt_encoder, model.mask_decoder = PlainPrompts(), Scene(objects, **options)
    return find_prompts(model, torch.zeros(256, SIDE // 16, SIDE // 16), size, settings)


def naive_distinct(masks: npt.NDArray[np.bool_], scores: list[float], limit: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        overlaps = [
            (masks[index] & masks[other]).sum() / max((masks[index] | masks[other]).sum(), 1) for other in kept
        ]
        if all(overlap <= limit for overlap in overlaps):
            kept.append(index)
    return kept


def test_every_object_under_the_grid_gives_its_box_and_a_point_inside_it() -> None:
    objects: list[Box] = [(4, 4, 20, 14), (30, 8, 50, 40), (6, 24, 22, 44)]
    boxes, points = find(objects, PromptSettings(max_area=0.3))
    expected = torch.tensor(objects).float() * STRIDE
    assert sorted(boxes.tolist()) == sorted(expected.tolist())
    assert ((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all()
    assert boxes.dtype == points.dtype == torch.float32


def test_what_lies_in_the_padding_is_cut_off() -> None:
    boxes, _ = find([(10, 30, 30, 64)])
    assert [40, 120, 120, 192] in boxes.tolist()
    assert (boxes[:, 3] <= SIZE[0]).all()


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (PromptSettings(min_area=0.3), {}),
        (PromptSettings(max_area=0.05), {}),
        (PromptSettings(), {"iou": 0.79}),
        (PromptSettings(), {"strength": 0.5}),
    ],
    ids=["speck", "background", "unsure", "unstable"],
)
def test_a_picture_whose_masks_are_all_unfit_has_no_prompts(
    settings: PromptSettings, options: dict[str, float]
) -> None:
    objects: list[Box] = [(2, 2, 20, 20)]
    assert len(find(objects)[0]) > 0
    # Its complement is an object as well, too large for the first and too small for none.
    boxes, points = find(objects, replace(settings, max_area=min(settings.max_area, 0.5)), **options)
    assert boxes.shape == (0, 4)
    assert points.shape == (0, 2)


def test_an_edgesam_teachers_own_estimate_is_not_asked() -> None:
    assert len(find([(2, 2, 20, 20)], architecture="edge-sam", iou=0.0)[0]) > 0


def test_the_best_are_kept_when_there_are_too_many() -> None:
    objects: list[Box] = [(4, 4, 20, 14), (30, 8, 50, 40), (6, 24, 22, 44)]
    assert len(find(objects, PromptSettings(max_area=0.3, max_prompts=2))[0]) == 2


def test_a_point_beside_its_mask_is_moved_into_it() -> None:
    # Only one row of the grid, beside the object: what is found is the rest of the picture and the object.
    class Elsewhere(Scene):
        def forward(
            self, image: Tensor, pe: Tensor, points: Tensor, dense: Tensor, count: int
        ) -> tuple[Tensor, Tensor]:
            logits = torch.full((len(points), count, SIDE // STRIDE, SIDE // STRIDE), -8.0)
            logits[:, :, 10:15, 50:59] = 8
            return logits, torch.ones(len(points), count)

    model = Sam(nn.Identity(), architecture="mobile-sam", image_size=SIDE)
    model.prompt_encoder, model.mask_decoder = PlainPrompts(), Elsewhere([])
    boxes, points = find_prompts(model, torch.zeros(256, 16, 16), SIZE, PromptSettings(points_per_side=1))
    assert boxes.tolist() == [[200, 40, 236, 60]]
    assert 200 + 8 <= points[0, 0] <= 236 - 8  # farthest from the edges: in the middle
    assert points[0, 1] == pytest.approx(50, abs=0.5)


@given(
    arrays(np.bool_, st.tuples(st.integers(0, 12), st.just(4), st.just(4))),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    st.randoms(use_true_random=False),
)
def test_duplicates_fall_as_in_a_plain_loop(masks: npt.NDArray[np.bool_], limit: float, random: object) -> None:
    scores = list(range(len(masks)))
    random.shuffle(scores)  # type: ignore[attr-defined]
    kept = distinct(torch.from_numpy(masks), torch.tensor(scores, dtype=torch.float32), limit)
    assert kept.tolist() == naive_distinct(masks, [float(score) for score in scores], limit)


@given(arrays(np.float32, (3, 5, 5), elements=st.floats(-4, 4, width=32)))
def test_stability_is_the_one_that_applications_compute(logits: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(stability(torch.from_numpy(logits)).numpy(), stability_score(logits), rtol=1e-6)


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 20))
def test_the_grid_lies_inside_the_picture_and_is_even(height: int, width: int, per_side: int) -> None:
    points = grid_points((height, width), 512, per_side)
    assert 1 <= len(points) <= per_side**2
    assert len({tuple(point) for point in points.tolist()}) == len(points)
    assert (points > 0).all()
    assert (points[:, 0] < width).all()
    assert (points[:, 1] < height).all()
    torch.testing.assert_close(points.mean(0), torch.tensor([width / 2, height / 2]), rtol=1e-4, atol=1e-3)


def test_a_frame_full_of_picture_has_the_grid_that_was_asked_for() -> None:
    assert grid_points((512, 512), 512, 2).tolist() == [[128, 128], [384, 128], [128, 384], [384, 384]]
    assert len(grid_points((384, 512), 512, 8)) == 48


@torch.no_grad()
def test_the_decoder_answers_many_points_on_one_picture_as_each_alone() -> None:
    torch.manual_seed(0)
    model = Sam(nn.Identity(), architecture="mobile-sam", image_size=64).eval()
    embedding, points = torch.randn(1, 256, 4, 4), grid_points((64, 64), 64, 2)[:, None]
    sparse, dense = model.prompt_encoder((points, torch.ones(4, 1)), None, None)
    positions = model.prompt_encoder.get_dense_pe()
    together = model.mask_decoder(embedding, positions, sparse, dense[:1], 3)
    for row in range(4):
        alone = model.mask_decoder(embedding, positions, sparse[row : row + 1], dense[row : row + 1], 3)
        torch.testing.assert_close(together[0][row], alone[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[1][row], alone[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"points_per_side": 0}, {"max_prompts": 0}, {"max_overlap": 1.1}, {"min_area": -1}]
)
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="impossible settings"):
        PromptSettings(**changes)  # type: ignore[arg-type]
