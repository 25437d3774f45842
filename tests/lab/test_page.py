"""The report: what it says, that no name can break it, and how a real browser shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER, show
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import COREML, HOST, IPHONE, PHONE, TFLITE, launch, launches_around, run, times
from needed_tools import skip_without
from PIL import Image

from edgesam_mobile.lab import statistics
from edgesam_mobile.lab.page import page
from edgesam_mobile.lab.page.charts import accuracy, over_runs, sustained
from edgesam_mobile.lab.page.svg import Axis, bar
from edgesam_mobile.lab.records import LaunchRecord, RunRecord, StateRecord
from edgesam_mobile.lab.summary import CaseSummary, summarise
from edgesam_mobile.lab.targets import load_target, published

TARGET = load_target("iphone14-30fps")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\x00\ud800&amp;</title></style>"
# Elements that a page without scripts and links has.
KNOWN = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "h1", "h2", "p", "div"),
    *("dl", "dt", "dd", "code", "br", "table", "thead", "tbody", "tr", "th", "td", "span", "small", "b", "i", "ul"),
    *("li", "figure", "figcaption", "details", "summary"),
    *("svg", "line", "text", "polyline", "circle", "rect"),
}


@pytest.fixture(scope="module", autouse=True)
def quick_intervals() -> Iterator[None]:
    """Nothing here depends on how many resamples an interval comes from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 50)
        yield


