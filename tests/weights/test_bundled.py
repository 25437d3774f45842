"""The weights that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgesam_mobile.errors import FetchError
from edgesam_mobile.evaluate.metrics import mask_iou
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.picture import read_picture
from edgesam_mobile.weights.checkpoint import read_checkpoint
from edgesam_mobile.weights.fetch import cached_path, fetch
from edgesam_mobile.weights.registry import DEFAULT, entry

COFFEE = Path(__file__).resolve().parents[2] / "examples" / "coffee.jpg"
CUP, SAUCER, SPOON = (175, 15, 412, 300), (75, 15, 480, 395), (325, 240, 408, 328)


def test_they_are_the_file_that_the_registry_describes(cache: Path) -> None:
    known, path = entry(DEFAULT), fetch(DEFAULT, offline=True)
    assert path == cached_path(known) and cache not in path.parents
    assert (sha256_of(path), path.stat().st_size) == (known.sha256, known.size)
    assert known.size is not None and known.size <= 20_000_000
    said = read_checkpoint(path).metadata
    assert (said.architecture, said.upsample, said.licence) == (known.architecture, known.upsample, known.licence)
    assert said.trained and said.commercial_use and said.image_size == 512


def test_their_masks_of_boxed_objects_are_near_the_teacher_s(mobile_sam: Sam) -> None:
    picture, masks = read_picture(COFFEE), []
    for model in (mobile_sam, load_model(DEFAULT)):
        predictor = SamPredictor(model)
        predictor.set_image(picture)
        masks.append([predictor.predict(box=box, num_multimask_outputs=1)[0][0] for box in (CUP, SAUCER, SPOON)])
    for ours, teacher in zip(*masks, strict=True):
        assert mask_iou(ours, teacher) > 0.75


@pytest.mark.parametrize("half", [True, False])
def test_a_damaged_copy_is_not_used(half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = cached_path(entry(DEFAULT)).read_bytes()
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(content[: len(content) // 2] if half else content[:-1] + bytes([content[-1] ^ 1]))
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules[fetch.__module__], "cached_path", lambda _: copy)
    with pytest.raises(FetchError, match="is damaged"):
        fetch(DEFAULT)
