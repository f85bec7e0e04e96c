"""The coverage checker: a fault that did not bite is no evidence of anything."""

from typing import Any

from labrys.checkers.checker import Evidence
from labrys.checkers.fault import FaultStage
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Finding, Verdict


class FaultCoverage:
    """Every kind of fault that was asked for must have been seen to take effect, else unknown."""

    name = "coverage"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Compare the planned kinds with the ledger in `evidence`."""
        kinds: dict[str, dict[str, Any]] = {
            kind: {"applied": 0, "bit": 0, "failed": 0} for kind in evidence.planned_faults
        }
        # Evidence may be read more than once for one fault: count faults, not readings.
        stages = {(event.kind, event.id, event.stage, event.bit) for event in evidence.faults}
        for kind, _, stage, bit in stages:
            counts = kinds.setdefault(kind, {"applied": 0, "bit": 0, "failed": 0})
            counts["applied"] += stage is FaultStage.APPLIED
            counts["bit"] += stage is FaultStage.EVIDENCE and bit is True
            counts["failed"] += stage is FaultStage.FAILED
        missing = tuple(
            Finding(f"{kind}: {_why_not_seen(kinds[kind])}", data={"kind": kind, **kinds[kind]})
            for kind in evidence.planned_faults
            if kinds[kind]["bit"] == 0
        )
        data = {"kinds": kinds}
        if missing:
            names = ", ".join(str(finding.data["kind"]) for finding in missing)
            return CheckResult(
                Verdict.UNKNOWN,
                f"vacuous: never seen to bite: {names}",
                hint="a longer time limit or a shorter fault interval; faults.jsonl has the story",
                findings=missing,
                data=data,
            )
        if not evidence.planned_faults:
            return CheckResult(Verdict.VALID, "no faults were planned", data=data)
        told = ", ".join(f"{kind} {_times(kinds[kind]['bit'])}" for kind in evidence.planned_faults)
        return CheckResult(Verdict.VALID, f"seen to bite: {told}", data=data)


def _why_not_seen(counts: dict[str, Any]) -> str:
    if counts["applied"]:
        return f"applied {_times(counts['applied'])}, but no node was seen to feel it"
    if counts["failed"]:
        return f"could not be applied ({counts['failed']} attempts)"
    return "planned, but never applied"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
