"""Prediction: segment-anything's answers for every kind of prompt, and clear refusals for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.choice import best_mask, stability_score
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.registry import ARCHITECTURES
from edgesam_mobile.model.sam import Sam

Picture = npt.NDArray[np.uint8]

EYES, BOX = [245, 140], [28, 0, 400, 288]
MANY = {"point_coords": [EYES, [120.5, 60.25], [440, 20], [10, 290], [300, 250]], "point_labels": [1, 1, 0, 0, 1]}
PROMPTS: dict[str, dict[str, Any]] = {
    "a point": {"point_coords": [EYES], "point_labels": [1]},
    "a background point": {"point_coords": [[440, 20]], "point_labels": [0]},
    "the picture's corners": {"point_coords": [[0, 0], [451, 300]], "point_labels": [1, 0]},
    "many points": MANY,
    "a box": {"box": BOX},
    "a box and points": {**MANY, "box": BOX},
    "a mask": {"mask": "mask"},
    "a mask and a point": {"mask": "mask", "point_coords": [EYES], "point_labels": [1]},
    "a mask, a box and points": {**MANY, "box": BOX, "mask": "mask"},
    "nothing": {},
}


@pytest.fixture(scope="module")
def mask(cat_predictor: SamPredictor) -> npt.NDArray[np.float32]:
    """Logits of an earlier answer, to refine."""
    return cat_predictor.predict([[120, 60]], [1], num_multimask_outputs=1)[2]


@pytest.fixture(scope="module")
def expected(
    segment_anything: Callable[[str, Path], None],
    cat_predictor: SamPredictor,
    cat: Picture,
    mask: npt.NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, npt.NDArray[np.float32]]:
    """segment-anything's answers with MobileSAM's prompt encoder and mask decoder, given our embedding."""
    folder = tmp_path_factory.mktemp("predict")
    state = cat_predictor.model.state_dict()
    parts = {key: tensor for key, tensor in state.items() if not key.startswith("image_encoder.")}
    torch.save({**parts, "embedding": cat_predictor.features.clone()}, folder / "decoder.pt")
    np.savez(folder / "inputs.npz", picture=cat, mask=mask)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    segment_anything("predict", folder)
    return dict(np.load(folder / "answers.npz"))


@pytest.fixture
def small_predictor(small_standin: Sam) -> SamPredictor:
    return SamPredictor(small_standin)


def arguments(name: str, mask: npt.NDArray[np.float32]) -> dict[str, Any]:
    prompt = dict(PROMPTS[name])
    return prompt | ({"mask_input": mask} if prompt.pop("mask", None) else {})


@pytest.mark.slow
def test_the_encoder_gets_what_segment_anything_gives_it(
    cat_predictor: SamPredictor, cat: Picture, expected: dict[str, npt.NDArray[np.float32]]
) -> None:
    resized = torch.from_numpy(cat_predictor.transform.apply_image(cat))
    picture = cat_predictor.model.preprocess(resized.permute(2, 0, 1)[None].float())
    np.testing.assert_allclose(picture.numpy(), expected["picture"], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", PROMPTS)
def test_answers_are_those_of_segment_anything(
    cat_predictor: SamPredictor,
    mask: npt.NDArray[np.float32],
    expected: dict[str, npt.NDArray[np.float32]],
    name: str,
    count: int,
) -> None:
    logits, scores, low_res = cat_predictor.predict(
        **arguments(name, mask), num_multimask_outputs=count, return_logits=True
    )
    theirs = {part: expected[f"{name}/{count}/{part}"] for part in ("logits", "scores", "low_res")}
    assert theirs["low_res"].std() > 0.1
    np.testing.assert_allclose(low_res, theirs["low_res"], atol=1e-3, rtol=0)
    np.testing.assert_allclose(scores, theirs["scores"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits, theirs["logits"], atol=2e-3, rtol=0)
    assert logits.shape == (count, 300, 451)
    assert np.mean((logits > 0) == (theirs["logits"] > 0)) >= 0.9999


def test_masks_are_where_logits_are_positive(cat_predictor: SamPredictor) -> None:
    masks, *_ = cat_predictor.predict([EYES], [1])
    logits, *_ = cat_predictor.predict([EYES], [1], return_logits=True)
    assert masks.dtype == np.bool_ and np.array_equal(masks, logits > 0)


@pytest.mark.parametrize("name", ["a point", "a box and points", "a mask"])
def test_four_masks_are_the_one_and_the_three(
    cat_predictor: SamPredictor, mask: npt.NDArray[np.float32], name: str
) -> None:
    one, three, four = (
        cat_predictor.predict(**arguments(name, mask), num_multimask_outputs=count) for count in (1, 3, 4)
    )
    for single, several, all_four in zip(one, three, four, strict=True):
        np.testing.assert_allclose(np.concatenate([single, several]).astype(float), all_four.astype(float), atol=1e-5)


def test_several_prompts_at_once_are_answered_as_one_by_one(cat_predictor: SamPredictor) -> None:
    coords = torch.tensor([[[100.0, 200.0]], [[556.0, 318.0]], [[900.0, 50.0]]])
    labels = torch.tensor([[1.0], [1.0], [0.0]])
    boxes = torch.tensor([[60.0, 0.0, 900.0, 650.0], [10.0, 10.0, 500.0, 400.0], [300.0, 100.0, 1000.0, 680.0]])
    for box in (None, boxes):
        together = cat_predictor.predict_torch((coords, labels), box, None, 4)
        for i in range(3):
            single = None if box is None else box[i : i + 1]
            alone = cat_predictor.predict_torch((coords[i : i + 1], labels[i : i + 1]), single, None, 4)
            for many, one in zip(together, alone, strict=True):
                torch.testing.assert_close(many[i : i + 1], one, atol=1e-3, rtol=0)


def test_a_point_between_the_cats_eyes_gives_the_cat(cat_predictor: SamPredictor) -> None:
    masks, scores, _ = cat_predictor.predict([EYES], [1])
    assert masks[:, EYES[1], EYES[0]].all()
    assert all(0.05 < share < 0.9 for share in masks.mean((1, 2)))
    assert scores.max() > 0.9
    boxed, (score,), _ = cat_predictor.predict(box=BOX, num_multimask_outputs=1)
    assert boxed[0, EYES[1], EYES[0]] and 0.05 < boxed.mean() < 0.9 and score > 0.9
    best = masks[scores.argmax()]
    assert (best & boxed[0]).sum() / (best | boxed[0]).sum() > 0.7
    left, _, right, bottom = BOX
    inside = boxed[0, : bottom + 8, left - 8 : right + 8].sum()
    assert inside / boxed.sum() > 0.99


def test_a_background_point_takes_its_place_out(cat_predictor: SamPredictor) -> None:
    beside = (30, 280)
    with_it = cat_predictor.predict([EYES, beside], [1, 1], num_multimask_outputs=1)[0][0]
    without = cat_predictor.predict([EYES, beside], [1, 0], num_multimask_outputs=1)[0][0]
    assert with_it[beside[1], beside[0]] and not without[beside[1], beside[0]]


def test_the_score_follows_the_architecture_unless_chosen(
    cat_predictor: SamPredictor, small_predictor: SamPredictor, cat: Picture
) -> None:
    assert (cat_predictor.score, small_predictor.score) == ("iou", "stability")
    other = SamPredictor(cat_predictor.model, score="stability")
    other.set_image(cat)
    _, scores, low_res = other.predict([EYES], [1])
    inner, outer = (low_res > 1).sum((1, 2)), (low_res > -1).sum((1, 2))
    np.testing.assert_allclose(scores, inner / outer, rtol=1e-6)


def test_an_empty_masks_stability_is_zero(constant_model: Callable[..., Sam], cat: Picture) -> None:
    predictor = SamPredictor(constant_model("edge-sam", (-20, -0.5, 0.5, 20)))
    predictor.set_image(cat)
    masks, scores, _ = predictor.predict([EYES], [1], num_multimask_outputs=4)
    assert scores.tolist() == [0, 0, 0, 1]
    assert masks.mean((1, 2)).tolist() == [0, 0, 1, 1]


def test_nothing_is_answered_before_a_picture_is_set(small_predictor: SamPredictor, cat: Picture) -> None:
    def refuses() -> None:
        with pytest.raises(UsageError, match="no picture is set"):
            small_predictor.predict([EYES], [1])
        with pytest.raises(UsageError, match="no picture is set"):
            small_predictor.predict_torch(None, None, None, 1)
        with pytest.raises(UsageError, match="no picture is set"):
            _ = small_predictor.features

    refuses()
    small_predictor.set_image(cat)
    assert small_predictor.original_size == (300, 451) and small_predictor.input_size == (341, 512)
    assert small_predictor.features.shape == (1, 256, 32, 32)
    small_predictor.reset_image()
    refuses()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((30, 40, 3), np.float32),
        np.zeros((30, 40, 3), np.int64),
        np.zeros((30, 40), np.uint8),
        np.zeros((30, 40, 4), np.uint8),
        np.zeros((3, 30, 40), np.uint8),
        np.zeros((1, 30, 40, 3), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((30, 0, 3), np.uint8),
    ],
    ids=lambda picture: f"{picture.dtype} {picture.shape}",
)
def test_other_arrays_than_rgb_pictures_are_refused(small_predictor: SamPredictor, picture: npt.NDArray[Any]) -> None:
    with pytest.raises(UsageError) as caught:
        small_predictor.set_image(picture)
    assert str(picture.shape) in caught.value.message and str(picture.dtype) in caught.value.message
    assert small_predictor.original_size is None


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (33, 2000), (1, 2500)])
def test_pictures_of_any_form_are_answered_at_their_size(
    small_predictor: SamPredictor, size: tuple[int, int]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    small_predictor.set_image(picture)
    logits, scores, low_res = small_predictor.predict([[0.5, 0.5]], [1], return_logits=True)
    assert logits.shape == (3, *size) and low_res.shape == (3, 128, 128)
    assert np.isfinite(logits).all() and np.isfinite(scores).all()


def test_pictures_that_are_views_are_read_right(small_predictor: SamPredictor, cat: Picture) -> None:
    mirrored = cat[:, ::-1]
    small_predictor.set_image(mirrored)
    view = small_predictor.features
    small_predictor.set_image(mirrored.copy())
    assert torch.equal(view, small_predictor.features)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"point_coords": [[452, 10]], "point_labels": [1]}, "outside"),
        ({"point_coords": [[10, -1]], "point_labels": [1]}, "outside"),
        ({"point_coords": [[10, 10]], "point_labels": [2]}, "no point label"),
        ({"point_coords": [[10, 10]], "point_labels": [1, 0]}, "labels"),
        ({"point_coords": [[10, 10]]}, "labels"),
        ({"point_labels": [1]}, "coordinates"),
        ({"box": [0, 0, 452, 10]}, "outside"),
        ({"box": [10, 10, 10, 20]}, "empty"),
        ({"box": [10, 10, 20]}, "shape"),
        ({"box": BOX, "num_multimask_outputs": 2}, "1, 3 or 4"),
        ({"box": BOX, "mask_input": np.zeros((128, 128), np.float32)}, "(128, 128)"),
        ({"box": BOX, "mask_input": np.zeros((1, 256, 256), np.float32)}, "(1, 256, 256)"),
        ({"box": BOX, "mask_input": np.zeros((3, 128, 128), np.float32)}, "(3, 128, 128)"),
        ({"box": BOX, "mask_input": np.zeros((1, 1, 128, 128), np.float32)}, "(1, 1, 128, 128)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_prompts_that_make_no_sense_are_refused(
    small_predictor: SamPredictor, cat: Picture, prompt: dict[str, Any], says: str
) -> None:
    small_predictor.set_image(cat)
    with pytest.raises(UsageError) as caught:
        small_predictor.predict(**prompt)
    assert says in caught.value.message


def test_prompts_are_not_changed(small_predictor: SamPredictor, cat: Picture) -> None:
    small_predictor.set_image(cat)
    coords, labels, box = np.array([EYES], np.float32), np.array([1], np.float32), np.array(BOX, np.float32)
    mask = np.ones((1, 128, 128), np.float32)
    small_predictor.predict(coords, labels, box, mask)
    assert coords.tolist() == [EYES] and labels.tolist() == [1] and box.tolist() == BOX and (mask == 1).all()


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=4, max_size=4)


@given(scores=SCORES, point_masks=st.sampled_from([3, 4]))
def test_points_take_the_first_best_of_the_masks_that_compete(scores: list[float], point_masks: int) -> None:
    chosen = best_mask(np.array(scores), has_box=False, point_masks=point_masks)
    competing = range(4 - point_masks, 4)
    assert chosen in competing
    assert scores[chosen] == max(scores[i] for i in competing)
    assert all(scores[i] < scores[chosen] for i in competing if i < chosen)


@given(scores=SCORES, point_masks=st.sampled_from([3, 4]))
def test_a_box_takes_the_first_mask(scores: list[float], point_masks: int) -> None:
    assert best_mask(np.array(scores), has_box=True, point_masks=point_masks) == 0


def test_edge_sam_lets_all_four_masks_compete_and_the_others_three() -> None:
    assert {name: a.point_masks for name, a in ARCHITECTURES.items()} == {
        name: 4 if name.startswith("edge-sam") else 3 for name in ARCHITECTURES
    }


def test_stability_counts_pixels_between_the_thresholds() -> None:
    logits = np.array([[[1.5, 1.0], [-0.5, -1.0]], [[-2, -2], [-2, -2]], [[2, 2], [2, 2]]])
    assert stability_score(logits).tolist() == pytest.approx([1 / 3, 0, 1])
    assert stability_score(logits, offset=0.25).tolist() == pytest.approx([1, 0, 1])
    assert stability_score(logits[:, None]).shape == (3, 1)
