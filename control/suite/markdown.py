"""The summary of a suite in Markdown: for the job summary of a CI system, and as `summary.md`.

GitHub drops a job summary of more than 1 MiB whole, so this one ends before that and says what it
left out. Values of a run are text: they stand in code blocks, whose fence is longer than any row of
backticks in them.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from labrys.checkers.verdict import Verdict
from labrys.control.suite.summary import (
    WORST_FIRST,
    Result,
    Summary,
    counts_text,
    grid,
)

BYTES_MAX: Final = 900_000
SKIPPED_TOLD_MAX: Final = 100

_MARKS: Final = {
    Verdict.VALID: "🟢",
    Verdict.INVALID: "🔴",
    Verdict.UNKNOWN: "🟡",
    Verdict.ERROR: "🟣",
}


def markdown(summary: Summary, bytes_max: int = BYTES_MAX) -> str:
    """Return the summary, of `bytes_max` bytes in UTF-8 at most."""
    out = "".join(f"{line}\n" for line in (*_head(summary), *_table(summary), *_skipped(summary)))
    size = len(out.encode())
    findings = summary.findings
    for number, result in enumerate(findings):
        block = "".join(f"{line}\n" for line in _block(result))
        left = f"\n{len(findings) - number} more findings: see `index.html` and `summary.json`.\n"
        size += len(block.encode())
        if size + len(left) > bytes_max:
            return out + left if len((out + left).encode()) <= bytes_max else _cut(out, bytes_max)
        out += block
    return out


def _head(summary: Summary) -> Iterator[str]:
    mark = _MARKS[summary.verdict]
    how = " (interrupted)" if summary.interrupted else "" if summary.finished else " (unfinished)"
    yield f"## {mark} {_plain(summary.suite)}: {summary.verdict.value.upper()}{how}"
    yield ""
    shard = "" if summary.shard == "1/1" else f", shard {summary.shard}"
    yield f"{counts_text(summary.counts)}; {summary.seconds:.0f} s, seed {summary.seed}{shard}."
    if summary.stopped:
        yield f"Not everything was started: {_plain(summary.stopped)}."
    for failure in summary.failures:
        yield f"The suite itself failed: {_plain(failure)}."
    yield from _fenced("sh", summary.rerun)


def _table(summary: Summary) -> Iterator[str]:
    if not summary.runs:
        return
    heat = grid(summary.runs)
    yield ""
    yield f"| faults | {' | '.join(map(_plain, heat.columns))} |"
    yield f"| --- |{' --- |' * len(heat.columns)}"
    for row in heat.rows:
        cells = (heat.cells.get((row, column), []) for column in heat.columns)
        yield f"| {_plain(row)} | {' | '.join(map(_heat, cells))} |"


def _heat(results: list[Result]) -> str:
    """`🟢 12`, or the worst first: `🔴 1 invalid, 11 valid`."""
    found = Counter(result.verdict for result in results)
    there = [verdict for verdict in WORST_FIRST if found[verdict]]
    if there in ([], [Verdict.VALID]):
        return f"{_MARKS[Verdict.VALID]} {len(results)}" if there else ""
    told = ", ".join(f"{found[verdict]} {verdict.value}" for verdict in there)
    return f"{_MARKS[there[0]]} **{told}**"


def _skipped(summary: Summary) -> Iterator[str]:
    if not summary.skipped:
        return
    told = [skipped.id for skipped in summary.skipped[:SKIPPED_TOLD_MAX]]
    more = len(summary.skipped) - len(told)
    yield ""
    yield (
        f"Not started, first the next time: {', '.join(f'`{name}`' for name in told)}"
        f"{f' and {more} more' if more else ''}."
    )


def _block(result: Result) -> Iterator[str]:
    yield ""
    yield f"### {_MARKS[result.verdict]} `{result.id}`: {result.verdict.value.upper()}"
    yield ""
    for note in result.notes:
        yield f"{_plain(note)}."
    yield from _fenced("sh", result.rerun)
    yield from _fenced("text", result.told or result.why)


def _fenced(language: str, text: str) -> Iterator[str]:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield ""
    yield f"{fence}{language}"
    yield text
    yield fence


def _plain(text: str) -> str:
    """Escape what is markup in Markdown or HTML, in a text of one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~@&-])", r"\\\1", " ".join(text.split()))


def _cut(text: str, bytes_max: int) -> str:
    return text.encode()[:bytes_max].decode(errors="ignore")
