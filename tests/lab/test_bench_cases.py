"""What a benchmark plans to run, and in which order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab import cases
from edgesam_mobile.lab.cases import Case, plan, schedule
from edgesam_mobile.package.manifest import Manifest, read_manifest


@pytest.fixture
def manifest(bare_package: Path) -> Manifest:
    """Core ML, and two formats that run here."""
    bare = read_manifest(bare_package)
    formats = ("coreml", "onnx", "tflite")
    artifacts = [bare.artifacts[0].model_copy(update={"id": f"{f}-fp32", "format": f}) for f in formats]
    return bare.model_copy(update={"artifacts": artifacts})


def test_every_artefact_and_baseline_with_every_number_of_threads(manifest: Manifest) -> None:
    chosen = plan(manifest, threads=(1, 2))
    ids = ("onnx-fp32", "tflite-fp32", "pytorch-eager", "onnx-published", "mobile-sam")
    timed = [case.key for case in chosen.cases if case.kind != "interpreted"]
    assert timed == [f"{name}@{n}" for name in ids for n in (1, 2)]


def test_core_ml_is_interpreted_last_with_the_most_threads_and_can_be_left_out(manifest: Manifest) -> None:
    chosen = plan(manifest, threads=(2, 1), only=("coreml-fp32", "pytorch-eager"))
    assert [(case.key, case.kind) for case in chosen.cases] == [
        ("pytorch-eager@2", "pytorch"), ("pytorch-eager@1", "pytorch"), ("coreml-fp32@2", "interpreted"),
    ]  # fmt: skip
    left = plan(manifest, threads=(1,), interpreted=False)
    assert "coreml-fp32" not in {case.id for case in left.cases} and left.skipped == ()


def test_mobile_sam_is_no_baseline_of_itself(manifest: Manifest) -> None:
    itself = manifest.model_copy(update={"architecture": "mobile-sam"})
    assert "mobile-sam" not in {case.id for case in plan(itself, threads=(1,)).cases}


def test_a_runtime_that_is_not_installed_is_named(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "find_spec", lambda name: None)
    chosen = plan(manifest, threads=(1,))
    reasons = {s.id: s.reason for s in chosen.skipped}
    assert reasons["tflite-fp32"] == "ai_edge_litert not installed"
    assert reasons["onnx-published"] == "onnx and onnxruntime not installed"


def test_only_keeps_what_is_named_and_refuses_what_there_is_not(manifest: Manifest) -> None:
    chosen = plan(manifest, threads=(1,), only=("onnx-fp32", "coreml-fp32"))
    assert [case.id for case in chosen.cases] == ["onnx-fp32", "coreml-fp32"]
    with pytest.raises(UsageError, match="no case 'onnx'") as caught:
        plan(manifest, threads=(1,), only=("onnx",))
    assert "onnx-published" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no case 'pytorch-eager'"):
        plan(manifest, threads=(1,), only=("pytorch-eager",), baselines=False)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_launches_are_interleaved_and_the_order_repeats(count: int, launches: int, seed: int) -> None:
    every = [Case(str(i), "artifact", 1, "x") for i in range(count)]
    order = schedule(every, launches, seed)
    assert order == schedule(every, launches, seed)
    assert [launch for launch, _ in order] == [launch for launch in range(launches) for _ in every]
    assert Counter(case for _, case in order) == dict.fromkeys(every, launches)


def test_what_is_interpreted_comes_once_after_all_that_is_timed() -> None:
    timed, once = Case("timed", "artifact", 1, "x"), Case("once", "interpreted", 1, "x")
    assert schedule([once, timed], 2) == [(0, timed), (1, timed), (0, once)]


def test_rounds_differ_in_order() -> None:
    every = [Case(str(i), "artifact", 1, "x") for i in range(6)]
    order = [case for _, case in schedule(every, 5)]
    assert len({tuple(order[i : i + 6]) for i in range(0, 30, 6)}) > 1
