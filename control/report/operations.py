"""The operations of a run, paired for looking at.

Checkers refuse a history that cannot have happened. A page must show it all the same, so pairing
in here forgives: an invocation that is overtaken by the next one of its process stays open.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.op import Op, OpType
from labrys.control.report.labels import op_label
from labrys.control.report.schema import FAIL, INFO, OK, OPEN

OUTCOME_NAMES: Final = {OK: "ok", FAIL: "fail", INFO: "info", OPEN: "info"}
_OUTCOME: Final = {OpType.OK: OK, OpType.FAIL: FAIL, OpType.INFO: INFO}


class Operation(msgspec.Struct, frozen=True):
    """An invocation and, unless it is still open, its completion."""

    invoke: Op
    completion: Op | None

    @property
    def outcome(self) -> int:
        return OPEN if self.completion is None else _OUTCOME[self.completion.type]

    @property
    def call_us(self) -> int:
        return self.invoke.time // 1000

    @property
    def ret_us(self) -> int | None:
        return None if self.completion is None else self.completion.time // 1000

    @property
    def result(self) -> Any:
        return self.completion.value if self.completion and self.outcome == OK else None

    @property
    def label(self) -> str:
        kind = self.completion.type if self.completion else OpType.INFO
        return op_label(self.invoke.f, self.invoke.value, kind, self.result)


class Timeline:
    """The operations of a run and the ways to find them."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.operations, self.unmatched = _paired(ops)
        self.by_index: dict[int, Operation] = {}
        self.time_us: dict[int, int] = {}
        for op in ops:
            self.time_us[op.index] = op.time // 1000
        for operation in self.operations:
            self.by_index[operation.invoke.index] = operation
            if operation.completion:
                self.by_index[operation.completion.index] = operation
        self.row: dict[int, int] = {}
        """Row of an operation in the columns, by the index of its invocation or completion."""

    def rows(self, indices: Iterable[int]) -> list[int]:
        """Rows of the operations that history indices name; unknown indices are left out."""
        return list(dict.fromkeys(self.row[index] for index in indices if index in self.row))

    def span(self, indices: Iterable[int]) -> tuple[int, int] | None:
        """The time that the events with these indices, and their operations, take up."""
        moments: list[int] = []
        for index in indices:
            operation = self.by_index.get(index)
            if operation is not None:
                moments.append(operation.call_us)
                if operation.outcome in (OK, FAIL):
                    moments.append(operation.ret_us or operation.call_us)
            elif index in self.time_us:
                moments.append(self.time_us[index])
        return (min(moments), max(moments)) if moments else None


def _paired(ops: Sequence[Op]) -> tuple[list[Operation], int]:
    """Pair events by process. An invoke that is overtaken by the next one stays open."""
    operations: list[Operation] = []
    place: dict[int | str, int] = {}
    unmatched = 0
    for op in ops:
        if not op.is_client:
            continue
        if op.type is OpType.INVOKE:
            unmatched += op.process in place
            place[op.process] = len(operations)
            operations.append(Operation(invoke=op, completion=None))
        elif op.process in place:
            at = place.pop(op.process)
            operations[at] = Operation(invoke=operations[at].invoke, completion=op)
        else:
            unmatched += 1
    operations.sort(key=lambda operation: operation.invoke.time)
    return operations, unmatched
