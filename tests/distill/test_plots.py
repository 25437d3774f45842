"""Pictures of a run are pictures of what was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.log import time_left
from distill.plots import draw_curve, draw_masks


def test_the_curve_is_a_png_that_depends_on_the_losses(tmp_path: Path) -> None:
    entries = [{"step": step, "loss": 1 / step, "lr": 1e-3} for step in range(1, 9)]
    draw_curve(entries, tmp_path / "one.png")
    draw_curve([*entries[:-1], {"step": 8, "loss": None, "lr": 1e-3}], tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("one.png", "two.png"))
    assert one.shape[0] > 300
    assert one.shape != two.shape or (one != two).any()


def test_masks_are_shown_where_they_are(tmp_path: Path) -> None:
    picture = np.full((60, 80, 3), 200, dtype=np.uint8)
    left, right = np.zeros((2, 60, 80), dtype=bool)
    left[:, :40] = right[:, 40:] = True
    draw_masks([(picture, left, right)] * 2, tmp_path / "masks.png")
    shown = np.asarray(Image.open(tmp_path / "masks.png").convert("RGB")).astype(int)
    blue = (shown[..., 2] - shown[..., 0] > 50).sum(0)
    third = shown.shape[1] // 3
    photo, teacher, student = blue[:third], blue[third : 2 * third], blue[2 * third :]
    assert photo.sum() == 0
    assert teacher[: third // 2].sum() > 20 * teacher[third // 2 + 10 :].sum()
    assert student[: third // 2 - 10].sum() * 20 < student[third // 2 :].sum()


def test_nothing_to_show_is_no_file(tmp_path: Path) -> None:
    draw_curve([{"step": 1, "loss": None}], tmp_path / "curve.png")
    draw_masks([], tmp_path / "masks.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3 * 3600 + 301, "3 h 5 min")]
)
def test_time_left_is_told_in_fitting_units(seconds: float, told: str) -> None:
    assert time_left(seconds) == told
