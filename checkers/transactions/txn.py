"""The transaction: micro-operations that happen together or not at all."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from labrys.checkers.history import HistoryError, Operation
from labrys.checkers.text import json_text

FOREVER: Final = 1 << 60
"""The return of a transaction of which nobody knows whether it was committed."""

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
            if type(micro) is not list or len(micro) != 3 or micro[0] not in known:
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


def as_key(key: Any) -> Any:
    """Return what stands for a key or a value in a dict: 1, true, 1.0 and "1" are four."""
    kind = type(key)
    return key if kind is int or kind is str else ("\0", json_text(key))


def told(value: Any) -> str:
    """Return what `as_key` made, as JSON text."""
    return str(value[1]) if isinstance(value, tuple) else json_text(value)
