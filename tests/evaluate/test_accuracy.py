"""Accuracy by hand-computed cases, naive versions and pycocotools; evaluation goes on where it was cut short."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
from data_sets import annotation, coco, rectangle
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from edgesam_mobile.errors import PictureError, StorageError, UsageError
from edgesam_mobile.evaluate.accuracy import Evaluation, Settings, evaluate
from edgesam_mobile.evaluate.average_precision import Detection, average_precision, masks_of, read_detections
from edgesam_mobile.evaluate.correction import correction_point
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.evaluate.journal import Journal
from edgesam_mobile.evaluate.metrics import boundary, boundary_iou, mask_iou
from edgesam_mobile.evaluate.subjects import Answers, Prompt, TorchSubject
from edgesam_mobile.evaluate.worst import write_worst
from edgesam_mobile.model.choice import best_mask, stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.predictor import SamPredictor, Score
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.picture import read_picture

Mask = npt.NDArray[np.bool_]


class Drawer:
    """Answers a box with the box moved to the right, a lone point with a square around it, more with everything.

    Its logits are at the resolution of the 64 x 64 pictures, so that masks can be counted by hand.
    """

    def __init__(self, moved: int = 0) -> None:
        self.name, self.identity = "drawer", {"moved": moved}
        self.transform = ResizeLongestSide(64)
        self.moved = moved
        self.pictures = 0
        self.asked: list[Prompt] = []

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        self.pictures += 1

    def answer(self, prompts: Sequence[Prompt], *, best: bool) -> Answers:
        self.asked += prompts
        answers = np.full((len(prompts), 64, 64), -1, np.float32)
        for answer, prompt in zip(answers, prompts, strict=True):
            if prompt.box is not None and not prompt.labels:
                x1, y1, x2, y2 = (int(value) for value in prompt.box)
                answer[y1:y2, x1 + self.moved : x2 + self.moved] = 1
            elif len(prompt.labels) == 1 and prompt.box is None:
                x, y = prompt.points[0].astype(int)
                answer[y - 4 : y + 4, x - 4 : x + 4] = 1
            else:
                answer[:] = 1
        return Answers(answers, np.zeros(len(prompts), np.int64))


def run(folder: Path, subject: Drawer, settings: Settings, **more: Any) -> Evaluation:
    return evaluate(subject, open_source(f"coco:{folder}"), settings, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    objects = [
        annotation(1, 1, (8, 8, 10, 40), area=400),
        annotation(2, 1, (20, 20, 40, 40), area=1600),
        annotation(3, 2, (0, 0, 20, 20), area=99999),
        annotation(4, 2, (0, 0, 64, 64), iscrowd=1),
        annotation(5, 2, (30, 30, 10, 10), segmentation=[[30, 30, 30.1, 30, 30, 30.1]]),
        annotation(6, 2, (20, 30, 10, 10), bbox=[70, 30, 10, 10]),
        annotation(7, 3, (4, 4, 4, 4), segmentation={"size": [9, 9], "counts": [81]}),
    ]
    return coco(tmp_path / "set", objects, (1, 2, 3))


def test_ious_by_hand(folder: Path) -> None:
    result = run(folder, Drawer(moved=2), Settings(refine=0))
    box = result.mean("box")
    # Moved by 2, a mask of width w overlaps w - 2 of w + 2 columns.
    expected = {1: 8 / 12, 2: 38 / 42, 3: 18 / 22}
    assert {record["id"]: pytest.approx(record["iou"][0]) for record in result.records} == expected
    assert (box.objects, box.miou) == (3, pytest.approx(sum(expected.values()) / 3))
    assert (box.small, box.medium, box.large) == tuple(map(pytest.approx, expected.values()))
    assert result.sizes == {"small": 1, "medium": 1, "large": 1}
    # 8 x 8 pixels around the deepest point of 10 x 40, 40 x 40 and 20 x 20 (which the border does not cut off).
    centre = result.mean("centre")
    assert (centre.small, centre.medium) == (pytest.approx(64 / 400), pytest.approx(64 / 1600))
    assert [reason for _, _, reason in result.skipped] == [
        "the mask is empty", "the box is empty", "RLE of 9 x 9 pixels on a picture of 64 x 64",
    ]  # fmt: skip
    assert (result.pictures, result.corrupt) == (3, [])


def test_points_are_added_where_the_mask_was_wrong(folder: Path) -> None:
    subject = Drawer(moved=2)
    result = run(folder, subject, Settings(("box",), refine=2))
    assert result.settings.labels == ["box", "box+1", "box+2"]
    assert [r["iou"][1] for r in result.records] == [pytest.approx(a / 64**2) for a in (400, 1600, 400)]
    added = [prompt for prompt in subject.asked if prompt.labels]
    assert {len(prompt.labels) for prompt in added} == {1, 2}
    for prompt in added:
        x, y = prompt.points[0]
        x1, y1, x2, y2 = prompt.box if prompt.box is not None else (0, 0, 0, 0)
        assert y1 <= y <= y2
        left_out, too_much = x1 <= x < x1 + 2, x2 <= x < x2 + 2
        assert (left_out, too_much) == ((True, False) if prompt.labels[0] == 1 else (False, True))


def test_a_right_mask_gets_no_more_points(folder: Path) -> None:
    subject = Drawer()
    result = run(folder, subject, Settings(("box",), refine=2))
    assert result.mean("box+2").miou == 1 == result.mean("box").boundary_iou
    assert all(not prompt.labels for prompt in subject.asked)


def test_added_points_belong_to_the_object_alone(folder: Path) -> None:
    def points(settings: Settings, data: Path) -> list[Any]:
        subject = Drawer(moved=2)
        run(data, subject, settings)
        return [
            (tuple(map(float, p.box)), p.points.tolist()) for p in subject.asked if p.labels and p.box is not None
        ]

    every = points(Settings(("box",)), folder)
    alone = coco(folder.parent / "alone", [annotation(3, 2, (0, 0, 20, 20))])
    assert points(Settings(("box",)), alone) == [entry for entry in every if entry[0] == (0, 0, 20, 20)]
    assert points(Settings(("box",)), folder) == every
    assert points(Settings(("box",), seed=1), folder) != every


@given(st.integers(0, 999))
def test_a_correction_point_lies_in_the_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((25, 40)) < 0.5
    logits = random.normal(size=(32, 32)).astype(np.float32)
    transform = ResizeLongestSide(64)
    found = correction_point(logits, truth, transform, random)
    assert found is not None  # at 256 x 256, masks of random pixels differ in thousands of cells
    (x, y), label = found
    assert (0 <= x < 40) and (0 <= y < 25)
    # The cell's centre, half a cell right of and below the point; a cell is a quarter of the frame's pixel.
    column, row = x * 1.6 + 0.125, y * 1.6 + 0.125
    assert label == truth[int(row / 1.6), int(column / 1.6)]
    assert label != (logits[int(row / 2), int(column / 2)] > 0)


def test_fewer_than_ten_wrong_cells_are_no_error() -> None:
    transform = ResizeLongestSide(256)
    truth = np.zeros((256, 256), np.bool_)
    logits = np.full((256, 256), -1, np.float32)
    truth[5, 10:19] = True
    assert correction_point(logits, truth, transform, np.random.default_rng(0)) is None
    truth[5, 19] = True
    assert correction_point(logits, truth, transform, np.random.default_rng(0)) is not None
    # What the model predicts on the padding is no error.
    logits[128:] = 1
    assert correction_point(logits, np.zeros((128, 256), np.bool_), transform, np.random.default_rng(0)) is None


def eroded(mask: Mask, times: int) -> Mask:
    """By 3 x 3 pixels, one erosion after the other; beyond the picture is background."""
    for _ in range(times):
        around = np.pad(mask, 1)
        shifted = [around[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
        mask = np.logical_and.reduce(shifted)
    return mask


@given(arrays.arrays(np.uint8, (13, 17), elements=st.integers(0, 9)), st.sampled_from([0.02, 0.1, 0.15]))
def test_boundaries_are_what_erosions_take_away(noise: npt.NDArray[np.uint8], ratio: float) -> None:
    mask = noise > 0
    times = max(1, round(ratio * np.hypot(13, 17)))
    assert np.array_equal(boundary(mask, ratio), mask & ~eroded(mask, times))


def test_boundary_iou_by_hand() -> None:
    a, b = rectangle((10, 10, 20, 20)), rectangle((11, 10, 20, 20))
    # Two pixels wide on 64 x 64. Four whole rows share 19 columns, the 16 rows between them columns 11 and 29.
    assert boundary(a).sum() == 20 * 20 - 16 * 16 == 144
    shared = 4 * 19 + 16 * 2
    assert boundary_iou(a, b) == pytest.approx(shared / (144 + 144 - shared))
    assert boundary_iou(a, a) == 1
    assert boundary_iou(a, np.zeros_like(a)) == 0


@given(*[arrays.arrays(np.bool_, (9, 11))] * 2)
def test_mask_iou_is_pycocotools(a: Mask, b: Mask) -> None:
    encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in (a, b)]
    if (a | b).any():
        assert mask_iou(a, b) == pytest.approx(coco_mask.iou(encoded[:1], encoded[1:], [0])[0, 0])


def test_the_mask_to_show_is_chosen_by_the_score_of_the_package(constant_model: Callable[..., Sam]) -> None:
    """Which ``build --score`` may have set: else a reference would choose by another rule than its artefacts."""
    model = constant_model("edge-sam", (20, 20, 0.5, 20), (0.1, 0.2, 0.9, 0.3))
    prompt = Prompt().with_point((50, 60), 1)
    found = {}
    scores: tuple[Score | None, ...] = (None, "stability", "iou")
    for score in scores:
        subject = TorchSubject(model, score=score)
        subject.set_image(np.zeros((64, 64, 3), np.uint8))
        found[subject.identity["score"]] = int(subject.answer([prompt], best=True).shown[0])
    assert found["iou"] == 2 and found["stability"] != 2


@pytest.mark.parametrize("best", [False, True])
def test_prompts_decoded_together_get_the_masks_of_prompts_decoded_alone(best: bool) -> None:
    model = untrained_model("edge-sam-tiny", image_size=256)
    subject, alone = TorchSubject(model), SamPredictor(model)
    image = open_source("generated:1")[0].picture()
    box, other = np.array([10.0, 20.0, 90.0, 120.0]), np.array([100.0, 30.0, 200.0, 180.0])
    prompts = [
        Prompt(box), Prompt().with_point((50, 60), 1), Prompt(other), Prompt(other).with_point((20, 20), 0),
        Prompt().with_point((150, 100), 1), Prompt().with_point((150, 100), 1).with_point((20, 30), 0),
    ]  # fmt: skip
    subject.set_image(image)
    alone.set_image(image)
    for answer, shown, prompt in zip(*subject.answer(prompts, best=best), prompts, strict=True):
        points = (prompt.points, prompt.labels) if prompt.labels else (None, None)
        _, scores, logits = alone.predict(*points, prompt.box, num_multimask_outputs=4)
        assert np.allclose(scores, stability_score(logits))
        assert shown == best_mask(scores, has_box=prompt.box is not None, point_masks=4)
        np.testing.assert_allclose(answer, logits[shown if best else 0], atol=2e-5)


def test_an_evaluation_cut_short_goes_on(folder: Path, tmp_path: Path) -> None:
    settings, path = Settings(), tmp_path / "eval.jsonl"
    whole = run(folder, Drawer(moved=2), settings)

    def stop(text: str) -> None:
        if text.startswith("0002"):
            raise KeyboardInterrupt

    with Journal(path, {"seed": 0}) as journal, pytest.raises(KeyboardInterrupt):
        run(folder, Drawer(moved=2), settings, journal=journal, report=stop)
    path.write_bytes(path.read_bytes() + b'{"index": 2, "na')  # killed while it wrote
    subject = Drawer(moved=2)
    with Journal(path, {"seed": 0}) as journal:
        assert sorted(journal.finished) == [0, 1]
        result = run(folder, subject, settings, journal=journal)
    assert (result.means(), result.records, result.skipped) == (whole.means(), whole.records, whole.skipped)
    assert subject.pictures == 0  # the third has no object to prompt for
    with Journal(path, {"seed": 0}) as journal:
        assert sorted(journal.finished) == [0, 1, 2]


def test_going_on_needs_no_space_to_keep_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "eval.jsonl"
    with Journal(path, {"seed": 0}) as journal:
        journal.add({"index": 4})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"index": 5, "na')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no byte can be written, as on a full disk
    try:
        with pytest.raises(StorageError), Journal(path, {"seed": 0}) as journal:
            assert sorted(journal.finished) == [4]
            journal.add({"index": 5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole


def test_a_journal_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "eval.jsonl"
    with Journal(path, {"seed": 0, "model": {"sha256": "a"}}) as journal:
        journal.add({"index": 4})
    before = path.read_bytes()
    with pytest.raises(StorageError, match="by another evaluation: model, seed differ"):
        Journal(path, {"seed": 1, "model": {"sha256": "b"}})
    assert path.read_bytes() == before
    path.write_text("hello\n")
    with pytest.raises(StorageError, match="no record of an evaluation"):
        Journal(path, {})


def test_damaged_pictures_are_counted_and_tried_again(folder: Path, tmp_path: Path) -> None:
    picture = folder / "images" / "0002.jpg"
    sound = picture.read_bytes()
    picture.write_bytes(sound[:300])
    with Journal(tmp_path / "eval.jsonl", {}) as journal:
        result = run(folder, Drawer(), Settings(), journal=journal)
    assert [(name, bool(reason)) for name, reason in result.corrupt] == [("0002.jpg", True)]
    assert (result.pictures, result.objects) == (2, 2)
    picture.write_bytes(sound)
    with Journal(tmp_path / "eval.jsonl", {}) as journal:
        assert run(folder, Drawer(), Settings(), journal=journal).objects == 3
    for one in (folder / "images").iterdir():
        one.write_bytes(b"")
    with pytest.raises(PictureError, match=r"no picture of .* can be read, such as 0001\.jpg"):
        run(folder, Drawer(), Settings())


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    empty = coco(tmp_path / "set", [annotation(1, 1, (0, 0, 9, 9), iscrowd=1)])
    with pytest.raises(PictureError, match="no objects"):
        run(empty, Drawer(), Settings())
    assert run(empty, Drawer(), Settings(limit=1), boxes={}).means()["box"]["miou"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompts": ("point",)},
        {"prompts": ()},
        {"prompts": ("box", "box")},
        {"mask": "last"},
        {"refine": -1},
        {"limit": -1},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)


def detections(folder: Path, entries: list[dict[str, Any]]) -> dict[int, list[Detection]]:
    path = folder / "detections.json"
    path.write_text(json.dumps(entries))
    return read_detections(path, folder / "instances.json")


def test_ap_by_hand(tmp_path: Path) -> None:
    folder = coco(tmp_path / "set", [annotation(1, 1, (8, 8, 20, 40)), annotation(2, 2, (20, 20, 40, 40))])
    right = [
        {"image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 40], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [20, 20, 40, 40], "score": 0.5},
    ]
    beside = {"image_id": 1, "category_id": 1, "bbox": [80, 8, 20, 40], "score": 0.7}
    for moved, found, expected in (
        (0, right, 1.0),
        # IoU 18/22 and 38/42 reach 7 and 9 of the ten thresholds; at 0.85 and 0.9 the second of the two is found
        # after a miss: precision 1/2 up to recall 1/2, which is 51 of 101 places.
        (2, right, (7 + 2 * 0.5 * 51 / 101) / 10),
        # An empty mask between them: precision 2/3 from recall 1/2 on.
        (0, [*right, beside], (51 + 50 * 2 / 3) / 101),
        (0, right[:1], 51 / 101),
    ):  # fmt: skip
        result = run(folder, Drawer(moved=moved), Settings(("box",), 0), boxes=dict(detections(folder, found)))
        ap = average_precision(folder / "instances.json", result.detections, result.picture_ids)
        assert ap["ap"] == pytest.approx(expected), (moved, found)
        assert ap["large"] is None
    first = run(folder, Drawer(), Settings(("box",), 0, limit=1), boxes=dict(detections(folder, right)))
    assert average_precision(folder / "instances.json", first.detections, first.picture_ids)["ap"] == pytest.approx(1)
    assert average_precision(folder / "instances.json", [], [1, 2])["ap"] == 0


def test_a_box_beside_the_picture_gets_an_empty_mask() -> None:
    found = masks_of(
        Drawer(), [Detection((70, 0, 90, 9), 1, 0.5), Detection((4, 4, 9, 9), 2, 0.25)], (64, 64), best=False
    )
    assert [(entry["category_id"], entry["score"]) for entry in found] == [(1, 0.5), (2, 0.25)]
    assert [int(coco_mask.area(entry["segmentation"])) for entry in found] == [0, 25]


SOUND = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "no list of detections"),
        ("[]", "no list of detections"),
        ("[", "not JSON"),
        (json.dumps([SOUND, {**SOUND, "image_id": 7}]), "detection 2 has image_id 7"),
        (json.dumps([{**SOUND, "category_id": 3}]), "detection 1 has category_id 3"),
        (json.dumps([{**SOUND, "bbox": [0, 0, 9]}]), "detection 1 is malformed"),
        (json.dumps([{**SOUND, "score": float("nan")}]), "detection 1 is malformed"),
        (json.dumps([{"bbox": [0, 0, 9, 9]}]), "detection 1 is malformed"),
        (json.dumps([3]), "detection 1 is malformed"),
        (json.dumps([{**SOUND, "image_id": [1]}]), "detection 1"),
    ],
)
def test_detections_that_do_not_fit_are_refused(folder: Path, content: str, told: str) -> None:
    path = folder / "detections.json"
    path.write_text(content)
    with pytest.raises(PictureError, match=told):
        read_detections(path, folder / "instances.json")


def test_the_worst_masks_are_drawn(folder: Path, tmp_path: Path) -> None:
    subject, source = Drawer(moved=2), open_source(f"coco:{folder}")
    result = evaluate(subject, source, Settings())
    written = write_worst(subject, source, result, tmp_path / "worst")
    assert [path.name for path in written] == [
        "drawer-0.667-0001-1.png", "drawer-0.818-0002-3.png", "drawer-0.905-0001-2.png",
    ]  # fmt: skip
    assert read_picture(written[0]).shape == (64, 128, 3)
