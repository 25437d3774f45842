"""Single pictures: frames, prompts, and what cannot be used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import Samples, data_recipe, png, rectangle

from distill.data.batch import Batch, Prompts
from distill.data.dataset import PictureDataset, Place, Request
from distill.data.prompt_book import PromptWriter
from distill.data.report import CorruptReport
from distill.embeddings import fingerprints
from distill.recipe import AugmentRecipe, PromptsRecipe
from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.evaluate.data.samples import Instance, Sample
from edgesam_mobile.model.geometry import ResizeLongestSide

SIDE = 32
SIZE = 20, 40


def dataset(*samples: Sample, needs_prompts: bool = True, rounds: int = 1, **options: Any) -> PictureDataset:
    sources = [Samples(*samples)]
    return PictureDataset(
        sources,
        data_recipe(**options),
        image_size=SIDE,
        seed=options.get("seed", 0),
        rounds=rounds,
        needs_prompts=needs_prompts,
    )


def batch(data: PictureDataset, *indices: int, epoch: int = 0) -> Batch:
    answer = data[Request(epoch, "point", tuple(Place(10 + i, 0, i) for i in indices))]
    assert isinstance(answer, Batch)
    return answer


def prompts(data: PictureDataset, *indices: int, epoch: int = 0) -> Prompts:
    found = batch(data, *indices, epoch=epoch).prompts
    assert found is not None
    return found


def sample(*instances: Instance, name: str = "a.png", size: tuple[int, int] = SIZE) -> Sample:
    return Sample(name, png(*size), instances)


def per_image(count: int) -> PromptsRecipe:
    return PromptsRecipe(per_image=count)


@pytest.mark.parametrize("size", [SIZE, (40, 20), (1, 90), (90, 1), (5, 5), (1, 1)])
def test_a_frame_is_the_picture_in_the_top_left_of_zeros(size: tuple[int, int]) -> None:
    got = batch(dataset(sample(size=size), needs_prompts=False), 0)
    height, width = got.sizes[0].tolist()
    with Image.open(io.BytesIO(png(*size))) as image:
        expected = ResizeLongestSide(SIDE).apply_image(np.array(image))
    assert (height, width) == expected.shape[:2] and max(height, width) == SIDE
    np.testing.assert_array_equal(got.frames[0, :, :height, :width].permute(1, 2, 0), expected)
    assert got.frames[0, :, height:].sum() == got.frames[0, :, :, width:].sum() == 0
    assert got.originals is not None and got.originals.tolist() == [list(size)]
    assert got.prompts is None and got.names == ["a.png"] and got.frames.dtype == torch.uint8


def test_few_objects_are_all_prompts_and_of_many_some_are_drawn_anew_each_epoch() -> None:
    boxes = [(4 * k, k, 4 * k + 3, k + 9) for k in range(10)]
    many = sample(*(rectangle(k, SIZE, box) for k, box in enumerate(boxes)))
    everything = prompts(dataset(many), 0)
    expected = ResizeLongestSide(SIDE).apply_boxes(np.array(boxes, dtype=np.float64), SIZE).astype(np.float32)
    assert sorted(everything.boxes.tolist()) == sorted(expected.tolist())
    some = dataset(many, prompts=per_image(4))
    drawn = [frozenset(map(tuple, prompts(some, 0, epoch=epoch).boxes.tolist())) for epoch in range(6)]
    assert all(len(boxes) == 4 for boxes in drawn), "without replacement"
    assert len(set(drawn)) > 1


def test_a_point_is_a_pixel_of_the_mask_or_the_annotations_own() -> None:
    ring = rectangle(1, SIZE, (4, 4, 30, 20))
    mask = ring.mask(SIZE)
    mask[8:16, 8:26] = False
    counts = np.diff(np.r_[0, np.flatnonzero(np.diff(mask.ravel(order="F"))) + 1, mask.size]).tolist()
    ring = Instance(1, {"size": list(SIZE), "counts": counts}, (4, 4, 30, 20), 1.0)
    data = dataset(sample(ring))
    places = set()
    for epoch in range(200):
        x, y = (prompts(data, 0, epoch=epoch).points[0] * (40 / SIDE)).tolist()
        assert mask[int(y), int(x)]
        places.add((x, y))
    assert len(places) > 100
    own = prompts(dataset(sample(rectangle(1, SIZE, (4, 4, 30, 20), point=(5.0, 10.0)))), 0)
    assert own.points.tolist() == [[4.0, 8.0]]


def test_random_numbers_belong_to_the_place_in_the_epoch() -> None:
    data = dataset(sample(rectangle(1, SIZE, (1, 1, 9, 9))), sample(rectangle(1, SIZE, (1, 1, 9, 9))), rounds=3)
    both = prompts(data, 0, 1)
    assert both.uniform.shape == (2, 3) and ((both.uniform >= 0) & (both.uniform < 1)).all()
    assert both.image.tolist() == [0, 1]
    torch.testing.assert_close(prompts(data, 1).uniform, both.uniform[1:], rtol=0, atol=0)
    assert not torch.equal(both.uniform[0], both.uniform[1])
    assert not torch.equal(prompts(data, 0, epoch=1).uniform, both.uniform[:1])
    assert prompts(dataset(sample(rectangle(1, SIZE, (1, 1, 9, 9))), rounds=0), 0).uniform.shape == (1, 1)


def test_crowds_and_empty_objects_are_no_prompts() -> None:
    crowd, empty = rectangle(1, SIZE, (0, 0, 20, 20), crowd=True), rectangle(2, SIZE, (5, 5, 5, 5))
    hollow = Instance(3, empty.segmentation, (3.0, 3.0, 9.0, 9.0), 36.0)
    found = prompts(dataset(sample(crowd, empty, hollow, rectangle(4, SIZE, (5, 5, 10, 10)))), 0)
    assert found.boxes.tolist() == [[4, 4, 8, 8]]
    assert batch(dataset(sample(crowd, empty, hollow, rectangle(4, SIZE, (5, 5, 10, 10)))), 0).empty == 2
    nothing = batch(dataset(sample(crowd, empty, hollow)), 0)
    assert nothing.corrupt == [("a.png", "no object to prompt with")]


def test_the_teachers_prompts_come_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.tsv"
    boxes, points = np.array([[5, 5, 10, 10], [0, 0, 40, 20]]), np.array([[7.5, 7.5], [20, 10]])
    (mark,) = fingerprints(batch(dataset(sample(), needs_prompts=False), 0).frames)
    with PromptWriter(path, teacher_sha256="0" * 64, image_size=SIDE, settings={}) as book:
        none = np.zeros((0, 4)), np.zeros((0, 2))
        book.add([("a.png", mark, boxes.astype(np.float32), points.astype(np.float32)), ("b.png", mark, *none)])
    data = dataset(
        sample(rectangle(1, SIZE, (1, 1, 9, 9))),
        sample(name="b.png"),
        sample(name="c.png"),
        prompts=PromptsRecipe(source="teacher", file=str(path)),
    )
    got = batch(data, 0, 1, 2)
    assert got.names == ["a.png"]
    assert got.prompts is not None
    rows = torch.cat([got.prompts.boxes, got.prompts.points], 1).tolist()
    assert sorted(rows) == [[0, 0, 32, 16, 16, 8], [4, 4, 8, 8, 6, 6]]
    assert got.corrupt == [("b.png", "no object to prompt with"), ("c.png", f"not in {path}")]


@pytest.mark.parametrize("augment", [AugmentRecipe(), AugmentRecipe(flip=1.0, scale=(2.0, 2.0), colour=0.5)])
def test_a_picture_that_was_replaced_after_its_prompts_were_made_is_corrupt(
    tmp_path: Path, augment: AugmentRecipe
) -> None:
    """The teacher may have seen it at another size than the student's; augmentation does not make it another."""
    path, kept, replaced = tmp_path / "prompts.tsv", sample(size=(80, 160)), Sample("b.png", png(80, 160, seed=1))
    seen = dataset(kept, sample(name="b.png", size=(80, 160)), needs_prompts=False)
    row = np.array([[5, 5, 150, 75]], np.float32), np.array([[80, 40]], np.float32)
    frames = seen[Request(0, "point", (Place(0, 0, 0), Place(1, 0, 1)))]
    assert isinstance(frames, Batch)
    with PromptWriter(path, teacher_sha256="0" * 64, image_size=SIDE, settings={}) as book:
        book.add([(n, mark, *row) for n, mark in zip(frames.names, fingerprints(frames.frames), strict=True)])
    made = PromptsRecipe(source="teacher", file=str(path))
    data = PictureDataset(
        [Samples(kept, replaced)], data_recipe(prompts=made, augment=augment), image_size=2 * SIDE, seed=0, rounds=1,
        needs_prompts=True,
    )  # fmt: skip
    got = batch(data, 0, 1)
    assert got.names == ["a.png"]
    assert got.corrupt == [("b.png", f"not the picture whose prompts are in {path}")]


