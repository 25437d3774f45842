"""Every artefact that runs here answers as PyTorch does; damaged ones and wrong calls end in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import entries, refusal, run
from package_copies import copy_package, edit, rehash

from edgesam_mobile.errors import PackageError, UsageError
from edgesam_mobile.evaluate.metrics import cosine, mask_iou, max_abs_error
from edgesam_mobile.model.choice import best_mask
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.runtime.predictor import ArtifactPredictor

pytestmark = pytest.mark.slow

CAT = Path(__file__).resolve().parents[2] / "examples" / "cat.jpg"
# (x, y, label): on the cat's face and body, and beside it.
POINTS = [(245, 140, 1), (200, 200, 1), (20, 20, 0), (300, 90, 1), (440, 290, 0), (150, 250, 1)]
BOX = (28, 0, 400, 288)


def points(count: int) -> dict[str, Any]:
    return {"point_coords": [p[:2] for p in POINTS[:count]], "point_labels": [p[2] for p in POINTS[:count]]}


PROMPTS: dict[str, dict[str, Any]] = {
    **{f"{count} points": points(count) for count in range(1, 7)},
    "box": {"box": BOX},
    "box and 1 point": {"box": BOX, **points(1)},
    "box and 4 points": {"box": BOX, **points(4)},
}
# Largest error of a logit, of the embedding, and least mask IoU.
LIMITS = {"fp32": (1e-2, 1e-3, 0.99), "fp16": (0.1, 5e-3, 0.98)}


@pytest.fixture(scope="module", params=["tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32"])
def artefact(
    request: pytest.FixtureRequest, mobile_sam_package: Path, cat: npt.NDArray[np.uint8]
) -> ArtifactPredictor:
    """One runnable artefact of the real MobileSAM, with the cat embedded; no test sets another picture."""
    predictor = ArtifactPredictor(mobile_sam_package, request.param)
    predictor.set_image(cat)
    return predictor


@pytest.fixture(scope="module")
def onnx(mobile_sam_package: Path) -> ArtifactPredictor:
    """An artefact without a picture."""
    return ArtifactPredictor(mobile_sam_package, "onnx-fp32", threads=1)


def test_the_embedding_is_pytorch_s_in_the_layout_of_the_manifest(
    artefact: ArtifactPredictor, cat_predictor: SamPredictor
) -> None:
    port = artefact.artifact.encoder.outputs[0]
    assert port.layout == ("NHWC" if artefact.artifact.format == "tflite" else "NCHW")
    assert artefact.features.shape == tuple(port.shape)
    found = artefact.features.transpose(0, 3, 1, 2) if port.layout == "NHWC" else artefact.features
    expected = cat_predictor.features.numpy()
    assert max_abs_error(found, expected) < LIMITS[artefact.artifact.precision][1]
    assert cosine(found, expected) > 0.9999


@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_are_pytorch_s_for_every_number_of_points_and_with_a_box(
    kind: str, artefact: ArtifactPredictor, cat_predictor: SamPredictor
) -> None:
    prompt = PROMPTS[kind]
    error, _, iou = LIMITS[artefact.artifact.precision]
    masks, scores, logits = cat_predictor.predict(num_multimask_outputs=4, **prompt)
    best = best_mask(scores, has_box="box" in prompt, point_masks=3)
    answer = artefact.decode(artefact.prompt(**prompt))
    assert max_abs_error(answer.masks, logits) < error
    assert max_abs_error(answer.scores, scores) < 1e-2
    assert answer.best == best
    assert answer.best_score == pytest.approx(float(answer.scores[best]), abs=1e-6)
    assert np.array_equal(answer.best_mask, answer.masks[best])
    found = artefact.full_mask(answer)
    assert found.shape == masks[best].shape
    assert 0 < found.mean() < 1
    assert mask_iou(found, masks[best].astype(bool)) >= iou


def test_an_answer_does_not_depend_on_earlier_prompts(artefact: ArtifactPredictor) -> None:
    first = artefact.decode(artefact.prompt(**PROMPTS["1 points"])).masks.copy()
    artefact.decode(artefact.prompt(**PROMPTS["box and 4 points"]))
    assert np.array_equal(artefact.decode(artefact.prompt(**PROMPTS["1 points"])).masks, first)


def test_more_points_than_slots_are_refused_with_the_number_to_build_with(
    onnx: ArtifactPredictor, cat: npt.NDArray[np.uint8]
) -> None:
    onnx.original_size = cat.shape[0], cat.shape[1]
    six = points(6)
    assert (onnx.prompt(**six)["point_labels"] >= 0).all()
    with pytest.raises(UsageError, match="8 prompt points are more than the package's 6 slots") as caught:
        onnx.prompt(box=BOX, **six)
    assert caught.value.hint is not None
    assert "--slots 8" in caught.value.hint


def test_unused_slots_are_marked_empty_and_coordinates_scaled_to_the_frame(
    onnx: ArtifactPredictor, cat: npt.NDArray[np.uint8]
) -> None:
    onnx.original_size = cat.shape[0], cat.shape[1]
    inputs = onnx.prompt(box=BOX, **points(1))
    assert inputs["point_labels"].tolist() == [[1, 2, 3, -1, -1, -1]]
    scale = 1024 / cat.shape[1]
    assert inputs["point_coords"][0, 0] == pytest.approx([245 * scale, 140 * 681 / 300], rel=1e-6)
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.float32)}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "nothing is prompted"),
    "outside": ({"point_coords": [[500, 10]], "point_labels": [1]}, "outside the picture"),
    "box outside": ({"box": (0, 0, 452, 10)}, "outside the picture"),
    "label": ({"point_coords": [[5, 10]], "point_labels": [2]}, "no point label"),
    "points without labels": ({"point_coords": [[5, 10]]}, "one label a point"),
    "labels without points": ({"point_labels": [1], "box": BOX}, "one label a point"),
    "mask": ({"box": BOX, "mask_input": np.zeros((1, 256, 256))}, "takes no mask prompts"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_prompts_are_usage_errors(kind: str, onnx: ArtifactPredictor, cat: npt.NDArray[np.uint8]) -> None:
    prompt, said = WRONG[kind]
    onnx.original_size = cat.shape[0], cat.shape[1]
    with pytest.raises(UsageError, match=said):
        onnx.prompt(**prompt)


def test_a_picture_comes_first(mobile_sam_package: Path) -> None:
    fresh = ArtifactPredictor(mobile_sam_package, "onnx-fp32")
    with pytest.raises(UsageError, match="no picture is set"):
        fresh.prompt(**points(1))
    with pytest.raises(UsageError, match="no picture is set"):
        _ = fresh.features
    with pytest.raises(UsageError, match="is not RGB"):
        fresh.set_image(np.zeros((10, 10), np.uint8))


def test_artefacts_that_do_not_exist_or_do_not_run_here_are_told_apart(mobile_sam_package: Path) -> None:
    with pytest.raises(UsageError, match="has no artefact 'tflite-int8'") as caught:
        ArtifactPredictor(mobile_sam_package, "tflite-int8")
    assert caught.value.hint is not None
    assert "tflite-fp16" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "part"), [("tflite-fp32", "encoder"), ("onnx-fp32", "decoder"), ("executorch-xnnpack-fp32", "decoder")]
)
def test_a_file_altered_after_the_build_is_never_loaded(
    name: str, part: str, mobile_sam_package: Path, tmp_path: Path
) -> None:
    package = copy_package(mobile_sam_package, tmp_path / "p", name)
    (file,) = (package / name).glob(f"{part}.*")
    edit(file, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackageError, match=f"{part}.* has been altered since it was built"):
        ArtifactPredictor(package, name)
    file.unlink()
    with pytest.raises(PackageError, match=f"{part}.* is missing"):
        ArtifactPredictor(package, name)


# In a process of its own: a native runtime may crash over a broken file rather than refuse it.
@pytest.mark.parametrize("keep", [0.0001, 0.5, 0.9999], ids=["head", "half", "almost all"])
@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32"])
def test_a_truncated_file_is_refused_even_if_the_manifest_agrees_with_it(
    name: str, keep: float, edge_sam_package: Path, tmp_path: Path
) -> None:
    package = copy_package(edge_sam_package, tmp_path / "p", name)
    (file,) = (package / name).glob("decoder.*")
    edit(file, lambda content: content[: int(len(content) * keep)])
    rehash(package, name, "decoder")
    target = tmp_path / "out" / "mask.png"
    told = run("predict", CAT, "--point", "245,140", "--artifact", f"{package}:{name}", "-o", target)
    assert str(file) in refusal(told, 11)
    assert "out" not in entries(tmp_path)


def test_a_graph_that_is_not_the_one_in_the_manifest_is_refused(edge_sam_package: Path, tmp_path: Path) -> None:
    """The decoder in the encoder's place, with a manifest that agrees with the file but not with its inputs."""
    for name in ("tflite-fp32", "executorch-xnnpack-fp32", "onnx-fp32"):
        package = copy_package(edge_sam_package, tmp_path / name, name)
        (encoder,), (decoder,) = (package / name).glob("encoder.*"), (package / name).glob("decoder.*")
        edit(encoder, lambda _, other=decoder: other.read_bytes())
        rehash(package, name, "encoder")
        told = run("predict", CAT, "--point", "1,1", "--artifact", f"{package}:{name}", "-o", tmp_path / "m.png")
        assert f"the encoder of {name} cannot be run" in refusal(told, 11)


def test_nothing_but_the_answer_is_said_while_predicting(edge_sam_package: Path, tmp_path: Path) -> None:
    for name in ("tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32"):
        where, target = f"{edge_sam_package}:{name}", tmp_path / "m.png"
        told = run("predict", CAT, "--point", "245,140", "--artifact", where, "-o", target, "--quiet")
        assert told.exit_code == 0
        assert told.stdout.splitlines() == [str(target), str(tmp_path / "m-overlay.png")]
        assert [line[:28] for line in told.stderr.splitlines()] == ["warning: untrained stand-in "]
