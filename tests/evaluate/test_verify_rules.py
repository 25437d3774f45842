"""What ``verify`` asks of a graph, which answers it takes for right, and when it passes; no converter is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bare_manifest import bare_manifest
from command_line import call
from unexported import Arrays, Run, Unexported, unexported

from edgesam_mobile.errors import EnvironmentMissing, VerificationFailed
from edgesam_mobile.evaluate import verify as verification
from edgesam_mobile.evaluate.probes import PROBES
from edgesam_mobile.evaluate.verify import UNCOMPARED, Check, Reference, Verification
from edgesam_mobile.model import SamPredictor
from edgesam_mobile.package.manifest import Manifest
from edgesam_mobile.runtime.predictor import ArtifactPredictor, Decoded

CAT = Path(__file__).resolve().parents[2] / "examples" / "cat.jpg"
MASKS = np.random.default_rng(0).normal(size=(4, 64, 64)).astype(np.float32)
POINT: dict[str, Any] = {"point_coords": [[5, 5]], "point_labels": [1]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Unexported:
    return unexported(tmp_path_factory.mktemp("tiny"), prompts=2, mask_input=True)


def verified(tiny: Unexported) -> Verification:
    return verification.verify(tiny.package, [CAT], weights=str(tiny.weights), offline=True)


def test_a_mask_prompt_all_rows_and_the_proposals_graph_are_asked(
    tiny: Unexported, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Arrays]] = []

    def listen(graph: str, run: Run, inputs: Arrays) -> Arrays:
        asked.append((graph, inputs))
        return run(inputs)

    tiny.opened(monkeypatch, listen)
    result = verified(tiny)
    check = result.checks[0]
    assert result.passed and check.passed and check.note == UNCOMPARED
    # Every probe, one with a mask, two rows at once, and one on the proposals graph's embedding.
    assert check.answers == check.best_same == len(PROBES) + 1 + 2 + 1
    assert [graph for graph, _ in asked] == ["encoder", *["decoder"] * (len(PROBES) + 2), "proposals", "decoder"]
    masked = [inputs["has_mask_input"].tolist() for graph, inputs in asked if graph == "decoder"]
    assert masked == [[0, 0]] * len(PROBES) + [[1, 0], [0, 1], [0, 0]]


def without_mask(graph: str, run: Run, inputs: Arrays) -> Arrays:
    return run({**inputs, "has_mask_input": np.zeros(2, np.float32)} if graph == "decoder" else inputs)


def first_row_alone(graph: str, run: Run, inputs: Arrays) -> Arrays:
    return {k: np.concatenate([v[:1], v[:1]]) if graph == "decoder" else v for k, v in run(inputs).items()}


def other_embedding(graph: str, run: Run, inputs: Arrays) -> Arrays:
    return {k: v[..., ::-1] if graph == "proposals" and v.ndim == 4 else v for k, v in run(inputs).items()}


def impossible_confidences(graph: str, run: Run, inputs: Arrays) -> Arrays:
    return {k: np.full_like(v, np.nan) if k == "proposal_scores" else v for k, v in run(inputs).items()}


@pytest.mark.parametrize("wrong", [without_mask, first_row_alone, other_embedding, impossible_confidences])
def test_a_graph_that_is_wrong_in_one_of_them_fails(
    tiny: Unexported, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[str, Run, Arrays], Arrays]
) -> None:
    tiny.opened(monkeypatch, wrong)
    result = verified(tiny)
    assert result.failed == ["onnx-fp32"] and not result.passed


class Scored(SamPredictor):
    """Answers any prompt with masks and scores that are given."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.array(scores, np.float32)

    def predict(self, *_: Any, **__: Any) -> Any:
        return MASKS > 0, self.scores, MASKS


def reference(scores: list[float], *, point_masks: int = 3, **prompt: Any) -> Reference:
    rules = {"low_resolution": 64, "score": "iou", "point_masks": point_masks}
    return verification._reference(Scored(scores), bare_manifest("0" * 64, mask=rules), prompt or POINT)


def test_right_answers_are_the_competing_masks_that_score_as_high_as_the_best() -> None:
    assert list(reference([0.9, 0.9, 0.895, 0.2]).right) == [1, 2]
    assert list(reference([0.9, 0.9, 0.895, 0.2], point_masks=4).right) == [0, 1, 2]
    assert list(reference([0.9, 0.9, 0.88, 0.2]).right) == [1]
    assert list(reference([0.9, 0.9, 0.9, 0.9], box=[1, 1, 9, 9]).right) == [0]


