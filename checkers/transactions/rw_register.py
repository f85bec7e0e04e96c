"""Dependencies between transactions that read and write registers.

Kingsbury and Alvaro (*Elle*, VLDB 2020). No value is written twice to one key, so a read says which
write it saw. The order of versions has to be inferred: the initial value comes first, and what a
transaction read of a key before it wrote it came before what it wrote. More is not known, so more
than what is found here may be wrong: let transactions read a key before they write it.
"""

from collections.abc import Iterable
from typing import Any, Final

from labrys.checkers.history import FOREVER, HistoryError, Operation
from labrys.checkers.text import as_key, told
from labrys.checkers.transactions.dependencies import (
    RW,
    SAME,
    WR,
    WW,
    Direct,
    Edge,
    Graph,
)
from labrys.checkers.transactions.txn import READS, Txns, aborted, collect

_UPDATES: Final = frozenset({"w", "write"})
_NIL: Final = as_key(None)


class _Key:
    """What is known about one register."""

    __slots__ = ("final", "inner", "next_of", "reads", "writers")

    def __init__(self) -> None:
        self.writers: dict[Any, int] = {}
        self.inner: set[Any] = set()
        """Values that the same transaction overwrote."""
        self.final: dict[int, Any] = {}
        """By transaction: the last value that it wrote."""
        self.reads: list[tuple[int, Any]] = []
        """(transaction, the value of others that it read)"""
        self.next_of: dict[Any, list[int]] = {}
        """By value: who read it and then wrote another one."""


def dependencies(operations: Iterable[Operation], initial: Any = None) -> Graph:
    """Return the dependency graph of rw-register transactions, with what is wrong without a cycle.

    Raises `HistoryError` for values of another shape, or a value written twice to a key.
    """
    txns = collect(operations, _UPDATES)
    graph = Graph(txns)
    keys: dict[Any, _Key] = {}
    start = as_key(initial)
    _collect_writes(txns, keys)
    for number, micros in enumerate(txns.micros):
        if txns.ret[number] != FOREVER:
            _collect_reads(graph, number, micros, keys)
    failed = aborted(txns)
    uncertain = {number for number, ret in enumerate(txns.ret) if ret == FOREVER}
    if uncertain:
        # Of a crashed one that somebody saw a part of, all the rest has happened as well.
        for known in keys.values():
            uncertain.difference_update(known.writers.get(value) for _, value in known.reads)
    unordered = 0
    for key, known in keys.items():
        unordered += _connect(graph, key, known, failed.get(key, {}), start, uncertain)
    if unordered:
        graph.notes.append(
            f"{unordered} of {len(keys)} keys were written without being read first: the order of "
            "their versions is known only in part"
        )
    return graph


def _collect_writes(txns: Txns, keys: dict[Any, _Key]) -> None:
    for number, micros in enumerate(txns.micros):
        for f, key, value in micros:
            key = as_key(key)
            known = keys.get(key)
            if known is None:
                known = keys[key] = _Key()
            if f in READS:
                continue
            value = as_key(value)
            if value in known.writers:
                raise HistoryError(
                    f"op {txns.call[number]}: {told(value)} is written to key {told(key)} again "
                    f"(op {txns.call[known.writers[value]]} did already): values must be unique "
                    "for each key"
                )
            known.writers[value] = number
            if number in known.final:
                known.inner.add(known.final[number])
            known.final[number] = value


def _collect_reads(graph: Graph, number: int, micros: Any, keys: dict[Any, _Key]) -> None:
    expected: dict[Any, Any] = {}
    read: dict[Any, Any] = {}
    for f, key, value in micros:
        key, value = as_key(key), as_key(value)
        if f not in READS:
            if key in read:
                keys[key].next_of.setdefault(read.pop(key), []).append(number)
            expected[key] = value
        elif key not in expected:
            expected[key] = read[key] = value
            keys[key].reads.append((number, value))
        elif expected[key] != value:
            graph.direct.append(
                Direct(
                    "internal",
                    f"op {graph.call[number]} contradicts itself: it read {told(value)} of key "
                    f"{told(key)} where its own operations before that leave "
                    f"{told(expected[key])}",
                    (graph.call[number],),
                )
            )


