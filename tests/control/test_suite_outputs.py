"""What CI reads of a suite: JSON, JUnit XML, Markdown, annotations and the page."""

import html.parser
import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from tests.control.suite_summaries import HOSTILE, MIXED, NASTY, many, result, summary

from labrys.checkers.verdict import CheckResult, Finding, Verdict
from labrys.control.errors import MachineError
from labrys.control.junit import junit_xml
from labrys.control.store import JUNIT
from labrys.control.suite.annotations import annotations
from labrys.control.suite.index_page import index_page
from labrys.control.suite.junit import suite_junit_xml
from labrys.control.suite.markdown import BYTES_MAX, markdown
from labrys.control.suite.summary import Summary, counts_text
from labrys.control.suite.writing import INDEX, MARKDOWN, SUMMARY, keep_room, write_all

SCHEMA = xmlschema.XMLSchema10(Path(__file__).with_name("junit.xsd"))


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        (("valid", "valid"), "valid", 0),
        (("valid", "unknown"), "unknown", 3),
        (("unknown", "error", "valid"), "error", 4),
        (("error", "unknown", "invalid", "valid"), "invalid", 1),
        ((), "unknown", 3),
    ],
)
def test_worst_run_decides(verdicts: tuple[str, ...], verdict: str, code: int) -> None:
    for order in itertools.permutations(verdicts):
        made = summary(*(result(f"c{n}", Verdict(word)) for n, word in enumerate(order)))
        assert (made.verdict.value, made.exit_code) == (verdict, code)


def test_interruption_has_its_code_and_a_failure_of_the_suite_is_an_error() -> None:
    wrong = result("wrong", Verdict.INVALID)
    assert summary(result("a"), interrupted=True).exit_code == 130
    assert summary(result("a"), failures=["disk full"], interrupted=True).exit_code == 4
    assert summary(wrong, failures=["disk full"], interrupted=True).exit_code == 1


def test_summary_is_json_with_everything_in_it(tmp_path: Path) -> None:
    assert write_all(MIXED, tmp_path, pytest.fail) == []
    found = json.loads((tmp_path / SUMMARY).read_text())
    assert (found["version"], found["verdict"], found["exit"]) == (1, "invalid", 1)
    assert found["counts"] == {"invalid": 1, "error": 1, "unknown": 1, "valid": 2, "skipped": 2}
    assert counts_text(found["counts"]) == "1 invalid, 1 error, 1 unknown, 2 valid, 2 skipped"
    assert [run["cell"] for run in found["runs"]] == [
        "good", "vacuous", "broken", "wrong", "retried",
    ]  # fmt: skip
    assert found["runs"][3]["confirmed"] == {"runs": 3, "invalid": 2, "paths": []}
    assert found["skipped"] == [{"cell": "late", "number": 1}, {"cell": "good", "number": 2}]
    assert {path.name for path in tmp_path.iterdir()} == {SUMMARY, JUNIT, MARKDOWN, INDEX}


def test_room_that_was_kept_is_given_back(tmp_path: Path) -> None:
    keep_room(tmp_path)
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_size > 1_000_000
    write_all(MIXED, tmp_path, pytest.fail)
    assert not kept.exists()


def test_what_cannot_be_written_is_returned_and_what_cannot_be_drawn_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == JUNIT:
            raise MachineError("no room")

    def broken(made: Summary) -> str:
        raise ValueError("no pen")

    monkeypatch.setattr("labrys.control.suite.writing.write_atomically", full)
    monkeypatch.setattr("labrys.control.suite.writing.index_page", broken)
    said: list[str] = []
    assert write_all(MIXED, tmp_path, said.append) == ["no room"]
    assert said == ["index.html could not be made: ValueError: no pen"]


# JUnit


