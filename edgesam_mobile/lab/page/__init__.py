"""The report: one HTML page without scripts that loads nothing, readable in light, dark, print and on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from edgesam_mobile.lab.summary import CaseSummary
from edgesam_mobile.lab.targets import Published, Target


def page(
    figures: Sequence[CaseSummary],
    target: Target,
    *,
    others: Sequence[Published] = (),
    history: Sequence[CaseSummary] = (),
) -> str:
    """The page; the same for the same figures.

    Names come from devices and packages, so every text is escaped, and the page's own policy forbids the browser to
    run or load anything.

    Args:
        figures: of at least one case.
        others: figures that others published, shown with their source.
        history: the same cases in other runs.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from edgesam_mobile.lab.outcomes import plain
    from edgesam_mobile.lab.page import content

    def cleaned(value: object) -> object:
        return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    folder = files(__package__)
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=cleaned, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"ms": content.milliseconds, "interval": content.interval}
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    report = content.gather(figures, target, history)
    return template.render(report=report, others=others, style=Markup(style)) + "\n"
