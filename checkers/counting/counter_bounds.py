"""The cheap counter checker: every read lies between what must and what may have been added.

After Jepsen's counter. Necessary for linearizability, not sufficient; in return it takes any
amounts, up and down, in one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import Operation
from labrys.checkers.models.collections import Counter as CounterModel
from labrys.checkers.models.model import Action
from labrys.checkers.text import json_text
from labrys.checkers.verdict import CheckResult, Verdict


class CounterBounds(ByKey):
    """Does every read return a sum that was possible at some moment of it?"""

    name = "counter-bounds"
    has_start = True
    functions: ClassVar[Mapping[str, str]] = CounterModel.functions

    def __init__(self, level: str | None = None, initial: Any = None) -> None:
        """Begin at `initial`, an integer; None is 0. Raises `ValueError` for anything else."""
        super().__init__(level, initial)
        self._model = CounterModel(initial)

    def assert_sound(self, operation: Operation) -> None:
        self._model.action(operation)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        reads = any(operation.f == "read" and operation.is_ok for operation in operations)
        return None if reads else "no read succeeded"

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        assert isinstance(self._model.initial, int), "a counter starts with a number"
        low = high = self._model.initial
        tally = Tally()
        count = 0
        open_reads: dict[int, list[int]] = {}
        for index, operation, is_call in _events(operations):
            action = self._model.action(operation)
            assert action is not None, "a counter knows no operation that says nothing"
            if action.f == "read":
                if is_call:
                    open_reads[operation.call] = [low, high]
                else:
                    count += 1
                    _judge_read(operation, action, open_reads.pop(operation.call), index, tally)
                continue
            assert isinstance(action.arg, int), "a counter changes by a number"
            # A change may have happened from its call on, and must have from its return on.
            if (action.arg > 0) is is_call:
                high += action.arg
            else:
                low += action.arg
            for bounds in open_reads.values():
                bounds[:] = min(bounds[0], low), max(bounds[1], high)
        wrong = tally.counts["out-of-bounds"]
        return CheckResult(
            Verdict.INVALID if wrong else Verdict.VALID,
            f"{wrong} of {count} reads out of bounds" if wrong else f"{count} reads within bounds",
            findings=tally.findings(["out-of-bounds"]),
            data={"reads": count, "wrong": wrong, "end": [json_text(low), json_text(high)]},
        )


def _events(operations: Sequence[Operation]) -> list[tuple[int, Operation, bool]]:
    """Return what may have happened, in order: (index, operation, is it the call)."""
    events = []
    for operation in operations:
        if operation.is_fail or (operation.f == "read" and operation.is_info):
            continue
        events.append((operation.call, operation, True))
        if operation.ret is not None:
            events.append((operation.ret, operation, False))
    return sorted(events, key=lambda event: event[0])


def _judge_read(
    read: Operation, action: Action, bounds: Sequence[int], index: int, tally: Tally
) -> None:
    low, high = bounds
    assert isinstance(action.result, int), "checked before"
    if not low <= action.result <= high:
        tally.tell(
            "out-of-bounds",
            f"op {read.call} read {action.result}, but between its call and its return at {index} "
            f"the counter was at least {low} and at most {high}",
            [read.call],
            low=low,
            high=high,
        )
