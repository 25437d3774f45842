"""What a student starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.recipe import ModelRecipe
from distill.student import build_student
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.weights.checkpoint import Metadata, write_checkpoint


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("mobile-sam", tmp_path_factory.mktemp("teacher") / "teacher.safetensors", image_size=256)


@pytest.fixture(scope="module")
def teacher(teacher_file: Path) -> Sam:
    return load_model(teacher_file)


def student(teacher: Sam, file: Path, **options: str) -> Sam:
    torch.manual_seed(0)
    recipe = ModelRecipe(architecture="edge-sam-tiny", image_size=256, **options)  # type: ignore[arg-type]
    return build_student(recipe, teacher, str(file))[0]


def test_prompts_and_masks_start_as_the_teacher_s(teacher: Sam, teacher_file: Path) -> None:
    own, given = student(teacher, teacher_file).state_dict(), teacher.state_dict()
    shared = [key for key in own if not key.startswith("image_encoder.")]
    assert len(shared) > 100
    assert all(torch.equal(own[key], given[key]) for key in shared)


def test_the_neck_starts_as_the_teacher_s_where_it_has_the_same_shape(teacher: Sam, teacher_file: Path) -> None:
    given = teacher.state_dict()
    started = student(teacher, teacher_file, neck_init="teacher").state_dict()
    random = student(teacher, teacher_file).state_dict()
    neck = [key for key in started if key.startswith("image_encoder.neck.")]
    same = {key for key in neck if given[key].shape == started[key].shape}
    # The first convolution takes other channels.
    assert set(neck) - same == {"image_encoder.neck.0.weight"}
    assert all(torch.equal(started[key], given[key]) for key in same)
    assert not torch.equal(random["image_encoder.neck.2.weight"], given["image_encoder.neck.2.weight"])
    assert torch.equal(started["image_encoder.neck.0.weight"], random["image_encoder.neck.0.weight"])


@pytest.mark.parametrize("half", [False, True])
def test_a_decoder_that_the_teacher_s_replaces_is_told_of(
    teacher: Sam, teacher_file: Path, tmp_path: Path, half: bool
) -> None:
    """Not the teacher's own, as stage 1 leaves it, be it in half precision."""
    told: list[str] = []
    begun = student(teacher, teacher_file)
    metadata = Metadata(architecture="edge-sam-tiny", image_size=256, upsample="bilinear")

    def start(decoder_init: str) -> Sam:
        state = {key: value.half() if half else value for key, value in begun.state_dict().items()}
        path = write_checkpoint(tmp_path / "init.safetensors", state, metadata)
        recipe = ModelRecipe(
            architecture="edge-sam-tiny", image_size=256, init=str(path), decoder_init=decoder_init  # type: ignore[arg-type]
        )  # fmt: skip
        return build_student(recipe, teacher, report=told.append)[0]

    start("teacher")
    assert told == []
    key = "mask_decoder.iou_token.weight"
    begun.state_dict()[key].mul_(2.0)
    assert torch.equal(start("teacher").state_dict()[key], teacher.state_dict()[key])
    assert len(told) == 1 and told[0].startswith("warning: ") and 'model.decoder_init = "init"' in told[0]
    torch.testing.assert_close(start("init").state_dict()[key], begun.state_dict()[key], rtol=1e-3, atol=1e-6)
    assert len(told) == 1
