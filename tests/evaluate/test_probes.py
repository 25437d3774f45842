"""The built-in pictures and prompts: readable, inside any picture, of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.evaluate.probes import PROBES, Probe, builtin_pictures
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.picture import read_picture

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sides = st.integers(1, 5000)


@given(st.sampled_from(PROBES), sides, sides)
def test_every_probe_lies_inside_a_picture_of_any_size(probe: Probe, height: int, width: int) -> None:
    prompt = probe.on(height, width)
    slots = 0
    if "point_coords" in prompt:
        coords, labels = prompt["point_coords"], prompt["point_labels"]
        points, kinds = ResizeLongestSide.check_points(coords, labels, (height, width))  # type: ignore[arg-type]
        slots += len(points)
        assert set(kinds) <= {0, 1}
    if "box" in prompt:
        ResizeLongestSide.check_box(prompt["box"], (height, width))  # type: ignore[arg-type]
        slots += 2
    assert slots == probe.slots() > 0


def test_fractions_become_pixels() -> None:
    probe = Probe("", ((0.5, 0.25, 1), (1.0, 0.0, 0)), (0.0, 0.1, 0.5, 1.0))
    prompt = probe.on(height=200, width=100)
    assert prompt["point_coords"] == [[50, 50], [100, 0]]
    assert prompt["point_labels"] == [1, 0]
    assert prompt["box"] == pytest.approx([0, 20, 50, 200])
    assert probe.slots() == 4


def test_probes_cover_every_kind_of_prompt_and_have_names_of_their_own() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert {len(probe.points) for probe in PROBES if probe.box is None} >= {1, 2, 3}
    assert any(probe.box and not probe.points for probe in PROBES)
    assert any(probe.box and probe.points for probe in PROBES)
    assert any(label == 0 for probe in PROBES for _, _, label in probe.points)


def test_the_built_in_pictures_are_those_of_the_examples() -> None:
    pictures = builtin_pictures()
    assert [path.name for path in pictures] == ["cat.jpg", "coffee.jpg"]
    for path in pictures:
        assert np.array_equal(read_picture(path), read_picture(EXAMPLES / path.name))