def test_a_missing_file_of_prompts_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    book = PromptsRecipe(source="teacher", file=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no file of prompts"):
        dataset(sample(), prompts=book)
    assert len(batch(dataset(sample(), prompts=book, needs_prompts=False), 0)) == 1


def boxed(*instances: Instance, **options: Any) -> Batch:
    """A picture as stage 3 gets it."""
    data = PictureDataset(
        [Samples(sample(*instances))], data_recipe(**options), image_size=SIDE, seed=0, rounds=1, needs_prompts=True,
        every_box=True,
    )  # fmt: skip
    return batch(data, 0)


def test_stage_3_gets_every_box_whatever_its_mask_and_crowds_apart() -> None:
    """No mask is looked at: None of them could be decoded."""
    objects = [Instance(k, None, (2.0 * k, 1.0, 2.0 * k + 5, 15.0), 1.0) for k in range(17)]
    crowd, flat = Instance(17, None, (0, 0, 20, 10), 1.0, crowd=True), Instance(18, None, (3, 3, 3, 9), 1.0)
    got = boxed(crowd, *objects, flat, prompts=per_image(2))
    assert got.prompts is not None and got.prompts.crowd is not None
    assert got.prompts.crowd.tolist() == [False] * 17 + [True]
    expected = [[1.6 * k, 0.8, 1.6 * k + 4, 12] for k in range(17)] + [[0, 0, 16, 8]]
    torch.testing.assert_close(got.prompts.boxes, torch.tensor(expected).clamp(max=32.0))
    torch.testing.assert_close(got.prompts.points[0], torch.tensor([2, 6.4]))
    assert got.empty == 1 and got.prompts.uniform.shape == (18, 1)
    assert boxed(crowd).corrupt == [("a.png", "no object to prompt with")]


def test_stage_3_keeps_what_is_still_seen_of_a_cropped_object() -> None:
    whole = Instance(1, None, (0.0, 0.0, 40.0, 20.0), 1.0, point=(0.5, 0.5))
    got = boxed(whole, augment=AugmentRecipe(scale=(3.0, 3.0)))
    assert got.prompts is not None
    assert got.sizes.tolist() == [[32, 32]] and got.prompts.boxes.tolist() == [[0, 0, 32, 32]]


def test_corrupt_pictures_are_named_with_their_reason() -> None:
    misfit = rectangle(7, (9, 9), (1, 1, 5, 5))
    good = sample(rectangle(1, SIZE, (1, 1, 9, 9)), name="good.png")
    data = dataset(Sample("cut.png", png(*SIZE)[:70]), sample(misfit, name="misfit.png"), good)
    got = batch(data, 0, 1, 2)
    assert got.names == ["good.png"] and got.frames.shape[0] == got.sizes.shape[0] == 1
    assert got.prompts is not None and got.prompts.image.tolist() == [0]
    (cut, why), (unfit, also) = got.corrupt
    assert (cut, unfit) == ("cut.png", "misfit.png")
    assert "cannot be read" in why or "not a picture" in why
    assert also.startswith("annotation 7: ")


def test_a_batch_may_be_left_without_pictures() -> None:
    got = batch(dataset(Sample("cut.png", b"")), 0)
    assert len(got) == 0 and len(got.corrupt) == 1
    assert got.frames.shape == (0, 3, SIDE, SIDE) and got.sizes.shape == (0, 2)
    assert got.prompts is not None and len(got.prompts) == 0
    assert (got.prompts.boxes.shape, got.prompts.uniform.shape) == ((0, 4), (0, 1))
    moved = got.to(torch.device("cpu"))
    assert moved.prompts is not None and len(moved) == len(moved.prompts) == 0


def test_errors_that_are_no_samples_fault_are_handed_on() -> None:
    class Failing(Samples):
        def __getitem__(self, index: int) -> Sample:
            raise PictureError("cannot read the disk", hint="check it")

    data = PictureDataset([Failing(sample())], data_recipe(), image_size=SIDE, seed=0, rounds=1, needs_prompts=False)
    answer = data[Request(0, "box", (Place(0, 0, 0),))]
    assert isinstance(answer, PictureError) and answer.hint == "check it"


def test_a_crop_that_loses_every_prompt_gives_way_to_the_whole_picture() -> None:
    corner = sample(rectangle(1, SIZE, (0, 0, 10, 10)))
    data = dataset(corner, augment=AugmentRecipe(scale=(3.0, 3.0)))
    got = [batch(data, 0, epoch=epoch) for epoch in range(40)]
    assert all(one.prompts is not None and len(one.prompts) == 1 for one in got)
    heights = {one.sizes[0, 0].item() for one in got}
    assert heights == {16, 32}, "both kinds occur"
    for one in got:
        if one.prompts is not None and one.sizes[0, 0] == 16:
            assert one.prompts.boxes.tolist() == [[0, 0, 8, 8]]


def test_augmentation_changes_neither_whose_turn_it_is_nor_a_batch_without_it() -> None:
    objects = [rectangle(k, SIZE, (3 * k, 2, 3 * k + 5, 9), point=(3.0 * k + 2, 5.0)) for k in range(8)]
    plain, coloured = (
        batch(dataset(sample(*objects), prompts=per_image(3), augment=AugmentRecipe(colour=c)), 0) for c in (0.0, 0.5)
    )
    assert plain.prompts is not None and coloured.prompts is not None
    torch.testing.assert_close(plain.prompts.boxes, coloured.prompts.boxes, rtol=0, atol=0)
    assert not torch.equal(plain.frames, coloured.frames)
    assert coloured.frames[0, :, 16:].sum() == 0, "padding stays zero"


def test_a_report_counts_all_and_names_the_first() -> None:
    empty = torch.zeros(0)
    report = CorruptReport()
    assert str(report) == "0 pictures used, none was corrupt"
    report.add(Batch(["a", "b"], empty, empty))
    report.add(Batch(["c"], empty, empty, corrupt=[("d", "cut short")]))
    report.add(Batch([], empty, empty, corrupt=[("d", "cut short"), ("e", "empty")]))
    assert (report.used, report.corrupt) == (3, 3)
    assert str(report) == "3 of 6 pictures could not be used: d (cut short), e (empty)"
    report.add(Batch([], empty, empty, corrupt=[(f"f{number}", "gone") for number in range(1000)]))
    assert report.corrupt == 1003 and len(report.reasons) == 100
    assert str(report).endswith("f0 (gone) and at least 97 more")


def test_reports_of_processes_add_up_and_empty_objects_are_not_pictures() -> None:
    none = torch.zeros(0)
    one, other = CorruptReport(), CorruptReport()
    one.add(Batch(["a"], none, none, empty=2))
    other.add(Batch(["b"], none, none, corrupt=[("c", "cut short")], empty=1))
    assert str(one) == "1 pictures used, none was corrupt; 2 empty objects were left out"
    both = "1 of 3 pictures could not be used: c (cut short); 3 empty objects were left out"
    assert str(CorruptReport.of_all([one, other])) == both
    assert str(one) == "1 pictures used, none was corrupt; 2 empty objects were left out"
