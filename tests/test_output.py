"""Data goes to standard output, everything else to standard error, each in the form its reader needs."""

from __future__ import annotations

import json

import pytest

from edgesam_mobile.cli.output import Output


def output(mode: str = "human") -> Output:
    made = Output()
    made.configure(as_json=mode == "json", quiet=mode == "quiet")
    return made


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer's terminal asks for must not change what a pipe gets."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_a_table_off_a_terminal_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("mobile-sam", 41, "–", "yes"), ("edge-sam", "1024.5", "3 ms", "")]
    output().table(("name", "MB", "time", "cached"), rows, title="Weights")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.rstrip() for line in printed.out.splitlines()] == [
        "Weights",
        "",
        " name             MB   time   cached",
        " ───────────────────────────────────",
        " mobile-sam       41      –   yes",
        " edge-sam     1024.5   3 ms",
        "",
    ]


def test_a_table_without_rows_still_names_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output().table(("name", "MB"), [])
    assert capsys.readouterr().out.split()[:2] == ["name", "MB"]


def test_a_long_cell_off_a_terminal_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output().table(("path",), [("x" * 150,)])
    assert "x" * 150 in capsys.readouterr().out


BRACKETS = 'pip install "edgesam-mobile[coreml]" [bold]x[/bold]'


def test_square_brackets_are_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output().say(BRACKETS)
    output().note(BRACKETS)
    output().warn(BRACKETS)
    printed = capsys.readouterr()
    assert printed.out == f"{BRACKETS}\n"
    assert printed.err == f"{BRACKETS}\nwarning: {BRACKETS}\n"


def test_square_brackets_in_a_table_are_text_too(capsys: pytest.CaptureFixture[str]) -> None:
    output().table(("line",), [(BRACKETS,)])
    assert BRACKETS in capsys.readouterr().out


def test_a_long_line_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    output().say("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_a_result_is_printed_once_in_the_mode_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for mode, expected in (("human", "for people\n"), ("quiet", "a\n1\n")):
        made = output(mode)
        made.result("edgesam.x/1", {"n": 1}, human=lambda made=made: made.say("for people"), quiet=["a", 1])
        assert capsys.readouterr().out == expected
    output("json").result("edgesam.x/1", {"n": 1}, human=lambda: None, quiet=["a"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"schema": "edgesam.x/1", "n": 1}
    assert printed.err == ""


def test_json_wins_over_quiet() -> None:
    made = Output()
    made.configure(as_json=True, quiet=True)
    assert made.mode == "json"


@pytest.mark.parametrize(("mode", "noted"), [("human", "going on\n"), ("json", ""), ("quiet", "")])
def test_notes_are_for_people_and_warnings_for_all(mode: str, noted: str, capsys: pytest.CaptureFixture[str]) -> None:
    output(mode).note("going on")
    output(mode).warn("look out")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", noted + "warning: look out\n")


def test_progress_off_a_terminal_is_one_plain_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with output().progress("building", 2) as advance:
        advance("encoder")
        advance("decoder")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "[1/2] encoder  (about 0 s left)\n[2/2] decoder\n"


def test_a_download_off_a_terminal_is_a_plain_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with output().download("a.pt") as progress:
        for done in range(0, 50_000_001, 1_000_000):
            progress(done, 50_000_000)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0] == "a.pt: 5.0 of 50.0 MB"
    assert len(printed.err.splitlines()) == 10


def test_a_download_of_unknown_size_says_nothing_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output().download("a.pt") as progress:
        progress(1000, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("mode", ["json", "quiet"])
def test_programs_see_no_progress(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    with output(mode).progress("building", 1) as advance, output(mode).download("a.pt") as progress:
        advance("encoder")
        progress(1, 1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
