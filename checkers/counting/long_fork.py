"""The long-fork checker: do all readers see the writes happen in one order?

After Jepsen's long-fork. Every key is written once. Two readers of the same keys of whom one sees x
but not y and the other y but not x put two independent writes in opposite orders: parallel snapshot
isolation allows that (Sovran et al., SOSP 2011), snapshot isolation does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import History, HistoryError, Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.text import as_key, told
from labrys.checkers.verdict import CheckResult, Verdict

_READS: Final = ("r", "read")
_WRITES: Final = ("w", "write")
_KINDS: Final = ("long-fork", "unexpected")


class LongFork(ByKey):
    """Transactions that write one key each, `[["w", x, 1]]`, or read several."""

    name = "long-fork"
    functions: ClassVar[Mapping[str, str]] = {"txn": "txn", "read": "txn", "write": "txn"}

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` for what is no such transaction, and for a key written twice."""
        super().assert_fits(history)
        for operations in history.operations_by_key().values():
            _writes(operations)

    def assert_sound(self, operation: Operation) -> None:
        micros = operation.value
        if micros is None and not operation.is_ok:
            return  # a read that did not say of what
        if not isinstance(micros, list):
            raise wanted(operation, "a list of micro-operations", micros)
        for micro in micros:
            if (
                not isinstance(micro, list)
                or len(micro) not in (2, 3)
                or micro[0] not in (*_READS, *_WRITES)
                or (len(micro) == 2 and micro[0] in _WRITES)
            ):
                raise wanted(operation, '["r"|"w", key, value]', micro)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        for seen, unseen in map(_seen, filter(_is_read, operations)):
            if seen and unseen:
                return None
        return "no transaction read several keys of which some were written and some not yet"

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        writes = _writes(operations)
        tally = Tally()
        orders: dict[tuple[Any, Any], int] = {}
        """Who saw the first key written, and the second not."""
        known: set[tuple[frozenset[Any], frozenset[Any]]] = set()
        reads = 0
        for operation in filter(_is_read, operations):
            reads += 1
            _look_for_unexpected(operation, writes, tally)
            view = _seen(operation)
            if view in known:
                continue
            known.add(view)
            for before in view[0]:
                for after in view[1] - {before}:
                    other = orders.get((after, before))
                    if other is not None:
                        x, y = told(before), told(after)
                        tally.tell(
                            "long-fork",
                            f"op {operation.call} saw {x} written and {y} not; op {other} saw "
                            f"{y} written and {x} not",
                            [
                                operation.call,
                                other,
                                *(writes[k].call for k in (before, after) if k in writes),
                            ],
                        )
                    orders.setdefault((before, after), operation.call)
        bad = sum(tally.counts.values())
        what = ", ".join(f"{tally.counts[kind]} {kind}" for kind in _KINDS if tally.counts[kind])
        return CheckResult(
            Verdict.INVALID if bad else Verdict.VALID,
            f"{what} in {reads} reads" if bad else f"{reads} reads agree about the order",
            findings=tally.findings(_KINDS),
            data={"reads": reads, "writes": len(writes), **{k: tally.counts[k] for k in _KINDS}},
        )


def _is_read(operation: Operation) -> bool:
    return operation.is_ok and all(micro[0] in _READS for micro in operation.value)


def _seen(operation: Operation) -> tuple[frozenset[Any], frozenset[Any]]:
    """Return the keys that a read found written and those that it did not."""
    found: dict[bool, set[Any]] = {True: set(), False: set()}
    for _, key, *value in operation.value:
        found[value not in ([], [None])].add(as_key(key))
    return frozenset(found[True]), frozenset(found[False])


def _writes(operations: Sequence[Operation]) -> dict[Any, Operation]:
    """Return who writes each key. Raises `HistoryError` for one that is written twice."""
    writes: dict[Any, Operation] = {}
    for operation in operations:
        if operation.is_fail:
            continue
        for f, key, *_ in operation.value or ():
            if f not in _WRITES:
                continue
            other = writes.setdefault(as_key(key), operation)
            if other is not operation:
                raise HistoryError(
                    f"op {operation.call}: {told(as_key(key))} was written by op {other.call} "
                    "already: every key is to be written once here"
                )
    return writes


def _written(write: Operation, key: Any) -> list[Any]:
    """Return what a transaction writes to `key`."""
    return [as_key(m[2]) for m in write.value if as_key(m[1]) == as_key(key)]


def _look_for_unexpected(read: Operation, writes: dict[Any, Operation], tally: Tally) -> None:
    for _, key, *value in read.value:
        if value in ([], [None]):
            continue
        write = writes.get(as_key(key))
        written = [] if write is None else _written(write, key)
        if as_key(value[0]) not in written:
            message = f"op {read.call} read {told(as_key(value[0]))} in {told(as_key(key))}, "
            tally.tell("unexpected", f"{message}which nobody wrote there", [read.call])
        elif write is not None and write.call > (read.ret or 0):
            message = f"op {read.call} read {told(as_key(key))} before op {write.call} began"
            tally.tell("unexpected", f"{message} to write it", [read.call, write.call])
