"""Pictures of a run: the loss curve, and masks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.files import atomic_file

_TINT = np.array([30, 144, 255], dtype=np.float32)


def draw_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and learning rate over the steps of a log's entries, as a PNG; nothing where there are none.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    entries = [entry for entry in entries if entry.get("loss") is not None]
    if not entries:
        return
    figure = _figure(8, 4.5)
    axes = figure.add_subplot()
    steps, losses = [entry["step"] for entry in entries], [entry["loss"] for entry in entries]
    axes.plot(steps, losses, marker="." if len(steps) < 50 else None, color="tab:blue")
    if min(losses) > 0:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(steps, [entry["lr"] for entry in entries], color="tab:grey", linewidth=0.8)
    rates.set_ylabel("learning rate", color="tab:grey")
    _save(figure, path)


def draw_masks(rows: Sequence[tuple[Any, Any, Any]], path: Path) -> None:
    """Draw photo, teacher's mask and student's mask side by side, a row each, as a PNG; nothing without rows.

    Args:
        rows: (picture uint8 H x W x 3, teacher's mask bool H x W, student's mask bool H x W).

    Raises:
        As :func:`draw_curve`.
    """
    if not rows:
        return
    shapes = [picture.shape[0] / picture.shape[1] for picture, _, _ in rows]
    figure = _figure(9, 3 * sum(shapes) + 0.4)
    grid = figure.subplots(len(rows), 3, squeeze=False, height_ratios=shapes)
    for line, (picture, teacher, student) in zip(grid, rows, strict=True):
        for axes, shown in zip(line, (picture, _tinted(picture, teacher), _tinted(picture, student)), strict=True):
            axes.imshow(shown)
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("picture", "teacher", "student"), strict=True):
        axes.set_title(title)
    _save(figure, path)


def _tinted(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The mask in blue over a darker picture."""
    colours = picture * np.where(mask, 0.5, 0.6)[..., None] + mask[..., None] * _TINT / 2
    tinted: npt.NDArray[np.uint8] = colours.astype(np.uint8)
    return tinted


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'pip install "edgesam-mobile[distill]"'
        raise EnvironmentMissing("matplotlib is not installed", hint=hint) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