@pytest.fixture
def predictor(tiny: Unexported, monkeypatch: pytest.MonkeyPatch) -> ArtifactPredictor:
    """With the size of a picture, on which nothing is decoded."""
    tiny.opened(monkeypatch)
    predictor = ArtifactPredictor(tiny.package, "onnx-fp32")
    predictor.original_size = (64, 64)
    return predictor


def compared(predictor: ArtifactPredictor, expected: Reference, shown: int, masks: npt.NDArray[np.float32]) -> Check:
    check = Check("x")
    right = {i: predictor.transform.upscale_masks(MASKS[i], (64, 64)) > 0 for i in expected.right}
    expected = Reference(expected.prompt, expected.logits, expected.best, right)
    decoded = Decoded(masks, np.ones(4, np.float32), masks[shown], 1.0)
    verification._compare_answer(check, predictor, decoded, expected)
    return check


def test_of_tied_masks_either_may_be_shown_and_is_held_against_its_own(predictor: ArtifactPredictor) -> None:
    tied = reference([0.1, 0.9, 0.895, 0.2])
    for shown in (1, 2):
        check = compared(predictor, tied, shown, MASKS)
        assert (check.best_same, check.mask_ious) == (1, [1.0])
    # What is not shown may be anything; what is shown may not.
    damaged = MASKS.copy()
    damaged[2] = -MASKS[2]
    assert compared(predictor, tied, 1, damaged).mask_ious == [1.0]
    check = compared(predictor, tied, 2, damaged)
    assert check.best_same == 1 and check.mask_ious[0] < 0.1


def test_a_mask_that_scores_less_or_does_not_compete_is_another_answer(predictor: ArtifactPredictor) -> None:
    tied = reference([0.9, 0.9, 0.895, 0.2])
    for shown in (0, 3):
        check = compared(predictor, tied, shown, MASKS)
        assert check.best_same == 0 and check.mask_ious[0] < 0.9


def told(manifest: Manifest, *checks: Check) -> Verification:
    return Verification(manifest, ["cat.jpg"], list(checks))


UPSAMPLING = Check("pytorch with bicubic up-sampling", executed=True, runtime="PyTorch")


def test_a_package_of_which_nothing_was_executed_is_no_pass() -> None:
    manifest = bare_manifest("0" * 64, ("onnx", "tflite", "coreml"))
    nothing = told(manifest, Check("onnx-fp32"), UPSAMPLING)
    assert (nothing.passed, nothing.executed, nothing.failed) == (False, 0, [])
    with pytest.raises(EnvironmentMissing, match="no runtime here for onnx, tflite, coreml") as caught:
        nothing.require_pass(hint="")
    assert caught.value.hint == 'pip install "edgesam-mobile[coreml,onnx,tflite]"'
    unknown = told(bare_manifest("0" * 64, ("later",)), Check("later-fp32"))
    with pytest.raises(EnvironmentMissing) as caught:
        unknown.require_pass(hint="")
    assert caught.value.hint == "build for host or android"
    failed = told(manifest, Check("coreml-fp32", passed=False))
    with pytest.raises(VerificationFailed, match="not equal to PyTorch: coreml-fp32"):
        failed.require_pass(hint="")
    passed = told(manifest, Check("onnx-fp32"), Check("tflite-fp32", executed=True, passed=True))
    assert passed.passed and passed.executed == 1
    passed.require_pass(hint="")


@pytest.mark.parametrize(("mode", "stdout"), [("--json", None), ("--quiet", "not executed\n")])
def test_without_a_runtime_the_command_ends_with_5(
    mode: str, stdout: str | None, tiny: Unexported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "runnable", lambda _: False)
    answer = call("verify", tiny.package, "--image", CAT, "--weights", tiny.weights, mode)
    assert answer.exit_code == 5
    assert "edgesam-mobile[onnx]" in answer.stderr
    if stdout is None:
        data = json.loads(answer.stdout)
        assert (data["passed"], data["executed"]) == (False, 0)
    else:
        assert answer.stdout == stdout
