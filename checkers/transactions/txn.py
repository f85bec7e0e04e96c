"""The transaction: micro-operations that happen together or not at all."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from labrys.checkers.history import FOREVER, HistoryError, Operation
from labrys.checkers.text import as_key, json_text

Micro: TypeAlias = Sequence[Any]
"""`["r", key, value]`, `["w", key, value]` or `["append", key, element]`."""

READS: Final = frozenset({"r", "read"})


class Txns(NamedTuple):
    """Transactions of a history, by number in order of invocation, as columns."""

    operations: list[Operation]
    micros: list[list[Micro]]
    """What was done and seen; of an unknown outcome only what was asked."""
    call: list[int]
    ret: list[int]
    failed: list[Operation]
    """Those that certainly did not happen."""


def collect(operations: Iterable[Operation], updates: frozenset[str]) -> Txns:
    """Return the transactions of `operations`, whose micro-operations read or are `updates`.

    Raises `HistoryError` for anything else.
    """
    txns = Txns([], [], [], [], [])
    known = READS | updates
    for operation in operations:
        completion = operation.completion
        value = operation.invoke.value
        ret = FOREVER
        if completion is not None and completion.type == "fail":
            txns.failed.append(operation)
        elif completion is not None and completion.type == "ok":
            value, ret = completion.value, completion.index
        if type(value) is not list:
            raise _wrong(operation, value)
        for micro in value:
            try:
                is_known = type(micro) is list and len(micro) == 3 and micro[0] in known
            except TypeError:  # a list or a map in place of a name cannot be looked up
                is_known = False
            if not is_known:
                raise _wrong(operation, micro, updates)
        if completion is not None and completion.type == "fail":
            continue
        txns.operations.append(operation)
        txns.micros.append(value)
        txns.call.append(operation.invoke.index)
        txns.ret.append(ret)
    return txns


def _wrong(
    operation: Operation, value: Any, updates: Iterable[str] = ("append", "w")
) -> HistoryError:
    functions = "|".join(f'"{f}"' for f in ("r", *sorted(updates)))
    return HistoryError(
        f"op {operation.call}: a transaction is a list of [{functions}, key, value], "
        f"not {json_text(value)[:80]}"
    )


def aborted(txns: Txns) -> dict[Any, dict[Any, int]]:
    """Return who tried to put what in and failed: the call by key and value."""
    calls: dict[Any, dict[Any, int]] = {}
    for operation in txns.failed:
        for f, key, value in operation.invoke.value:
            if f not in READS:
                calls.setdefault(as_key(key), {})[as_key(value)] = operation.call
    return calls
