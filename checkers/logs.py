"""The logs checker: a node that panics, throws or fails an assertion has found a bug by itself."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Finding, Verdict

_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\)")
_PATTERNS: Final = (
    _TRACEBACK,
    re.compile(r"\bpanic: |\bpanicked at "),
    re.compile(r"\bAssertionError\b|\bassert(ion)? (failed|violated)\b", re.IGNORECASE),
    re.compile(r"^fatal error: |^Fatal Python error: |\bSegmentation fault\b|\bSIGSEGV\b"),
)
_LINE_CHARS_MAX: Final = 300
_TOLD_PER_NODE_MAX: Final = 10


class LogPatterns:
    """Looks for panics, tracebacks and failed assertions in the nodes' logs; any is invalid."""

    name = "logs"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Search the logs of `evidence`."""
        counts: dict[str, int] = {}
        findings: list[Finding] = []
        for node, lines in evidence.logs.items():
            found = list(_suspicious(lines))
            counts[node] = len(found)
            for number, text in found[:_TOLD_PER_NODE_MAX]:
                shown = text[:_LINE_CHARS_MAX]
                findings.append(
                    Finding(
                        f"{node} log line {number}: {shown}",
                        data={"node": node, "line": number, "text": shown},
                    )
                )
        total = sum(counts.values())
        bad = [node for node, count in counts.items() if count]
        return CheckResult(
            Verdict.INVALID if total else Verdict.VALID,
            f"{total} panics, tracebacks or failed assertions in the logs of {', '.join(bad)}"
            if total
            else f"nothing suspicious in {len(counts)} logs",
            findings=tuple(findings),
            data={"nodes": counts},
        )


def _suspicious(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text); a traceback is one, with the error it ends in."""
    after_traceback = 0
    for place, line in enumerate(lines):
        if place < after_traceback or not any(pattern.search(line) for pattern in _PATTERNS):
            continue
        if _TRACEBACK.search(line):
            indent = len(line) - len(line.lstrip())
            end = next(
                (
                    i
                    for i in range(place + 1, len(lines))
                    if len(lines[i]) - len(lines[i].lstrip()) <= indent and lines[i].strip()
                ),
                len(lines),
            )
            after_traceback = end + 1
            error = lines[end].strip() if end < len(lines) else "(the log ends here)"
            yield place + 1, f"{line.strip()} ... {error}"
        else:
            yield place + 1, line.strip()