class Reader(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data


def report(runs: Sequence[RunRecord] | RunRecord, **options: Any) -> str:
    return page(summarise([runs] if isinstance(runs, RunRecord) else runs), TARGET, **options)


def said(html: str) -> str:
    return " ".join(Reader(html).text.split())


def several_devices() -> list[LaunchRecord]:
    hot = tuple(StateRecord(i, (3 + i) * 10**9, {"thermal": t}) for i, t in enumerate(("nominal", "fair", "serious")))
    slow = dataclasses.replace(COREML, id="coreml-fp32")
    host = dataclasses.replace(TFLITE, delegate="xnnpack", accuracy={})
    return [
        *launches_around(25),
        *launches_around(36, case=slow),
        *launches_around(60, case=TFLITE, device=PHONE, states=hot),
        *launches_around(400, 2, case=host, device=HOST),
    ]


@pytest.mark.parametrize(
    ("launches", "headline"),
    [
        (launches_around(25), "Target met"),
        (launches_around(36), "Target missed"),
        (launches_around(25, 3), "Inconclusive"),
        (launches_around(25, device=HOST), "Not compared"),
    ],
)
def test_the_headline_is_the_verdict(launches: list[LaunchRecord], headline: str) -> None:
    assert f"measured edge-sam {headline} 30 FPS on an iPhone 14" in said(report(run(launches)))


def test_verdicts_reasons_and_where_the_time_went_are_said_for_each_case() -> None:
    told = said(report(run(several_devices())))
    assert "4 cases: 2 not compared, 1 missed, 1 pass" in told
    assert "B · coreml-fp32, all missed the target" in told and "alone it would have to shrink by" in told
    assert "a host says nothing about it" in told
    assert "the device was too hot: serious, at most fair allowed" in told


def test_the_table_has_the_figures_of_the_summary() -> None:
    (figures,) = summarise([run(launches_around(25))])
    told = said(page([figures], TARGET))
    assert figures.frame is not None and figures.fps is not None
    for value in (figures.frame.p50.value, figures.frame.p90.value, figures.frame.p99.value):
        assert f" {value:.2f} " in told
    assert f" {figures.fps.value:.1f} " in told and " 0.9980 " in told and " 300 5 launches" in told


def test_figures_of_others_stand_with_their_source_and_as_not_measured_here() -> None:
    told = said(report(run(launches_around(25)), others=published()))
    assert "Published by others Not measured here" in told
    for figure in published():
        assert figure.source in told and figure.device in told
    assert "Published by others" not in said(report(run(launches_around(25))))


def test_only_artefacts_with_both_a_time_and_an_miou_are_drawn() -> None:
    unknown = dataclasses.replace(COREML, id="unknown-miou", accuracy={})
    untimed = dataclasses.replace(COREML, id="untimed")
    drawn = report(run([*launches_around(25), *launches_around(30, case=unknown), launch([], case=untimed)]))
    tips = [line for line in drawn.split("<title>") if "mIoU 64.33" in line]
    assert len(tips) == 1 and tips[0].startswith("coreml-fp16, all")
    assert "No artefact has both" in said(report(run(launches_around(25, case=unknown))))


def test_history_draws_a_case_in_every_run_that_has_it_the_oldest_first() -> None:
    now = run(launches_around(25), created="2026-11-23T09:00:00Z", tags=("now",))
    other_model = run(launches_around(25), id="3" * 32, model="another")
    past = [
        run(launches_around(28), id=f"{day:032x}", created=f"2026-11-{day}T09:00:00Z", tags=(f"day-{day}",))
        for day in (12, 10)
    ]
    html = report(now, history=summarise([*past, other_model, run(launches_around(28, device=PHONE), id="4" * 32)]))
    order = [html.index(f"<title>{name}, 2026") for name in ("day-10", "day-12", "now")]
    assert order == sorted(order)
    assert "over 3 runs" in html
    assert "In one run only: coreml-fp16, all on Apple iPhone14,7 (ios)" in said(report(now))


def test_what_was_not_verified_is_said() -> None:
    flawed = [
        launch(times(25, seed=i), i, check=None, states=(), case=dataclasses.replace(COREML, accuracy={}))
        for i in range(2)
    ]
    told = said(report(run(flawed, trained=False, status="partial")))
    for gap in (
        "The weights are untrained", "no agreement with PyTorch was told", "mIoU on annotated pictures: not in",
        "no thermal state was told", "Runs that did not get to their end: 5eed5eed",
        "Figures published by others were not measured here",
    ):  # fmt: skip
        assert gap in told
    assert "Nothing here was measured on a phone" not in told
    assert "Nothing here was measured on a phone" in said(report(run(launches_around(25, device=HOST))))
    assert "no agreement with PyTorch" not in said(report(run(launches_around(25))))


def test_a_gap_of_some_cases_names_them() -> None:
    told = said(
        report(run([*launches_around(25), *launches_around(30, case=dataclasses.replace(TFLITE, accuracy={}))]))
    )
    assert "mIoU on annotated pictures: not in the manifest. tflite-fp16, gpu, 4 threads on Apple iPhone14,7" in told


def test_cases_without_a_single_frame_are_shown_as_such() -> None:
    failed = launch([], status="failed", error="load-failed: no memory", check=None, result=None, states=())
    told = said(report(run([failed])))
    assert "Inconclusive" in told and "1 of 1 launches failed: load-failed: no memory" in told
    assert "Nothing was timed." in told and "no stages were timed" in told


def hostile(name: str) -> RunRecord:
    case = dataclasses.replace(
        COREML, id=name, runtime=name, delegate=name, accuracy={name: 50.0} if name else {}
    )  # fmt: skip
    device = dataclasses.replace(IPHONE, key=name, info=dict.fromkeys(("maker", "model", "os", "soc", "cores"), name))
    launches = [
        launch(times(25, 10, seed=i), i, case=case, device=device, error=name, status="truncated",
               result={"requested": name, "applied": "cpu"})
        for i in range(2)
    ]  # fmt: skip
    return run(launches, model=name, tags=(name,), tools={name: name}, settings={name: name}, created=name)


def check_harmless(html: str) -> None:
    html.encode()
    found = Reader(html)
    assert {tag for tag, _ in found.elements} <= KNOWN
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert {name: attributes[name] for name in ("src", "href") if name in attributes} in ({}, {"href": "data:,"})


def test_markup_in_names_stays_text() -> None:
    html = report(hostile(HOSTILE), history=summarise([hostile(HOSTILE)]))
    check_harmless(html)
    assert "<script>alert(1)</script>" in Reader(html).text
    assert "{{ 7*7 }}" in Reader(html).text


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=30))
def test_whatever_names_devices_have_the_page_is_harmless(name: str) -> None:
    check_harmless(report(hostile(name)))


def test_the_page_forbids_the_browser_to_load_or_run_anything() -> None:
    html = report(run(launches_around(25)), others=published())
    policies = [a["content"] for tag, a in Reader(html).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "http://" not in html and "https://" not in html and "@import" not in html and "url(" not in html


def test_the_same_figures_give_the_same_page() -> None:
    first, second = (report(run(several_devices()), others=published()) for _ in range(2))
    assert first == second


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.booleans())
def test_an_axis_holds_its_values_and_names_its_ticks_apart(values: list[float], zero: bool) -> None:
    axis = Axis.over("x", values, zero=zero)
    assert axis.low <= min(values) and max(values) <= axis.high
    assert all(axis.low - 1e-6 * axis.high <= at <= axis.high * (1 + 1e-6) for at, _ in axis.ticks)
    names = [name for _, name in axis.ticks]
    assert 2 <= len(names) <= 7 and len(set(names)) == len(names)
    assert [axis.place(value) for value in sorted(values)] == sorted(axis.place(value) for value in values)