def _connect(
    graph: Graph,
    key: Any,
    known: _Key,
    aborted: dict[Any, int],
    start: Any,
    uncertain: set[int],
) -> int:
    """Add the edges of one key; return 1 if some of its versions have no known place."""
    writers, call, add = known.writers, graph.call, graph.add
    first = -1
    if any(value == start for _, value in known.reads) and start not in writers:
        # The initial value came before whatever was written for certain.
        first = graph.add_after(key)
        for writer in known.final:
            if writer not in uncertain:
                add(first, SAME, writer)
    starters = set(known.next_of.get(start, ()))
    for reader, value in known.reads:
        writer = writers.get(value, -1)
        if writer < 0 and value != start:
            _unwritten(graph, key, value, reader, aborted)
            continue
        if writer == reader:
            graph.direct.append(
                Direct(
                    "future-read",
                    f"op {call[reader]} read {told(value)} of key {told(key)} before it wrote "
                    "that itself",
                    (call[reader],),
                )
            )
            continue
        if writer >= 0:
            add(writer, WR, reader)
            if value in known.inner:
                graph.direct.append(
                    Direct(
                        "G1b",
                        f"op {call[reader]} read {told(value)} of key {told(key)}, which op "
                        f"{call[writer]} overwrote before it was done",
                        (call[writer], call[reader]),
                    )
                )
        elif first >= 0:
            if reader in known.final:
                for other in known.final:
                    if other not in uncertain:
                        add(reader, RW, other)
            else:
                add(reader, RW, first)
        for following in known.next_of.get(value, ()):
            add(reader, RW, following)
    for value, followers in known.next_of.items():
        writer = writers.get(value, -1)
        for number in followers:
            if writer >= 0:
                add(writer, WW, number)
        if len(followers) > 1:
            one, two = sorted(call[number] for number in followers[:2])
            graph.direct.append(
                Direct(
                    "lost-update",
                    f"op {one} and op {two} both read {told(value)} of key {told(key)} and both "
                    "wrote it",
                    (one, two),
                )
            )
    _see_order(graph, key, known)
    placed = {number for followers in known.next_of.values() for number in followers} | starters
    return int(any(number not in placed for number in known.final))


def _unwritten(graph: Graph, key: Any, value: Any, reader: int, aborted: dict[Any, int]) -> None:
    call = graph.call
    if value in aborted:
        graph.direct.append(
            Direct(
                "G1a",
                f"op {call[reader]} read {told(value)} of key {told(key)}, which op "
                f"{aborted[value]} wrote and that failed",
                (aborted[value], call[reader]),
            )
        )
    else:
        what = "before anything was written" if value == _NIL else "which nobody ever wrote"
        graph.direct.append(
            Direct(
                "phantom-element",
                f"op {call[reader]} read {told(value)} of key {told(key)}, {what}",
                (call[reader],),
            )
        )


def _see_order(graph: Graph, key: Any, known: _Key) -> None:
    """Report versions of a key that each came before the next one, round in a circle."""
    after: dict[Any, list[Any]] = {
        value: [known.final[number] for number in followers]
        for value, followers in known.next_of.items()
    }
    colour: dict[Any, int] = {}
    for root in after:
        if root in colour:
            continue
        path: list[Any] = []
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            value, leaving = stack.pop()
            if leaving:
                colour[value] = 2
                path.pop()
                continue
            if colour.get(value) == 1:
                circle = path[path.index(value) :]
                ops = tuple(
                    sorted({graph.call[known.writers[v]] for v in circle if v in known.writers})
                )
                graph.direct.append(
                    Direct(
                        "cyclic-versions",
                        f"the versions {', '.join(told(v) for v in [*circle, value])} of key "
                        f"{told(key)} each came before the next one",
                        ops,
                    )
                )
                return
            if colour.get(value) == 2:
                continue
            colour[value] = 1
            path.append(value)
            stack.append((value, True))
            stack += [(later, False) for later in after.get(value, ()) if colour.get(later) != 2]


def reason(graph: Graph, edge: Edge) -> str:
    """Return in words how it is known that `edge` holds."""
    source, target = graph.txns.micros[edge.source], graph.txns.micros[edge.target]
    wrote = {as_key(k): as_key(v) for f, k, v in source if f not in READS}
    writes = {as_key(k): as_key(v) for f, k, v in target if f not in READS}
    read = {as_key(k): as_key(v) for f, k, v in reversed(source) if f in READS}
    reads = {as_key(k): as_key(v) for f, k, v in reversed(target) if f in READS}
    if edge.kind == WR:
        for key, value in reads.items():
            if wrote.get(key) == value:
                return f"it wrote {told(value)} to key {told(key)}, which the next one read"
    if edge.kind == WW:
        for key, value in reads.items():
            if wrote.get(key) == value and key in writes:
                return (
                    f"it wrote {told(value)} to key {told(key)}, which the next one read and "
                    f"replaced by {told(writes[key])}"
                )
    if edge.kind == RW:
        for key, value in read.items():
            if key in writes and writes[key] != value:
                return (
                    f"it read {told(value)} of key {told(key)}, before the next one wrote "
                    f"{told(writes[key])}"
                )
    return "its version came first"
