"""The availability checker: how much the clients got done, and how soon after the last heal."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from labrys.checkers.checker import Evidence
from labrys.checkers.errors import was_answered
from labrys.checkers.fault import FaultStage
from labrys.checkers.history import FINAL, HEAL, MAIN, PHASE, History, Operation
from labrys.checkers.op import NEMESIS
from labrys.checkers.verdict import CheckResult, Verdict

_SECOND_NS: Final = 1_000_000_000


class Availability:
    """Figures, not demands: unknown only if nothing succeeded after the last heal, or none came.

    A cluster that never came back has not shown what it would have answered.
    """

    name = "availability"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Measure the operations of `history` against the heal that the ledger tells of."""
        main = [op for op in history.operations if history.phase_of(op.call) == MAIN]
        data: dict[str, Any] = {
            "ok_rate": _rate(main, lambda op: op.is_ok),
            "answered_rate": _rate(main, was_answered),
            "worst_second": _worst_second(main),
            "nodes": _by_node(main),
        }
        summary = "nothing was tried" if not main else f"{data['answered_rate']:.1%} answered"
        worst = data["worst_second"]
        if worst is not None:
            summary += f", worst second {worst['ok']} ok of {worst['ops']}"
        marks = _marks(history)
        unhealed = _why_not_healed(marks, evidence)
        if unhealed is not None:
            return CheckResult(
                Verdict.UNKNOWN,
                f"vacuous: {unhealed}; {summary}",
                hint="let the run come to its end: recovery is part of the test",
                data=data,
            )
        healed_ns = _healed_at(marks, evidence)
        if healed_ns is None:
            return CheckResult(Verdict.VALID, summary, data=data)
        recovered = [
            op.completion.time
            for op in history.operations
            if op.is_ok and op.completion is not None and op.invoke.time >= healed_ns
        ]
        data["healed_at_s"] = healed_ns / _SECOND_NS
        if not recovered:
            return CheckResult(
                Verdict.UNKNOWN,
                f"vacuous: no operation succeeded after the last heal; {summary}",
                hint="see the nodes' logs after the heal; or give the cluster longer to recover",
                data=data,
            )
        data["recovery_s"] = (min(recovered) - healed_ns) / _SECOND_NS
        return CheckResult(
            Verdict.VALID, f"{summary}, recovered {data['recovery_s']:.2f} s after heal", data=data
        )


def _marks(history: History) -> dict[str, int]:
    """Return when each phase first began (ns)."""
    return {
        str(op.value): op.time
        for op in reversed(history.ops)
        if op.process == NEMESIS and op.f == PHASE and op.time >= 0
    }


def _why_not_healed(marks: Mapping[str, int], evidence: Evidence) -> str | None:
    """Say why the faults of this run were not healed by it; None if they were, or none planned."""
    if not evidence.planned_faults:
        return None
    if HEAL not in marks:
        return "the run ended before its faults were healed"
    undone = {event.id for event in evidence.faults if event.stage is FaultStage.UNDONE}
    rest = {event.id for event in evidence.faults} - undone
    return f"faults never undone: {len(rest)}" if rest else None


def _healed_at(marks: Mapping[str, int], evidence: Evidence) -> int | None:
    """Return when the last fault was undone (ns), before the final phase; None: never told."""
    final_ns = marks.get(FINAL)
    undone = [
        event.time
        for event in evidence.faults
        if event.stage is FaultStage.UNDONE and (final_ns is None or event.time <= final_ns)
    ]
    return max(undone) if undone else marks.get(HEAL)


def _rate(operations: list[Operation], is_good: Callable[[Operation], bool]) -> float | None:
    return sum(map(is_good, operations)) / len(operations) if operations else None


def _worst_second(operations: list[Operation]) -> dict[str, Any] | None:
    """Return the second of invocation with the fewest successes; the last one is cut short."""
    timed = [op for op in operations if op.invoke.time >= 0]
    if not timed:
        return None
    tried = Counter(op.invoke.time // _SECOND_NS for op in timed)
    succeeded = Counter(op.invoke.time // _SECOND_NS for op in timed if op.is_ok)
    whole = range(min(tried), max(tried)) if len(tried) > 1 else tried
    worst = min(whole, key=lambda second: succeeded[second])
    return {"second": worst, "ok": succeeded[worst], "ops": tried[worst]}


def _by_node(operations: list[Operation]) -> dict[str, Any]:
    nodes: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.invoke.node is not None:
            nodes.setdefault(operation.invoke.node, []).append(operation)
    return {
        node: {
            "ops": len(ops),
            "ok": sum(op.is_ok for op in ops),
            "answered_rate": _rate(ops, was_answered),
        }
        for node, ops in sorted(nodes.items())
    }