def test_a_bar_is_divided_as_the_time_is() -> None:
    found = Reader(bar([("a", 3.0, ""), ("b", 1.0, "")], 8.0)).elements
    assert [(e["x"], e["width"]) for tag, e in found if tag == "rect"] == [("0", "37.5"), ("37.5", "12.5")]


def test_the_thermal_rows_are_what_was_told_last() -> None:
    (figures,) = summarise([run(several_devices()[10:15])])
    kinds = [e.get("class") for tag, e in Reader(str(sustained(figures))).elements if tag == "rect"]
    held = ["thermal-nominal", "thermal-fair", "thermal-serious", "thermal-serious"]
    assert kinds[:4] == held, "what was told last holds"
    (cold,) = summarise([run(launches_around(25, 1, states=()))])
    kinds = [e.get("class") for tag, e in Reader(str(sustained(cold))).elements if tag == "rect"]
    assert set(kinds) == {"thermal-unknown"}


def test_a_hair_between_two_values_does_not_look_like_a_cliff() -> None:
    def heights(drawn: str) -> list[float]:
        return [float(e["cy"] or 0) for tag, e in Reader(drawn).elements if tag == "circle"]

    def summary(ms: float, number: int, miou: float) -> CaseSummary:
        case = dataclasses.replace(COREML, accuracy={"box": miou})
        return summarise([run([launch([ms] * 9, 0, case=case)], id=f"{number:032x}")])[0]

    close = [summary(25, 1, 64.33), summary(25.1, 2, 64.30)]
    assert 0 < abs(np.diff(heights(str(accuracy("box", [("A", close[0]), ("B", close[1])]))))[0]) < 10
    assert 0 < abs(np.diff(heights(str(over_runs(close, frozenset())))))[0] < 10


@pytest.fixture
def browser() -> None:
    if BROWSER is None:
        skip_without("no chromium or chrome on this machine")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    past = [run(launches_around(27), id="1" * 32, created="2026-11-20T09:00:00Z")]
    html = report(run(several_devices(), tags=("v2",)), others=published(), history=summarise(past))
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_the_browser_checks_below_would_notice(tmp_path: Path) -> None:
    """Whether the instrument measures: a page that asks for something and complains."""
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://example.invalid/x.png"><script>console.error("complaint")</script>')
    seen = show(bad, tmp_path, width=300, height=300)
    assert "http://example.invalid/x.png" in seen.asked
    assert any("complaint" in line for line in seen.console)
    shades = np.asarray(Image.open(seen.picture).convert("L"), dtype=float)
    assert any(part.std() <= 3 for part in np.array_split(shades, 6))


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_without_a_complaint_and_asks_for_nothing_else(
    written: Path, tmp_path: Path, dark: bool
) -> None:
    seen = show(written, tmp_path, width=1280, height=2400, dark=dark)
    assert seen.console == []
    assert seen.asked == {seen.address}
    shades = np.asarray(Image.open(seen.picture).convert("L"), dtype=float)
    assert shades.shape == (2400, 1280)
    assert bool(np.median(shades) < 64) is dark
    # Something stands in every part of it.
    assert all(part.std() > 3 for part in np.array_split(shades, 6))


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_on_a_phone_nothing_is_wider_than_the_screen(written: Path, tmp_path: Path) -> None:
    frames = "".join(f'<iframe src="{written.name}" width="{w}" height="900"></iframe>' for w in (320, 390, 800))
    script = """onload = () => console.log("widths " + [...document.querySelectorAll("iframe")].map(
        f => f.contentDocument.documentElement.scrollWidth <= f.contentWindow.innerWidth))"""
    outer = written.with_name("frames.html")
    outer.write_text(f"{frames}<script>{script}</script>")
    seen = show(outer, tmp_path, width=1600, height=1000)
    widths = next(line for line in seen.console if "widths" in line)
    assert widths.startswith('"widths true,true,true"')
