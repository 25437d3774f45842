"""Small charts as inline SVG. Colours are classes of ``page.css``, so that one drawing serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from edgesam_mobile.lab.outcomes import plain

WIDTH = 360  # of a chart in its own units; about as many pixels on a phone, so that its words stay readable
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 8, 36
_STRIP = 6  # height of one row of a strip
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Attributes:
        ticks: values and what stands beside them; within ``low`` and ``high``.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def over(cls, label: str, values: Iterable[float], *, zero: bool = False) -> Axis:
        """A scale over at least one value, a little beyond on either side.

        Args:
            zero: begin at 0, for values whose size matters and not only their difference.
        """
        found = list(values)
        low, high = min(found), max(found)
        # Equal values get a scale as well, wide enough for ticks that differ in what is written there.
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = (0.0 if zero else max(low - margin, min(low, 0.0))), high + margin
        step = _step((high - low) / _TICKS)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step)))
        return cls(label, low, high, tuple((i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)))

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1; what is outside is at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


class Plot:
    """A frame with two axes, to which marks are added in the units of the data.

    Args:
        title: what screen readers say.
        strips: rows above the frame, for what has a time but no value.
    """

    def __init__(self, title: str, x: Axis, y: Axis, *, height: int = 210, strips: int = 0) -> None:
        self.x, self.y = x, y
        self._top = _TOP + strips * _STRIP + (6 if strips else 0)
        self._bottom = height + self._top - _TOP - _BOTTOM
        whole = self._bottom + _BOTTOM
        self._root = ElementTree.Element(
            "svg", {"viewBox": f"0 0 {WIDTH} {whole}", "role": "img", "aria-label": plain(title)}
        )
        for value, text in y.ticks:
            at = self._y(value)
            self._line(_LEFT, at, WIDTH - _RIGHT, at, "grid")
            self._text(_LEFT - 5, at + 3.5, text, "tick end")
        for value, text in x.ticks:
            self._line(self._x(value), self._bottom, self._x(value), self._bottom + 4, "axis")
            self._text(self._x(value), self._bottom + 15, text, "tick middle")
        self._line(_LEFT, self._bottom, WIDTH - _RIGHT, self._bottom, "axis")
        self._text((WIDTH + _LEFT - _RIGHT) / 2, whole - 5, x.label, "label middle")
        middle = (self._top + self._bottom) / 2
        label = self._text(0, 0, y.label, "label middle")
        label.set("transform", f"translate(11 {_number(middle)}) rotate(-90)")

    def curve(self, points: Sequence[Point], kind: str, tip: str = "") -> None:
        """A line through points in order; what leaves the frame runs along its edge."""
        path = " ".join(f"{_number(self._x(x))},{_number(self._y(y))}" for x, y in points)
        self._add("polyline", {"points": path}, kind, tip)

    def dot(self, point: Point, kind: str, tip: str = "", *, mark: str = "") -> None:
        """A disc, with a mark of a character or two in it where it stands for something in a list."""
        x, y = self._x(point[0]), self._y(point[1])
        self._add("circle", {"cx": x, "cy": y, "r": 8.0 if mark else 3.5}, kind, tip)
        if mark:
            self._text(x, y + 3.5, mark, "mark middle")

    def whisker(self, x: float, low: float, high: float, kind: str) -> None:
        """A vertical line from one value to another, such as an interval."""
        self._line(self._x(x), self._y(low), self._x(x), self._y(high), kind)

    def limit(self, x: float, text: str) -> None:
        """A vertical line through the whole frame, with its name; none if it lies outside."""
        if self.x.low <= x <= self.x.high:
            at = self._x(x)
            self._line(at, self._top, at, self._bottom, "limit")
            left = at > WIDTH / 2
            self._text(at - 4 if left else at + 4, self._bottom - 6, text, f"limit-name {'end' if left else ''}")

    def strip(self, row: int, low: float, high: float, kind: str, tip: str) -> None:
        """A piece of a row above the frame."""
        x, end = self._x(low), self._x(high)
        size = {"x": x, "y": float(_TOP + row * _STRIP), "width": max(end - x - 0.5, 0.5), "height": _STRIP - 1.5}
        self._add("rect", size, kind, tip)

    def markup(self) -> Markup:
        """The SVG element; every text in it is escaped."""
        return _markup(self._root)

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return self._bottom - self.y.place(value) * (self._bottom - self._top)

    def _add(self, shape: str, numbers: dict[str, float] | dict[str, str], kind: str, tip: str = "") -> None:
        texts = {key: value if isinstance(value, str) else _number(value) for key, value in numbers.items()}
        element = ElementTree.SubElement(self._root, shape, {**texts, "class": kind})
        if tip:
            ElementTree.SubElement(element, "title").text = plain(tip)

    def _line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, kind)

    def _text(self, x: float, y: float, text: str, kind: str) -> ElementTree.Element:
        place = {"x": _number(x), "y": _number(y), "class": kind.strip()}
        element = ElementTree.SubElement(self._root, "text", place)
        element.text = plain(text)
        return element


def bar(parts: Sequence[tuple[str, float, str]], whole: float) -> Markup:
    """A bar of several parts, each a class, a size and a tip; as wide as its place if they add up to ``whole``."""
    root = ElementTree.Element("svg", {"viewBox": "0 0 100 10", "preserveAspectRatio": "none", "aria-hidden": "true"})
    at = 0.0
    for kind, size, tip in parts:
        width = 100 * size / whole
        place = {"x": _number(at), "y": "0", "width": _number(width), "height": "10", "class": kind}
        ElementTree.SubElement(ElementTree.SubElement(root, "rect", place), "title").text = plain(tip)
        at += width
    return _markup(root)


def _markup(root: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # which has escaped every text


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _step(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not below a positive number."""
    power = float(10.0 ** math.floor(math.log10(rough)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
