"""Pictures and prompts that artefacts are checked on when the user names none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesam_mobile.picture import PICTURES


@dataclass(frozen=True)
class Probe:
    """A prompt in fractions of the picture's width and height.

    Attributes:
        points: (x, y, label) each; 1 is foreground, 0 background.
        box: x1, y1, x2, y2.
    """

    name: str
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def slots(self) -> int:
        """Prompt slots that it takes."""
        return len(self.points) + (2 if self.box else 0)

    def on(self, height: int, width: int) -> dict[str, object]:
        """Keyword arguments for ``predict`` in pixels of a picture of that size."""
        prompt: dict[str, object] = {}
        if self.points:
            prompt["point_coords"] = [[x * width, y * height] for x, y, _ in self.points]
            prompt["point_labels"] = [label for _, _, label in self.points]
        if self.box:
            x1, y1, x2, y2 = self.box
            prompt["box"] = [x1 * width, y1 * height, x2 * width, y2 * height]
        return prompt


# Every kind of prompt: each count of points a user taps, boxes alone and corrected by points.
PROBES = (
    Probe("centre point", ((0.5, 0.5, 1),)),
    Probe("off-centre point", ((0.3, 0.65, 1),)),
    Probe("point, not corner", ((0.5, 0.5, 1), (0.05, 0.05, 0))),
    Probe("three points", ((0.5, 0.45, 1), (0.45, 0.6, 1), (0.9, 0.1, 0))),
    Probe("box", box=(0.15, 0.1, 0.85, 0.9)),
    Probe("box and points", ((0.5, 0.5, 1), (0.1, 0.9, 0)), (0.2, 0.2, 0.8, 0.8)),
)


def builtin_pictures() -> list[Path]:
    """The photographs that come with the package: a cat and a cup of coffee, CC0 (see ``examples/README.md``)."""
    return [PICTURES / "cat.jpg", PICTURES / "coffee.jpg"]
