"""Verdicts for continuous integration: JUnit's XML and Markdown, from the same few facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

State = Literal["passed", "failed", "inconclusive"]

# XML 1.0 and Markdown tables cannot hold control characters, UTF-8 no surrogates; those that turn the direction of
# writing make one name look like another.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&!])")


@dataclass(frozen=True)
class Result:
    """One line of a verdict.

    Attributes:
        group: where it was measured.
        name: what was measured.
        word: the verdict in its own words, such as ``missed``.
        text: the figures and reasons.
        seconds: of the median frame, where one was timed.
    """

    group: str
    name: str
    state: State
    word: str
    text: str
    seconds: float | None = None


def junit(title: str, results: Sequence[Result]) -> str:
    """JUnit's XML: missed is a failure; inconclusive is an error, since a skipped test would look like a pass."""
    counts = {
        "tests": len(results),
        "failures": sum(result.state == "failed" for result in results),
        "errors": sum(result.state == "inconclusive" for result in results),
    }
    attributes = {"name": plain(title)} | {key: str(value) for key, value in counts.items()}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": plain(result.group), "name": plain(result.name)}
        )
        if result.seconds is not None:
            case.set("time", f"{result.seconds:.6f}")
        inside = {"failed": "failure", "inconclusive": "error"}.get(result.state, "system-out")
        told = ElementTree.SubElement(case, inside)
        told.text = plain(result.text)
        if inside != "system-out":
            told.set("message", plain(result.word))
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content.decode() + "\n"


def markdown(title: str, results: Sequence[Result], notes: Sequence[str] = ()) -> str:
    """A heading, a table and a list of notes; nothing in them is taken for markup."""
    lines = [f"## {_escaped(title)}", "", "| where | what | verdict | figures |", "| -- | -- | -- | -- |"]
    for result in results:
        cells = (result.group, result.name, result.word, result.text)
        lines.append(f"| {' | '.join(map(_escaped, cells))} |")
    lines += ["", *(f"- {_escaped(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """A text that came from a device, without what no output can hold or show."""
    return _CONTROL.sub(" ", text)


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", plain(text))
