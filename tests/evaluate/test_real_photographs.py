"""Annotated photographs of COCO that lie beside a checkout, and are never copied into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "coco-val100"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="no ../shared/data/coco-val100 beside the checkout"),
]


def means(*words: str | Path) -> dict[str, float]:
    """Mean IoU in percent by prompt, on the first twenty pictures."""
    told = call("eval", *words, "--data", f"coco:{PHOTOGRAPHS}", "--limit", 20, "--refine", 0, "--json")
    assert told.exit_code == 0, told.output
    entry: dict[str, Any] = json.loads(told.stdout)["entries"][-1]
    assert entry["objects"] > 100
    return {label: 100 * found["miou"] for label, found in entry["results"].items()}


def test_the_bundled_weights_are_near_their_teacher(mobile_sam_path: Path) -> None:
    """Within five points from boxes, which was the aim of their training; far above an untrained encoder's 31."""
    student = means("--weights", "edge-sam-open")
    teacher = means("--weights", mobile_sam_path, "--input-size", "512")
    assert teacher["box"] - 5 < student["box"] < teacher["box"] + 1
    assert student["box"] > 60 and student["centre"] > 30


def test_a_recommended_artefact_loses_less_than_half_a_point(tmp_path: Path) -> None:
    built = call("build", "--target", "host", "--precision", "recommended", "-o", tmp_path / "out")
    assert built.exit_code == 0, built.output
    lost = means("--weights", "edge-sam-open")["box"] - means(tmp_path / "out")["box"]
    assert lost < 0.5
