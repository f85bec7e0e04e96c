"""The checker for transactions: which anomalies there are, and which levels survive them."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.checker import Evidence
from labrys.checkers.decide import decide
from labrys.checkers.history import FOREVER, History, HistoryError, Operation
from labrys.checkers.models.transactional import Txn
from labrys.checkers.search import Stuck, Survived
from labrys.checkers.subject import subjects
from labrys.checkers.transactions import list_append, rw_register
from labrys.checkers.transactions.cycles import Cycle, find_cycles
from labrys.checkers.transactions.dependencies import Direct, Edge, Graph, sort
from labrys.checkers.transactions.levels import LEVELS, STRONGEST, ruled_out, survivors
from labrys.checkers.transactions.tell import Reason, tell
from labrys.checkers.transactions.txn import READS
from labrys.checkers.verdict import CheckResult, Finding, Verdict, vacuous

_TOLD_PER_KIND: Final = 3
_SPECIAL: Final = ("fractured-read", "causal-violation")
"""Kinds of cycles that are special cases of others."""
_SEARCHED_MAX: Final = 300
"""Up to so many transactions, what dependencies do not show is looked for by a search."""
_SEARCH_MOVES: Final = 10_000


class _Data(NamedTuple):
    infer: Callable[[Iterable[Operation]], Graph]
    reason: Reason
    is_complete: bool
    """Whether the dependencies say all there is to know about strict serializability."""


_DATA: Final = {
    "list-append": _Data(list_append.dependencies, list_append.reason, True),
    "rw-register": _Data(rw_register.dependencies, rw_register.reason, False),
}


class Transactions:
    """Are the transactions of a history as isolated as a level demands?

    In the manner of Elle (Kingsbury and Alvaro, VLDB 2020): dependencies between transactions are
    inferred from what they read, and anomalies are cycles in them.
    """

    name = "transactions"

    def __init__(self, data: str, level: str = STRONGEST) -> None:
        """Judge `list-append` or `rw-register` transactions by one of `LEVELS`.

        Raises `ValueError` for unknown ones.
        """
        if data not in _DATA:
            raise ValueError(f"no transactions {data!r}: choose from {', '.join(_DATA)}")
        if level not in LEVELS:
            raise ValueError(f"no level {level!r}: choose from {', '.join(LEVELS)}")
        self._data = data
        self.level = level
        self._inferred: tuple[History, Graph] | None = None

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` naming the first operation that is no such transaction."""
        self._inferred = (history, _DATA[self._data].infer(_transactions(history)))

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Judge the transactions of `history`."""
        data = _DATA[self._data]
        try:
            if self._inferred is None or self._inferred[0] is not history:
                self.assert_fits(history)
            assert self._inferred is not None, "just inferred"
            graph = self._inferred[1]
            self._inferred = None
        except HistoryError as error:
            return CheckResult(
                Verdict.ERROR,
                f"the history does not fit {self._data}: {error}",
                hint="choose another model",
            )
        if not _is_observed(graph):
            return vacuous("no transaction that succeeded read anything")
        budget = Budget(evidence.limits, evidence.limits.moves)
        cycles: list[Cycle] = []
        spent: BudgetSpent | None = None
        ordered = sort(graph)
        try:
            cycles.extend(
                find_cycles(graph, budget, cyclic=bool(ordered.cyclic), late=ordered.late)
            )
        except BudgetSpent as end:
            spent = end
        findings = [*_direct(graph.direct), *_cycles(graph, cycles, data.reason)]
        anomalies = {direct.name for direct in graph.direct} | {cycle.name for cycle in cycles}
        if not anomalies and spent is None and not data.is_complete:
            missed = self._search(graph, budget)
            if missed is not None:
                anomalies.add("not-strict-serializable")
                findings.append(missed)
        return self._conclude(graph, anomalies, findings, spent)

    def _conclude(
        self,
        graph: Graph,
        anomalies: set[str],
        findings: list[Finding],
        spent: BudgetSpent | None,
    ) -> CheckResult:
        forbidden = anomalies & LEVELS[self.level]
        # What the level forbids comes first: it is the reason for the verdict.
        findings.sort(key=lambda finding: finding.data["anomaly"] not in forbidden)
        best = survivors(anomalies)
        counts = Counter(finding.data["anomaly"] for finding in findings)
        survived = " and ".join(best) if best else "no level"
        committed = sum(ret != FOREVER for ret in graph.txns.ret)
        figures: dict[str, Any] = {
            "level": self.level,
            "txns": committed,
            "anomalies": dict(sorted(counts.items())),
            "forbidden": sorted(forbidden),
            "survives": best,
            "rules_out": ruled_out(anomalies),
        }
        if graph.notes:
            figures["notes"] = graph.notes
        notes = "".join(f"; {note}" for note in graph.notes)
        if forbidden:
            verdict = Verdict.INVALID
            summary = (
                f"not {self.level}: {', '.join(sorted(forbidden))}; "
                f"{survived} survives; {committed} transactions"
            )
        elif spent is not None:
            return CheckResult(
                Verdict.UNKNOWN,
                f"undecided: reached {spent.limit} looking for cycles{notes}",
                hint=spent.hint,
                findings=tuple(findings),
                data=figures,
            )
        else:
            verdict = Verdict.VALID
            other = f", though {', '.join(sorted(anomalies))}" if anomalies else ""
            summary = f"{self.level}{other}; {committed} transactions{notes}"
        return CheckResult(verdict, summary, findings=tuple(findings), data=figures)

    def _search(self, graph: Graph, budget: Budget) -> Finding | None:
        """Look for an order of all transactions, where dependencies are known only in part."""
        if len(graph.txns.operations) > _SEARCHED_MAX:
            return None
        (subject,) = subjects(Txn(), {None: graph.txns.operations})
        part = budget.part(_SEARCH_MOVES)
        outcome = decide(subject.search(part), part)
        if isinstance(outcome, Survived):
            graph.notes.clear()  # then nothing is left open
        if not isinstance(outcome, Stuck):
            return None
        return Finding(
            "not-strict-serializable: no order of the transactions agrees with what they read "
            f"and with real time\n  {subject.told(outcome.step)} fits nowhere",
            ops=(subject.steps.call[outcome.step],),
            data={
                "anomaly": "not-strict-serializable",
                "core": [subject.steps.call[outcome.step]],
                "window": [0, outcome.event],
            },
        )


def _transactions(history: History) -> list[Operation]:
    for operation in history.operations:
        if operation.invoke.f != "txn":
            raise HistoryError(f"op {operation.call}: {operation.f!r} is not txn")
    return list(history.operations)


def _is_observed(graph: Graph) -> bool:
    return any(
        ret != FOREVER and any(micro[0] in READS for micro in micros)
        for ret, micros in zip(graph.txns.ret, graph.txns.micros, strict=True)
    )


def _direct(found: Iterable[Direct]) -> Iterable[Finding]:
    told: Counter[str] = Counter()
    for direct in sorted(found, key=lambda one: one.ops):
        told[direct.name] += 1
        if told[direct.name] <= _TOLD_PER_KIND:
            yield Finding(
                f"{direct.name}: {direct.message}",
                ops=direct.ops,
                data={
                    "anomaly": direct.name,
                    "core": list(direct.ops),
                    "window": [min(direct.ops, default=0), max(direct.ops, default=0)],
                },
            )


def _cycles(graph: Graph, cycles: Iterable[Cycle], reason: Reason) -> Iterable[Finding]:
    """Tell every cycle once, even where it is an anomaly of several kinds."""
    names: dict[tuple[Edge, ...], str] = {}
    for cycle in sorted(cycles, key=lambda one: one.name.startswith(_SPECIAL)):
        finding = _told(graph, cycle, reason)
        if cycle.edges in names:
            headline = finding.message.split("\n", 1)[0]
            told = f"{headline}: the cycle of {names[cycle.edges]}"
            finding = msgspec.structs.replace(finding, message=told)
        names.setdefault(cycle.edges, cycle.name)
        yield finding


def _told(graph: Graph, cycle: Cycle, reason: Reason) -> Finding:
    """Tell a cycle, but never let a fault of the telling hide it."""
    try:
        return tell(graph, cycle, reason)
    except Exception as fault:
        ops = tuple(sorted({graph.call[e.source] for e in cycle.edges if e.source < graph.size}))
        return Finding(
            f"{cycle.name}: a cycle of ops {', '.join(map(str, ops))} (no more can be said: "
            f"{type(fault).__name__}: {fault}; this is a bug in labrys)",
            ops=ops,
            data={"anomaly": cycle.name, "core": list(ops), "window": [min(ops), max(ops)]},
        )
