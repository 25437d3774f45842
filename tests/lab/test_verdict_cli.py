"""``compare``, ``regress`` and ``report`` on a real store, by their outputs and exit codes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from command_line import refusal
from made_up import COREML, HOST, TFLITE, launches_around, run
from typer.testing import CliRunner, Result

from edgesam_mobile.cli import compare, regress, report
from edgesam_mobile.lab import statistics
from edgesam_mobile.lab.records import RunRecord
from edgesam_mobile.lab.store import open_store

app = typer.Typer()
for each in (compare, regress, report):
    app.add_typer(each.app)


@pytest.fixture(scope="module", autouse=True)
def quick_intervals() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run on an iPhone that passes, one that misses, a doubtful one, and the newest, on a host."""
    path = tmp_path_factory.mktemp("store") / "measurements.sqlite"
    for number, (tag, record) in enumerate(made_up_runs().items()):
        keep(path, record, tag, number)
    return path


def made_up_runs() -> dict[str, RunRecord]:
    both = [*launches_around(25), *launches_around(36, case=TFLITE)]
    return {
        "good": run(launches_around(25)),
        "slow": run(launches_around(36)),
        "both": run(both),
        "short": run(launches_around(25, 3)),
        "pair": run(launches_around(25, 2)),
        "nothing": run([]),
        "host": run(launches_around(25, device=HOST)),
    }


def keep(path: Path, record: RunRecord, tag: str, number: int) -> None:
    store = open_store(path)
    whole = dataclasses.replace(
        record, id=f"{number + 1:032x}", tags=(tag,), status="running", created=f"2026-11-2{number}T09:00:00Z"
    )
    store.begin(dataclasses.replace(whole, launches=()))
    for index, launch in enumerate(record.launches):
        store.add_launch(whole.id, dataclasses.replace(launch, id=f"{tag}-{index}"))
    store.finish(whole.id, "complete")


def call(place: Path, *words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in (*words, "--store", place)])


def compared(place: Path, *words: object) -> Result:
    return call(place, "compare", *words, "--target", "iphone14-30fps")


@pytest.mark.parametrize(
    ("names", "code", "outcomes"),
    [
        (["good"], 0, ["pass"]),
        (["slow"], 3, ["missed"]),
        (["short"], 4, ["inconclusive"]),
        (["host"], 4, ["inconclusive"]),
        ([], 4, ["inconclusive"]),
        (["good", "short", "slow"], 3, ["pass", "inconclusive", "missed"]),
        (["good", "good"], 0, ["pass"]),
        (["both"], 3, ["pass", "missed"]),
        (["both", "--case", "coreml-fp16"], 0, ["pass"]),
    ],
)
def test_compare_ends_with_the_verdict(place: Path, names: list[str], code: int, outcomes: list[str]) -> None:
    told = compared(place, *names, "--json")
    assert told.exit_code == code, told.stderr
    data = json.loads(told.stdout)
    assert data["schema"] == "edgesam.compare/1"
    assert [case["outcome"] for case in data["cases"]] == outcomes
    if code:
        assert json.loads(told.stderr)["error"]["exit_code"] == code


def test_compare_shows_numbers_reasons_and_figures_of_others(place: Path) -> None:
    told = compared(place, "slow", "short", "host")
    assert told.exit_code == 3
    for text in (
        "30 FPS on an iPhone 14: p90 of the whole frame within 33.3 ms", "alone it would have to shrink by",
        "3 launches measured, 5 needed", "a host says nothing about it", "not compared",
        "published by others, not measured here", "EdgeSAM README",
    ):  # fmt: skip
        assert text in told.stdout
    assert "error: 30 FPS on an iPhone 14: missed by coreml-fp16" in told.stderr
    quiet = compared(place, "good", "--quiet")
    assert quiet.stdout == "pass coreml-fp16, all\n"


def test_a_host_is_refused_and_still_shown(place: Path) -> None:
    (case,) = json.loads(compared(place, "host", "--json").stdout)["cases"]
    assert case["refused"] and "another" not in case["reasons"][0]
    assert case["p90"]["value"] > 0 and case["frame"]["p50"]["value"] > 0


def test_verdicts_are_written_for_continuous_integration(place: Path, tmp_path: Path) -> None:
    junit, markdown = tmp_path / "verdict.xml", tmp_path / "verdict.md"
    compared(place, "good", "slow", "short", "--junit", junit, "--markdown", markdown)
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    text = markdown.read_text()
    assert "| missed |" in text and "not measured here" in text and "3 launches measured, 5 needed" in text
    call(place, "regress", "slow", "--against", "good", "--junit", junit, "--markdown", markdown)
    assert ElementTree.parse(junit).getroot()[0].get("failures") == "1"
    assert "| slower |" in markdown.read_text()


