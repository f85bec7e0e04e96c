"""The stats checker: did enough happen, where it counts, for a verdict to mean anything?"""

from typing import Any, Final

from labrys.checkers.checker import Evidence
from labrys.checkers.errors import was_answered
from labrys.checkers.history import MAIN, History, Operation
from labrys.checkers.verdict import CheckResult, Finding, Verdict

OK_MIN: Final = 10
"""With fewer successful operations in the main phase a run has shown nothing."""


class Stats:
    """Counts per phase and function. Without successes in the main phase: unknown.

    Only the main phase counts, where the faults are: what works before or after them is no
    evidence. The nemesis is no client and is left out.
    """

    name = "stats"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Count the clients' operations in `history`."""
        phases: dict[str, dict[str, dict[str, int]]] = {}
        answered: dict[str, int] = {}
        for operation in history.operations:
            phase = history.phase_of(operation.call)
            counts = phases.setdefault(phase, {}).setdefault(
                operation.f, {"ok": 0, "fail": 0, "info": 0}
            )
            counts[_outcome(operation)] += 1
            if phase == MAIN:
                answered.setdefault(operation.f, 0)
                answered[operation.f] += was_answered(operation)
        main = phases.get(MAIN, {})
        total = {
            outcome: sum(counts[outcome] for counts in main.values())
            for outcome in ("ok", "fail", "info")
        }
        data: dict[str, Any] = {"phases": phases, "main": total}
        summary = f"{total['ok']} ok, {total['fail']} fail, {total['info']} info in the main phase"
        missing = [
            f"no {f} succeeded ({sum(main[f].values())} tried)"
            for f, count in answered.items()
            if count == 0
        ]
        if total["ok"] < OK_MIN:
            missing.append(f"only {total['ok']} operations succeeded, fewer than {OK_MIN}")
        if not missing:
            return CheckResult(Verdict.VALID, summary, data=data)
        return CheckResult(
            Verdict.UNKNOWN,
            f"vacuous: {'; '.join(missing)} in the main phase",
            hint="run longer, raise the rate, or leave the cluster some rest between faults",
            findings=tuple(Finding(what) for what in missing),
            data=data,
        )


def _outcome(operation: Operation) -> str:
    return "ok" if operation.is_ok else "fail" if operation.is_fail else "info"
