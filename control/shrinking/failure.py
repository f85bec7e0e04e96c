"""What it is to fail in the same way, and where in a run that is seen."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from labrys.checkers.history import MAIN, PHASE, History
from labrys.checkers.verdict import Finding, Verdict
from labrys.control.store import RunDirectory

VIOLATION = "violation"
"""The anomaly of a promise that was broken before everybody's eyes; see `sim.promises`."""


class Failure(msgspec.Struct, frozen=True):
    """One way to fail: who saw it, and what."""

    checker: str
    kind: str
    """The anomaly, or the promise that was broken; empty where the checker knows one kind only."""

    def __str__(self) -> str:
        return f"{self.checker}: {self.kind}" if self.kind else self.checker


class Sighting(msgspec.Struct, frozen=True):
    """A failure in a run."""

    message: str
    """The headline of the finding."""
    key: str | None
    ended_s: float
    """When it was there, in seconds since the main phase began."""


def failure_of(results: Mapping[str, Any]) -> Failure | None:
    """Return how a run failed; None for one that is not invalid.

    Of several ways the first is taken, as they are told, but a broken promise before all: it ended
    the run, and whatever else there is to see is part of it.
    """
    found = _failures(results)
    promises = [pair for pair in found if pair[1].data.get("anomaly") == VIOLATION]
    return next((failure for failure, _ in promises + found), None)


def sighting_of(failure: Failure, run: RunDirectory, results: Mapping[str, Any]) -> Sighting | None:
    """Return the first that a run shows of this failure; None if it does not."""
    findings = [finding for each, finding in _failures(results) if each == failure]
    if not findings:
        return None
    history = run.read_history()
    main_s = main_began_s(history)
    zero = datetime.fromisoformat(results["started_at"])

    def ended_s(finding: Finding) -> float:
        if finding.ops:
            return _completed_s(history, finding) - main_s
        return _logged_s(run, finding, zero, otherwise=results["duration_s"]) - main_s

    first = min(findings, key=ended_s)
    return Sighting(first.message.splitlines()[0], first.key, ended_s(first))


def main_began_s(history: History) -> float:
    """When the main phase began, in seconds since the run did."""
    marks = (op.time for op in history.ops if op.f == PHASE and op.value == MAIN)
    return next(marks, 0) / 1e9


def _failures(results: Mapping[str, Any]) -> list[tuple[Failure, Finding]]:
    found = []
    for name, result in results["checkers"].items():
        if result["verdict"] != Verdict.INVALID.value:
            continue
        findings = msgspec.convert(result.get("findings", ()), tuple[Finding, ...])
        for finding in findings or (Finding(result["summary"]),):
            anomaly = str(finding.data.get("anomaly", ""))
            kind = str(finding.data["promise"]) if anomaly == VIOLATION else anomaly
            found.append((Failure(name, kind), finding))
    return found


def _completed_s(history: History, finding: Finding) -> float:
    named = {*finding.ops}
    ends = [
        (operation.completion or operation.invoke).time
        for operation in history.operations
        if operation.call in named
    ]
    return max(ends, default=history.ops[-1].time) / 1e9


def _logged_s(run: RunDirectory, finding: Finding, zero: datetime, otherwise: float) -> float:
    """When the line was written that a finding points to."""
    node, line = finding.data.get("node"), finding.data.get("line")
    lines = run.node_logs().get(str(node), [])
    if not isinstance(line, int) or not 0 < line <= len(lines):
        return otherwise
    try:
        moment = datetime.fromisoformat(lines[line - 1].partition(" ")[0])
    except ValueError:
        return otherwise
    return (moment - zero).total_seconds()
