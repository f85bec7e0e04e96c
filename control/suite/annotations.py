"""Findings as annotations of a GitHub job: lines on standard output that the runner picks up.

It shows ten errors and ten warnings of a step and drops the others in silence, so the tenth of ours
says how many more there are.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from labrys.checkers.verdict import Verdict
from labrys.control.suite.summary import Result, Summary

SHOWN_MAX: Final = 10
"""Annotations of one kind that GitHub shows for a step."""
MESSAGE_CHARS_MAX: Final = 2_000


def annotations(summary: Summary) -> Iterator[str]:
    """Yield an error for each run that is invalid or failed, and a warning for each unknown one."""
    findings = summary.findings
    unknown = [result for result in findings if result.verdict is Verdict.UNKNOWN]
    yield from _of_one_kind("error", findings[: len(findings) - len(unknown)])
    yield from _of_one_kind("warning", unknown)


def _of_one_kind(kind: str, results: Sequence[Result]) -> Iterator[str]:
    shown = len(results) if len(results) <= SHOWN_MAX else SHOWN_MAX - 1
    for result in results[:shown]:
        title = f"{result.verdict.value.upper()} {result.id}"
        said = [result.why, *result.notes, f"re-run: {result.rerun}"]
        yield _command(kind, title, "\n".join(said))
    if more := len(results) - shown:
        yield _command(kind, f"{more} more", "The job summary and index.html have them all.")


def _command(kind: str, title: str, message: str) -> str:
    text = _escaped(message[:MESSAGE_CHARS_MAX])
    name = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{text}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