def test_a_target_of_ones_own(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "kiosk.toml"
    target.write_text(
        'title = "Kiosk"\np90_ms = 60\n[device]\nkind = "host"\nname = "kiosk"\nmodels = ["Some CPU"]\n'
    )
    assert call(place, "compare", "host", "--target", target).exit_code == 0
    target.write_text(target.read_text().replace("models", "modles"))
    told = call(place, "compare", "host", "--target", target)
    assert "unknown option device.modles — did you mean models?" in refusal(told, 2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("compare", "never", "--target", "iphone14-30fps"), "no run is called 'never'"),
        (("compare", "--target", "iphone14-30fp"), "did you mean iphone14-30fps?"),
        (("compare", "--target", "missing.toml"), "cannot read the target missing.toml"),
        (("compare", "good", "--case", "onnx", "--target", "iphone14-30fps"), "no case 'onnx' in these runs"),
        (("regress", "--against", "good", "--tolerance", "much"), "'much' is no tolerance"),
        (("regress", "--against", "good", "--tolerance", "0"), "'0' is no tolerance"),
        (("regress", "--against", "good", "--tolerance", "nan"), "'nan' is no tolerance"),
        (("regress", "--against", "good", "--tolerance", "5%5"), "'5%5' is no tolerance"),
        (("regress", "--against", "both:onnx", "both"), "no case 'onnx' in these runs"),
        (("compare", "nothing", "--target", "iphone14-30fps"), "nothing was measured in these runs"),
        (("regress", "--against", "good", "host"), "no case in common"),
        (("report", "never", "-o", "report.html"), "no run is called 'never'"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(place: Path, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in refusal(call(place, *words), 2)


def test_nothing_measured_yet_is_said(tmp_path: Path) -> None:
    told = compared(tmp_path / "absent.sqlite")
    assert told.exit_code == 2 and not (tmp_path / "absent.sqlite").exists()
    open_store(tmp_path / "empty.sqlite")
    assert "measure with `edgesam-mobile bench`" in refusal(compared(tmp_path / "empty.sqlite"), 2)


@pytest.mark.parametrize(
    ("new", "old", "code", "change"),
    [
        ("slow", "good", 7, "slower"),
        ("good", "slow", 0, "faster"),
        ("good", "good", 0, "no difference shown"),
        ("both:tflite-fp16", "both:coreml-fp16", 7, "slower"),
    ],
)
def test_regress_ends_with_the_change(place: Path, new: str, old: str, code: int, change: str) -> None:
    told = call(place, "regress", new, "--against", old, "--json")
    assert told.exit_code == code, told.stderr
    (case,) = json.loads(told.stdout)["cases"]
    assert case["change"] == change


def test_what_regress_cannot_tell_ends_with_4_and_says_why(place: Path) -> None:
    told = call(place, "regress", "good", "--against", "pair")
    assert told.exit_code == 4
    assert "2 launches then, 3 needed" in told.stdout
    assert "cannot tell whether slower than pair: coreml-fp16, all — the output gives all reasons" in told.stderr


def test_a_tolerance_lets_a_little_pass(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    keep(path, run(launches_around(25)), "then", 0)
    keep(path, run(launches_around(26.5, seed=9)), "now", 1)
    strict = call(path, "regress", "--against", "then", "--tolerance", "3%", "--json")
    loose = call(path, "regress", "--against", "then", "--tolerance", "0.2", "--json")
    assert (strict.exit_code, loose.exit_code) == (7, 0)
    assert json.loads(loose.stdout)["tolerance"] == 0.2


def test_what_was_measured_then_and_not_now_is_said(place: Path) -> None:
    told = call(place, "regress", "good", "--against", "both")
    assert told.exit_code == 0
    assert "tflite-fp16, gpu, 4 threads on Apple iPhone14,7 (ios) was measured then, not now" in told.stdout


def test_report_writes_one_page_with_the_history_of_its_cases(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    told = call(place, "report", "slow", "host", "-o", output, "--json")
    assert told.exit_code == 0, told.stderr
    data: dict[str, Any] = json.loads(told.stdout)
    html = output.read_text(encoding="utf-8")
    assert data["cases"] == 2 and data["bytes"] == output.stat().st_size
    assert "over 5 runs" in html, "of the host's case there is one run, of the iPhone's five"
    assert html.rstrip().endswith("</html>")
    assert call(place, "report", "slow", "host", "-o", output).exit_code == 0
    assert output.read_text(encoding="utf-8") == html


def test_a_report_that_cannot_be_written_is_said(place: Path, tmp_path: Path) -> None:
    assert "error: " in refusal(call(place, "report", "good", "-o", tmp_path), 12)


def test_cases_are_named_in_the_table_of_several_artefacts(place: Path) -> None:
    told = compared(place, "both", "good")
    assert told.stdout.count(COREML.id) >= 2 and TFLITE.id in told.stdout