def test_junit_tells_a_failure_an_error_an_unknown_and_what_was_not_started() -> None:
    suite = ET.fromstring(suite_junit_xml(MIXED))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7", "failures": "1", "errors": "2", "skipped": "2",
    }  # fmt: skip
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == ["good", "vacuous", "broken", "wrong#2", "retried", "late", "good#2"]
    assert [child.tag for child in cases["good"]] == ["system-out"]
    failure = cases["wrong#2"].find("failure")
    assert failure is not None
    assert failure.get("message") == "linearizable: 1 of 40 keys"
    output = cases["wrong#2"].findtext("system-out")
    assert output is not None
    assert "labrys test --name wrong --env sim --seed 8817" in output
    assert "confirmed 2 of 3 times" in output
    kinds = [error.get("type") for error in suite.iter("error")]
    assert kinds == ["unknown", "error"]
    skipped = cases["late"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "the time budget is spent"


@pytest.mark.parametrize("made", [MIXED, NASTY, summary(), many(50, Verdict.ERROR)])
def test_junit_of_a_suite_is_what_readers_take(made: Summary) -> None:
    SCHEMA.validate(suite_junit_xml(made).decode())


def test_junit_of_a_run_is_what_readers_take() -> None:
    results: dict[str, Any] = {
        "name": "register-kill", "seed": 1, "rerun": HOSTILE, "environment": "netns",
        "workload": "register", "bug": None, "errors": [HOSTILE], "duration_s": 1061.5,
        "started_at": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    checkers = {
        "linearizable": CheckResult(Verdict.INVALID, HOSTILE, findings=(Finding(HOSTILE),)),
        "stats": CheckResult(Verdict.UNKNOWN, "vacuous", hint="longer"),
        "perf": CheckResult(Verdict.VALID, "fine"),
    }
    SCHEMA.validate(junit_xml(results, checkers).decode())


def test_schema_refuses_what_readers_refuse() -> None:
    good = suite_junit_xml(MIXED).decode()
    for wrong in (
        good.replace("<failure ", "<failing ").replace("</failure>", "</failing>"),
        good.replace(' failures="1"', ""),
        good.replace(' time="1234.500"', ' time="soon"'),
        good.replace("<testcase ", "<testcase><properties/></testcase><testcase ", 1),
    ):
        assert wrong != good
        assert not SCHEMA.is_valid(wrong)


# Markdown


def test_markdown_has_the_heat_table_and_a_block_for_each_finding() -> None:
    text = markdown(MIXED)
    assert text.startswith("## 🔴 nightly: INVALID\n")
    assert "1 invalid, 1 error, 1 unknown, 2 valid, 2 skipped; 1234 s, seed 7." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        "| faults | register, netns | register, sim |",
        "| --- | --- | --- |",
        "| kill | 🔴 **1 invalid, 1 valid** | 🟣 **1 error, 1 valid** |",
        "| partition |  | 🟡 **1 unknown** |",
    ]
    blocks = [line for line in text.splitlines() if line.startswith("### ")]
    assert blocks == [
        "### 🔴 `wrong#2`: INVALID",
        "### 🟣 `broken`: ERROR",
        "### 🟡 `vacuous`: UNKNOWN",
    ]
    for result_ in MIXED.findings:
        assert f"```sh\n{result_.rerun}\n```" in text
    assert "confirmed 2 of 3 times with the same seed." in text
    assert "Not started, first the next time: `late`, `good#2`." in text


def test_markdown_ends_before_the_limit_and_says_what_it_left_out() -> None:
    text = markdown(many(2_000, Verdict.INVALID, told="x" * 7_900))
    assert 0.9 * BYTES_MAX < len(text.encode()) <= BYTES_MAX
    shown = text.count("\n### ")
    assert text.endswith(f"\n{2_000 - shown} more findings: see `index.html` and `summary.json`.\n")


@pytest.mark.parametrize("bytes_max", [0, 10, 200, 5_000])
def test_markdown_keeps_any_limit(bytes_max: int) -> None:
    assert len(markdown(many(40, Verdict.ERROR, told="ä" * 500), bytes_max).encode()) <= bytes_max


def test_values_of_a_run_are_no_markup_in_markdown() -> None:
    text = markdown(NASTY)
    # The fence is longer than any row of backticks inside it.
    fenced = re.compile(r"^(`{3,})\w*\n.*?\n\1$", re.DOTALL | re.MULTILINE)
    outside = fenced.sub("", text)
    assert len(fenced.findall(text)) == 3
    assert "<img" in text
    assert not re.search(r"(?<!\\)[<`]", outside.replace("`wrong`", "").replace("`late`", ""))
    table = [line for line in outside.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table)


# Annotations


def test_annotations_are_errors_and_warnings_with_the_command() -> None:
    lines = list(annotations(MIXED))
    assert [line.split("::")[1] for line in lines] == [
        "error title=INVALID wrong#2",
        "error title=ERROR broken",
        "warning title=UNKNOWN vacuous",
    ]
    assert lines[0].endswith("%0Are-run: labrys test --name wrong --env sim --seed 8817")


@pytest.mark.parametrize(("count", "lines", "last"), [(10, 10, "INVALID"), (11, 10, "2 more")])
def test_annotations_stay_within_what_is_shown(count: int, lines: int, last: str) -> None:
    for verdict, kind in ((Verdict.INVALID, "error"), (Verdict.UNKNOWN, "warning")):
        told = list(annotations(many(count, verdict)))
        assert len(told) == lines
        assert all(line.startswith(f"::{kind} title=") for line in told)
        assert last in told[-1] or verdict is Verdict.UNKNOWN


def test_annotation_is_one_line_whatever_the_values_are() -> None:
    (line,) = annotations(NASTY)
    assert len(line.splitlines()) == 1
    assert "%250A" in line
    assert line.startswith("::error title=INVALID wrong::")


# The page


class Page(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str | None]:
        return [attrs.get(attribute) for name, attrs in self.tags if name == tag]


def test_page_links_to_the_reports_and_has_the_worst_first() -> None:
    page = Page(index_page(MIXED))
    links = [link for link in page.all("a", "href") if link and link.endswith("report.html")]
    # Twice each finding that was kept: where it is told, and in the list.
    assert links.count("../../../wrong/20260101T000000Z-8817/report.html") == 2
    assert links.count("../../../good/20260101T000000Z-8817/report.html") == 1
    assert not [link for link in links if "broken" in link]
    rows = [row for row in page.all("tr", "id") if row]
    assert rows == ["wrong#2", "broken", "vacuous", "good", "retried"]
    for told in ("confirmed 2 of 3 times", "tried again after errors of the rig: no port", "late"):
        assert told in page.text


def test_every_tile_of_the_page_leads_to_a_row() -> None:
    page = Page(index_page(MIXED))
    rows = {row for row in page.all("tr", "id") if row}
    tiles = [link for link in page.all("a", "href") if link and link.startswith("#")]
    assert {tile.removeprefix("#").replace("%23", "#") for tile in tiles} == rows


def test_page_needs_nothing_from_outside_and_takes_no_markup_from_a_run() -> None:
    page = Page(index_page(NASTY))
    tags = [tag for tag, _ in page.tags]
    assert "img" not in tags
    assert tags.count("script") == 1
    assert not page.all("script", "src")[0]
    assert "link" not in tags
    assert "49" not in page.text
    assert "</script><img src=x onerror=alert(1)>" in page.text
    (policy,) = [content for content in page.all("meta", "content") if content and "src" in content]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


@pytest.mark.parametrize(
    "made", [summary(), summary(result("a"), finished=False), many(3, Verdict.ERROR, path=None)]
)
def test_page_of_every_kind_of_suite_can_be_drawn(made: Summary) -> None:
    assert index_page(made).rstrip().endswith("</html>")
