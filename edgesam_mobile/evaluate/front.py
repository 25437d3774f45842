"""A picture of a quantisation search: size against damage, and the blocks that are most sensitive."""

from __future__ import annotations

from pathlib import Path

from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.evaluate.quantise import Search
from edgesam_mobile.files import atomic_file

_SHOWN = 15


def draw_front(found: Search, part: str, path: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentMissing("matplotlib is not installed", hint='pip install "edgesam-mobile[eval]"') from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for candidate in found.tried:
        chosen = found.chosen is not None and candidate.step == found.chosen.step
        colour = "tab:red" if chosen else "tab:blue" if candidate in found.front() else "tab:grey"
        cost = candidate.cost(found.objective) / (1e6 if found.objective == "size" else 1)
        left.plot(cost, 100 * candidate.damage, "o", color=colour)
        left.annotate(candidate.step, (cost, 100 * candidate.damage), fontsize=7)
    unit = f"{part}, MB" if found.objective == "size" else f"{part}, ms on this machine"
    left.set(xlabel=unit, ylabel="points of mask IoU lost", title="blue: front; red: chosen")
    left.grid(alpha=0.3)
    worst = found.sensitivity[:_SHOWN][::-1]
    right.barh([c.step for c in worst], [100 * c.damage for c in worst], color="tab:blue")
    right.set(xlabel="points lost with this block alone compressed")
    right.tick_params(labelsize=7)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
