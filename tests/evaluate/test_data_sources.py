"""Each published layout is read as it is; what is damaged is named, and nothing is left out unsaid."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import annotation, coco, jpeg, put, rectangle, sa1b_files, tar

from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.evaluate.data.open import open_source
from edgesam_mobile.evaluate.data.samples import CorruptSample, Source


def names(source: Source) -> list[str]:
    return [source[number].name for number in range(len(source))]


def test_sa1b_reads_the_same_from_tars_and_from_a_folder(tmp_path: Path) -> None:
    files = sa1b_files()
    tar(tmp_path / "tars" / "sa_000020.tar", files)
    loose, packed = open_source(f"sa1b:{put(tmp_path / 'loose', files)}"), open_source(f"sa1b:{tmp_path / 'tars'}")
    assert names(packed) == [f"sa_000020.tar/{name}" for name in names(loose)]
    assert names(loose) == ["sa_1.jpg", "sa_2.jpg", "sa_3.jpg"]
    for number in range(3):
        one, other = loose[number], packed[number]
        assert (one.encoded, one.instances, one.size) == (other.encoded, other.instances, (64, 64))
        found = one.instances[0]
        assert (found.identifier, found.box[2:], found.point) == (
            101 + number,
            (24 + 4 * number, 38),
            (13 + 4 * number, 20),
        )
        assert np.array_equal(found.mask((64, 64)), rectangle((4 + 4 * number, 8, 20, 30)))


def test_one_tar_gives_the_names_it_has_in_its_folder(tmp_path: Path) -> None:
    path = tar(tmp_path / "sa_000020.tar", sa1b_files(), prefix="")
    assert names(open_source(f"sa1b:{path}")) == names(open_source(f"sa1b:{tmp_path}"))


def test_pictures_are_found_in_trees_and_tars_in_one_order(tmp_path: Path) -> None:
    put(tmp_path, {"b.JPG": jpeg(), "deep/a.png": jpeg(), ".hidden/c.jpg": jpeg(), "notes.txt": b"", "._b.jpg": b""})
    tar(tmp_path / "more" / "x.tar", {"2.jpg": jpeg(), "1.jpg": jpeg(), "1.json": b"{}"})
    tar(tmp_path / "y.tar", {"0.webp": jpeg()})
    source = open_source(f"images:{tmp_path}")
    expected = ["more/x.tar/1.jpg", "more/x.tar/2.jpg", "y.tar/0.webp", "b.JPG", "deep/a.png"]
    assert (names(source), list(source.shard_sizes)) == (expected, [2, 1, 2])
    assert source[4].picture().shape == (64, 64, 3)
    for beyond in (-1, 5):
        with pytest.raises(IndexError):
            source[beyond]


def test_a_source_travels_to_other_processes_without_its_data(tmp_path: Path) -> None:
    files = {f"{number:05d}.jpg": bytes(1000) for number in range(500)}
    source = open_source(f"images:{tar(tmp_path / 'x.tar', files)}")
    packed = pickle.dumps(source)
    assert len(packed) < 100 * len(source)
    assert pickle.loads(packed)[77] == source[77]
    error = CorruptSample("a name", "a reason")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a name: a reason"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[:2000], "not a tar that can be read"),
        (lambda content: content[:3072] + b"x" * 512 + content[3584:], "no end mark"),
        (lambda content: content[: content.rindex(b"\xff\xd9") // 512 * 512 + 512], "no end mark"),
        (lambda content: b"", "not a tar that can be read"),
        (lambda content: bytes(1024), "no pictures in"),
        (gzip.compress, "the tar is compressed"),
    ],
    ids=("cut in a file", "damaged header", "cut between files", "empty", "no members", "compressed"),
)
def test_a_damaged_tar_is_refused_as_a_whole(tmp_path: Path, damage: Callable[[bytes], bytes], told: str) -> None:
    path = tar(tmp_path / "x.tar", {f"{n}.jpg": jpeg(16, 16) + b"\xff\xd9" for n in range(4)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PictureError, match=told) as caught:
        open_source(f"images:{path}")
    assert "x.tar" in caught.value.message


def test_a_shard_that_goes_away_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"1.jpg": jpeg()})
    source = open_source(f"images:{path}")
    os.truncate(path, 600)
    with pytest.raises(CorruptSample, match="has become shorter"):
        source[0]
    path.unlink()
    with pytest.raises(PictureError, match=r"x\.tar"):
        source[0]


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    record = json.loads(sa1b_files(1)["sa_1.json"])
    change(record)
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (edited(lambda r: r.pop("annotations")), "no 'annotations'"),
        (edited(lambda r: r["annotations"][0].pop("id")), "no 'id'"),
        (edited(lambda r: r["image"].update(width=63)), "mask 101 is of 64 x 64 pixels, its picture of 63 x 64"),
        (edited(lambda r: r["annotations"][0].update(bbox=[1, 2])), "cannot be read"),
        (edited(lambda r: r["annotations"][0].update(point_coords=[])), "cannot be read"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_annotations_of_sa1b_are_named(tmp_path: Path, packed: bool, content: bytes, told: str) -> None:
    files = {**sa1b_files(2), "sa_1.json": content}
    where = tar(tmp_path / "x.tar", files) if packed else put(tmp_path, files)
    source = open_source(f"sa1b:{where}")
    with pytest.raises(CorruptSample, match=told) as caught:
        source[0]
    assert caught.value.name.endswith("sa_1.jpg")
    assert source[1].instances


def test_halves_of_a_pair_are_corrupt_samples(tmp_path: Path) -> None:
    files = sa1b_files(3)
    del files["sa_1.json"], files["sa_2.jpg"]
    source = open_source(f"sa1b:{put(tmp_path, files)}")
    assert len(source) == 3
    with pytest.raises(CorruptSample, match="no annotations beside"):
        source[0]
    with pytest.raises(CorruptSample, match="without a picture"):
        source[1]
    assert source[2].name == "sa_3.jpg"


def test_a_picture_of_another_size_than_annotated_is_corrupt(tmp_path: Path) -> None:
    source = open_source(f"sa1b:{put(tmp_path, {**sa1b_files(1), 'sa_1.jpg': jpeg(63, 64)})}")
    with pytest.raises(CorruptSample, match="annotated at 64 x 64 pixels, the picture has 63 x 64"):
        source[0].picture()


def test_coco_is_read_in_the_order_of_ids(tmp_path: Path) -> None:
    objects = [
        annotation(9, 2, (1, 2, 10, 20)),
        annotation(3, 2, (5, 5, 4, 4), iscrowd=1),
        annotation(4, 1, (0, 0, 8, 8)),
    ]
    source = open_source(f"coco:{coco(tmp_path / 'set', objects, (2, 1, 5))}")
    assert names(source) == ["0001.jpg", "0002.jpg", "0005.jpg"]
    assert [source[n].identifier for n in range(3)] == [1, 2, 5]
    assert [(i.identifier, i.crowd) for i in source[1].instances] == [(3, True), (9, False)]
    found = source[1].instances[1]
    assert (found.box, found.area, found.category) == ((1, 2, 11, 22), 200, 1)
    assert np.array_equal(found.mask((64, 64)), rectangle((1, 2, 10, 20)))
    assert (source[2].instances, list(source.shard_sizes)) == ((), [3])
    named = open_source(f"coco:{tmp_path / 'set' / 'instances.json'}:{tmp_path / 'set' / 'images'}")
    assert pickle.loads(pickle.dumps(named))[1] == source[1]


def test_lvis_names_pictures_by_their_address(tmp_path: Path) -> None:
    put(tmp_path, {"val2017/7.jpg": jpeg(seed=7), "8.jpg": jpeg(seed=8)})
    listed = [
        {"id": n, "coco_url": f"http://images.example.org/val2017/{n}.jpg", "height": 64, "width": 64} for n in (7, 8)
    ]
    one = annotation(1, 7, (0, 0, 8, 8))
    del one["iscrowd"]
    (tmp_path / "lvis.json").write_text(json.dumps({"images": listed, "annotations": [one]}))
    source = open_source(f"lvis:{tmp_path / 'lvis.json'}:{tmp_path}")
    assert names(source) == ["val2017/7.jpg", "8.jpg"]
    assert source[0].instances[0].crowd is False


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "no list of images"),
        ({"images": [], "annotations": []}, "the list of images is empty"),
        ({"annotations": []}, "the list of annotations is empty"),
        ({"annotations": [annotation(1, 3, (0, 0, 8, 8))]}, "annotation 1 belongs to no picture"),
        ({"annotations": [annotation(1, 1, (0, 0, 8, 8))] * 2}, "an annotation has no id of its own"),
        (
            {"images": [{"id": 1, "file_name": "9.jpg"}, {"id": 2, "file_name": "8.jpg"}]},
            "9.jpg and 1 more of 2 pictures",
        ),
        ({"images": [{"id": 1, "file_name": "../images/0001.jpg"}, {"id": 2}]}, "picture 1 and 1 more of 2 pictures"),
    ],
)
def test_annotation_files_that_do_not_fit_are_refused(tmp_path: Path, content: Any, told: str) -> None:
    path = coco(tmp_path / "set", [annotation(1, 1, (0, 0, 8, 8))]) / "instances.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content})
    path.write_text(content)
    with pytest.raises(PictureError, match=told):
        open_source(f"coco:{tmp_path / 'set'}")


def test_a_malformed_annotation_makes_its_picture_corrupt(tmp_path: Path) -> None:
    objects = [annotation(1, 1, (0, 0, 8, 8), bbox=[1, 2]), annotation(2, 2, (0, 0, 8, 8))]
    source = open_source(f"coco:{coco(tmp_path / 'set', objects)}")
    with pytest.raises(CorruptSample, match=r"0001\.jpg: its annotations cannot be read"):
        source[0]
    (tmp_path / "set" / "images" / "0002.jpg").unlink()
    with pytest.raises(CorruptSample, match=r"0002\.jpg: the picture has gone"):
        source[1]


def test_generated_pictures_depend_on_seed_and_number_alone() -> None:
    few, many, other = open_source("generated:3"), open_source("generated:50:0"), open_source("generated:3:1")
    assert [few[n] for n in range(3)] == [many[n] for n in range(3)]
    assert few[0].encoded != other[0].encoded
    assert sum(many.shard_sizes) == len(many) == 50


def test_generated_masks_are_what_can_be_seen() -> None:
    source = open_source("generated:8")
    for number in range(8):
        sample = source[number]
        picture = sample.picture()
        masks = [instance.mask(picture.shape[:2]) for instance in sample.instances]
        assert len(masks) > 0
        assert np.sum(masks, axis=0).max() == 1  # none covers another
        for instance, mask in zip(sample.instances, masks, strict=True):
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            assert instance.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert instance.area == mask.sum()
            x, y = instance.point or (0, 0)
            assert mask[int(y), int(x)]


@pytest.mark.parametrize(
    ("spec", "told", "hint"),
    [
        ("cocoa:x", "no kind of data is named 'cocoa'", "did you mean coco:"),
        ("xyz", "no kind of data is named 'xyz'", "kinds: coco, lvis, sa1b, images, generated"),
        ("images:", "does not say where", "images:PATH"),
        ("lvis:x.json", "does not name a folder", "lvis:FILE.json:IMAGES_DIR"),
        ("coco:x.json", "does not name a folder", "coco:DIR"),
        ("generated:0", "'generated:0' is not", "such as"),
        ("generated:5:x", "is not", "such as"),
        ("generated:5:1:2", "is not", "such as"),
    ],
)
def test_malformed_names_of_data_are_refused(spec: str, told: str, hint: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        open_source(spec)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["coco", "sa1b", "images"])
def test_data_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(PictureError, match="absent"):
        open_source(f"{kind}:{tmp_path / 'absent'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="empty"):
        open_source(f"{kind}:{tmp_path / 'empty'}")


@pytest.mark.parametrize("kind", ["sa1b", "images", "coco"])
def test_a_digest_tells_of_changed_files(tmp_path: Path, kind: str) -> None:
    """Of names, sizes, and COCO's file of annotations; what is the same elsewhere has the same."""

    def made(name: str) -> Path:
        if kind == "coco":
            return coco(tmp_path / name, [annotation(1, 1, (4, 8, 20, 30))])
        return put(tmp_path / name, sa1b_files())

    def digest(folder: Path) -> str:
        return open_source(f"{kind}:{folder}").digest()

    folder = made("one")
    before = digest(folder)
    assert digest(folder) == before == digest(made("other"))
    changed = [before]
    picture = next(path for path in sorted(folder.rglob("*.jpg")))
    picture.write_bytes(picture.read_bytes() + b"x")
    changed.append(digest(folder))
    if kind == "coco":
        path = folder / "instances.json"
        path.write_text(path.read_text().replace('"area": 600', '"area": 601'))
    else:
        picture.rename(folder / "sa_0.jpg")
    changed.append(digest(folder))
    assert len(set(changed)) == 3


def test_a_digest_tells_of_a_changed_tar_and_of_other_shapes(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", sa1b_files())
    before = open_source(f"sa1b:{tmp_path}").digest()
    tar(tmp_path / "a.tar", sa1b_files() | {"sa_2.jpg": jpeg(seed=9) + b"x"})
    assert open_source(f"sa1b:{tmp_path}").digest() != before
    assert open_source("generated:4").digest() == open_source("generated:4:0").digest()
    assert open_source("generated:4").digest() != open_source("generated:4:1").digest()
