"""JUnit's XML and Markdown of verdicts, with the worst names that a device can have."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesam_mobile.lab.outcomes import Result, State, junit, markdown, plain

RESULTS = [
    Result("A phone", "first", "passed", "pass", "30 ms", 0.03),
    Result("A phone", "second", "failed", "missed", "40 ms"),
    Result("A host", "third", "inconclusive", "not compared", "a host says nothing"),
]


def test_missed_is_a_failure_and_inconclusive_an_error() -> None:
    root = ElementTree.fromstring(junit("Target", RESULTS))
    suite = root[0]
    assert suite.attrib == {"name": "Target", "tests": "3", "failures": "1", "errors": "1"}
    assert [(case.get("classname"), case.get("name"), case[0].tag) for case in suite] == [
        ("A phone", "first", "system-out"),
        ("A phone", "second", "failure"),
        ("A host", "third", "error"),
    ]
    assert suite[0].get("time") == "0.030000" and suite[1].get("time") is None
    assert suite[1][0].get("message") == "missed" and suite[1][0].text == "40 ms"


def test_a_markdown_table_has_a_row_a_result_and_then_the_notes() -> None:
    lines = markdown("Target", RESULTS, ["of others"]).splitlines()
    assert lines[0] == "## Target"
    assert lines[4] == "| A phone | first | pass | 30 ms |"
    assert [line.count("|") for line in lines[2:7]] == [5] * 5
    assert lines[-1] == "- of others"
    assert markdown("Target", RESULTS).endswith("says nothing |\n")


texts = st.text(st.characters(), max_size=30)


@given(texts, texts, texts, st.sampled_from(["passed", "failed", "inconclusive"]))
def test_any_name_gives_xml_that_reads_back_and_a_table_that_stays_one(
    group: str, name: str, text: str, state: State
) -> None:
    results = [Result(group, name, state, "word", text)]
    written = junit(name, results)
    assert written.encode("utf-8")
    case = ElementTree.fromstring(written)[0][0]
    # XML's own rule for line ends does not apply: they are gone before.
    assert (case.get("classname"), case.get("name"), case[0].text or "") == (plain(group), plain(name), plain(text))
    table = markdown(group, results)
    assert table.encode("utf-8") and len(table.splitlines()) == 5
    row = table.splitlines()[4]
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 5


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[link](x) ![i](y)", r"\[link\](x) \!\[i\](y)"),
        ("`code` *b* _i_ # h", r"\`code\` \*b\* \_i\_ \# h"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("back\\|slash", r"back\\\|slash"),
    ],
)
def test_markup_in_names_is_no_markup(name: str, shown: str) -> None:
    assert f"| {shown} |" in markdown("t", [Result("g", name, "passed", "pass", "")])


def test_what_turns_the_direction_of_writing_is_dropped() -> None:
    assert plain("a\u202eb\u2066c\x00\ud800d") == "a b c d"
    assert plain("Ünï ✓ 日本") == "Ünï ✓ 日本"
