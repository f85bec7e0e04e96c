"""The queue checker: what went in comes out, in whatever order.

After Jepsen's total-queue. That something is missing is known only when somebody found the queue
empty after it was put in: runs should end in a drain. A crashed dequeue may have taken one value,
and a crashed drain all there were.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.text import as_key, told
from labrys.checkers.verdict import CheckResult, Verdict

AT_LEAST_ONCE: Final = "at-least-once"
EXACTLY_ONCE: Final = "exactly-once"


class _Value:
    """Who put a value in, and who took it out. Failed operations did nothing."""

    def __init__(self) -> None:
        self.puts: list[Operation] = []
        self.takes: list[Operation] = []

    @property
    def acknowledged(self) -> list[Operation]:
        return [put for put in self.puts if put.is_ok]


class TotalQueue(ByKey):
    """Is nothing lost, and nothing taken out that was never put in? Exactly once, if asked for.

    `dequeue` returns null, and `drain` its list, when the queue is empty.
    """

    name = "total-queue"
    functions: ClassVar[Mapping[str, str]] = {
        "enqueue": "enqueue",
        "dequeue": "dequeue",
        "drain": "drain",
    }
    levels = (AT_LEAST_ONCE, EXACTLY_ONCE)

    def assert_sound(self, operation: Operation) -> None:
        if operation.f == "drain" and operation.is_ok and not isinstance(operation.value, list):
            raise wanted(operation, "a list of values as its result", operation.value)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        if any(taken for operation in operations for taken in _taken(operation)):
            return None
        return "nothing was ever taken out"

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        values: dict[Any, _Value] = {}
        for operation in operations:
            if operation.f == "enqueue" and not operation.is_fail:
                key = as_key(operation.invoke.value)
                values.setdefault(key, _Value()).puts.append(operation)
            for value in _taken(operation):
                values.setdefault(as_key(value), _Value()).takes.append(operation)
        empty = max(map(_empty_since, operations), default=-1)
        tally = Tally()
        recovered = 0
        open_ended: list[Any] = []
        gone: list[tuple[Any, _Value, int]] = []
        for key, value in values.items():
            recovered += bool(value.takes and value.puts and not value.acknowledged)
            _look_at_takes(key, value, tally)
            due = sum((put.ret or 0) < empty for put in value.acknowledged)
            if len(value.takes) < due:
                gone.append((key, value, due - len(value.takes)))
            elif len(value.takes) < len(value.acknowledged):
                open_ended.append(key)
        lost = sum(count for _, _, count in gone)
        excuses = _excuses(operations)
        if lost > excuses:
            _tell_of_lost(gone, excuses, empty, tally)
        bad = ["lost", "unexpected"]
        if self.level == EXACTLY_ONCE:
            bad.append("duplicated")
        is_bad = any(tally.counts[kind] for kind in bad)
        verdict, hint = (Verdict.INVALID if is_bad else Verdict.VALID), None
        attempts = sum(len(value.puts) for value in values.values())
        parts = [f"{attempts} put in, {sum(len(v.takes) for v in values.values())} taken out"]
        if lost:
            parts.append(f"{lost} lost" if lost > excuses else f"{lost} taken by crashed dequeues")
        parts += [f"{tally.counts[kind]} {kind}" for kind in bad[1:] if tally.counts[kind]]
        if tally.counts["duplicated"] and "duplicated" not in bad:
            parts.append(f"{tally.counts['duplicated']} came out more than once")
        if open_ended:
            parts.append(f"{len(open_ended)} not seen again, nor was the queue found empty since")
            if not is_bad:
                verdict, hint = Verdict.UNKNOWN, "let the workload drain the queue at the end"
        return CheckResult(
            verdict,
            ", ".join(parts),
            hint=hint,
            findings=tally.findings(bad),
            data={
                "attempts": attempts,
                "acknowledged": sum(len(value.acknowledged) for value in values.values()),
                "taken": sum(len(value.takes) for value in values.values()),
                "lost": lost if lost > excuses else 0,
                "unexpected": tally.counts["unexpected"],
                "duplicated": tally.counts["duplicated"],
                "recovered": recovered,
                "not_drained": len(open_ended),
            },
        )


def _taken(operation: Operation) -> list[Any]:
    """Return the values that an operation took out for certain."""
    if not operation.is_ok or operation.f == "enqueue":
        return []
    if operation.f == "drain":
        return list(operation.value)
    return [] if operation.value is None else [operation.value]


def _empty_since(operation: Operation) -> int:
    """Return from when on somebody looked and found the queue empty; -1: nobody did."""
    found_empty = operation.f == "drain" or (operation.f == "dequeue" and operation.value is None)
    return operation.call if operation.is_ok and found_empty else -1


def _excuses(operations: Sequence[Operation]) -> float:
    """Return how many values may be gone because nobody knows what a crashed operation took."""
    crashed = [operation.f for operation in operations if operation.is_info]
    return float("inf") if "drain" in crashed else crashed.count("dequeue")


def _look_at_takes(key: Any, value: _Value, tally: Tally) -> None:
    takes = value.takes
    if not value.puts:
        for take in takes:
            tally.tell(
                "unexpected",
                f"op {take.call} took {told(key)}, which nobody put in",
                [take.call],
            )
        return
    early = value.puts[0].call
    for take in takes:
        if (take.ret or 0) < early:
            tally.tell(
                "unexpected",
                f"op {take.call} took {told(key)} before op {early} began to put it in",
                [take.call, early],
            )
    if len(takes) > len(value.puts):
        named = ", ".join(f"op {take.call}" for take in takes[:4])
        tally.tell(
            "duplicated",
            f"{told(key)} was put in {len(value.puts)} times and came out {len(takes)} times: "
            f"{named}",
            [*(put.call for put in value.puts[:4]), *(take.call for take in takes[:4])],
        )


def _tell_of_lost(
    gone: Sequence[tuple[Any, _Value, int]], excuses: float, empty: int, tally: Tally
) -> None:
    excused = f"; {excuses:g} of them may be with crashed dequeues" if excuses else ""
    for key, value, count in gone:
        put = value.acknowledged[0]
        times = "" if count == 1 else f" {count} times"
        tally.tell(
            "lost",
            f"{told(key)} is lost{times}: put in by op {put.call} (ok at {put.ret}), it never came "
            f"out, and op {empty} found the queue empty later{excused}",
            [put.call, empty],
        )
