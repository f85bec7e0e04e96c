"""The suites in a runs directory, as the run list links to them."""

from pathlib import Path
from typing import Final

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.suite.running import SUITES
from labrys.control.suite.summary import counts_text
from labrys.control.suite.writing import INDEX, SUMMARY

SHOWN_MAX: Final = 20


class SuiteLine(msgspec.Struct, frozen=True):
    """One suite that was run."""

    name: str
    page: str
    """Of its runs, below the runs directory."""
    state: str
    told: str


class _Summary(msgspec.Struct):
    verdict: Verdict
    counts: dict[str, int] = {}
    finished: bool = True


_summary = msgspec.json.Decoder(_Summary)


def suite_lines(root: Path) -> list[SuiteLine]:
    """Return the newest suites that have a page, the newest first; a damaged one says so."""
    pages = [
        page
        for page in (root / SUITES).glob(f"*/*/{INDEX}")
        if page.is_file() and not page.parent.is_symlink()
    ]
    pages.sort(key=lambda page: (page.parent.name, page), reverse=True)
    return [_line(page, root) for page in pages[:SHOWN_MAX]]


def _line(page: Path, root: Path) -> SuiteLine:
    try:
        found = _summary.decode((page.parent / SUMMARY).read_bytes())
        state = found.verdict.value if found.finished else "unfinished"
        told = counts_text(found.counts)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        state, told = "damaged", f"{SUMMARY}: {error}"
    return SuiteLine(
        name=page.parent.relative_to(root / SUITES).as_posix(),
        page=page.relative_to(root).as_posix(),
        state=state,
        told=told,
    )
