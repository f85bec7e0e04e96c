"""Dependencies between transactions that append to lists: every read tells its whole past.

Kingsbury and Alvaro (*Elle*, VLDB 2020). No element is appended twice to one key, so the longest
read of a key is the order of its versions, and every other read must be a beginning of it. What was
appended for certain and is not in the longest read comes somewhere after it.
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
from labrys.checkers.transactions.txn import Txns, aborted, collect

_UPDATES: Final = frozenset({"append"})
_INT: Final = {int}


class _Key:
    """What is known about one list."""

    __slots__ = ("inner", "longest", "odd", "reader", "reads", "writers")

    def __init__(self) -> None:
        self.writers: dict[Any, int] = {}
        """By element: who appended it."""
        self.inner: set[Any] = set()
        """Elements after which the same transaction appended another one."""
        self.longest: list[Any] = []
        self.reader = -1
        self.reads: list[tuple[int, list[Any]]] = []
        """(transaction, what it read of others)"""
        self.odd: list[tuple[int, list[Any]]] = []
        """Whole reads that contradict the transaction's own operations."""


def dependencies(operations: Iterable[Operation]) -> Graph:
    """Return the dependency graph of list-append transactions, with what is wrong without a cycle.

    Raises `HistoryError` for values of another shape, or an element appended twice to a key.
    """
    txns = collect(operations, _UPDATES)
    graph = Graph(txns)
    keys: dict[Any, _Key] = {}
    _collect_appends(txns, keys)
    for number, micros in enumerate(txns.micros):
        if txns.ret[number] != FOREVER:
            _collect_reads(graph, number, micros, keys)
    failed = aborted(txns)
    uncertain = _uncertain(txns, keys)
    for key, known in keys.items():
        _connect(graph, key, known, failed.get(key, {}), uncertain)
    return graph


def _uncertain(txns: Txns, keys: dict[Any, _Key]) -> set[int]:
    """Return the crashed transactions of which nobody read anything.

    Of one that somebody saw a part of, all the rest has happened as well.
    """
    uncertain = {number for number, ret in enumerate(txns.ret) if ret == FOREVER}
    if uncertain:
        for known in keys.values():
            uncertain.difference_update(map(known.writers.get, known.longest))
    return uncertain


def _collect_appends(txns: Txns, keys: dict[Any, _Key]) -> None:
    for number, micros in enumerate(txns.micros):
        before: dict[Any, Any] = {}
        for f, key, element in micros:
            if type(key) is not int:
                key = as_key(key)
            known = keys.get(key)
            if known is None:
                known = keys[key] = _Key()
            if f != "append":
                continue
            if type(element) is not int:
                element = as_key(element)
            if element in known.writers:
                raise _twice(txns, key, element, known.writers[element], number)
            known.writers[element] = number
            if key in before:
                known.inner.add(before[key])
            before[key] = element


def _twice(txns: Txns, key: Any, element: Any, one: int, other: int) -> HistoryError:
    return HistoryError(
        f"op {txns.call[other]}: {told(element)} is appended to key {told(key)} again "
        f"(op {txns.call[one]} did already): elements must be unique for each key"
    )


def _collect_reads(graph: Graph, number: int, micros: Any, keys: dict[Any, _Key]) -> None:
    """Note what a transaction read from others; see that it agrees with itself."""
    expected: dict[Any, list[Any]] = {}
    own: dict[Any, list[Any]] = {}
    for f, key, value in micros:
        if type(key) is not int:
            key = as_key(key)
        if f == "append":
            element = value if type(value) is int else as_key(value)
            if key in expected:
                expected[key] = [*expected[key], element]
            else:
                own.setdefault(key, []).append(element)
            continue
        if value is None:
            value = []
        elif type(value) is not list:
            raise HistoryError(f"op {graph.call[number]}: a read of key {told(key)} must be a list")
        if value and set(map(type, value)) != _INT:
            value = [as_key(element) for element in value]
        if key in expected:
            if value != expected[key]:
                keys[key].odd.append((number, value))
                graph.direct.append(_internal(graph, number, key, expected[key], value))
            continue
        expected[key] = value
        known = keys[key]
        if len(value) > len(known.longest):
            known.longest, known.reader = value, number
        if key in own:
            tail = own[key]
            if value[-len(tail) :] != tail:
                graph.direct.append(_internal(graph, number, key, tail, value))
                known.odd.append((number, value))
                continue
            value = value[: -len(tail)]
        known.reads.append((number, value))


def _internal(graph: Graph, number: int, key: Any, expected: Any, value: Any) -> Direct:
    return Direct(
        "internal",
        f"op {graph.call[number]} contradicts itself: it read {_listed(value)} of key {told(key)} "
        f"where its own operations before that leave {_listed(expected)} at the end",
        (graph.call[number],),
    )


def _listed(elements: list[Any]) -> str:
    return f"[{','.join(told(element) for element in elements)}]"


def _connect(
    graph: Graph, key: Any, known: _Key, aborted: dict[Any, int], uncertain: set[int]
) -> None:
    """Add the edges of one key."""
    order, writers = known.longest, known.writers
    graph.orders[key] = order
    add = graph.add
    direct = graph.direct
    call = graph.call
    for number, read in known.odd:
        _see_elements(graph, key, known, number, read, aborted)
    if order and not _see_elements(graph, key, known, known.reader, order, aborted):
        return  # with an element in two places there is no order of versions
    before = -1
    for place, element in enumerate(order):
        writer = writers.get(element, -1)
        if writer >= 0 and before >= 0:
            add(before, WW, writer)
        elif writer >= 0 and place:
            _see_dirty(graph, key, order[place - 1], writer, aborted)
        before = writer
    # Whatever was appended for certain and is not in the longest read came after all of it.
    unread = []
    if len(writers) > len(order) or not writers.keys() <= set(order):
        seen = set(order)
        unread = [w for e, w in writers.items() if e not in seen and w not in uncertain]
    end = -1
    if unread:
        end = graph.add_after(key)
        for writer in unread:
            add(end, SAME, writer)
        if before >= 0 and before not in unread:
            add(before, WW, end)
    length = len(order)
    appenders = set(writers.values())
    updated: dict[int, int] = {}
    for reader, read in known.reads:
        size = len(read)
        if order[:size] != read:
            _see_elements(graph, key, known, reader, read, aborted)
            direct.append(_incompatible(graph, key, known, reader, read))
            continue
        if size:
            last = read[-1]
            writer = writers.get(last, -1)
            if writer == reader:
                direct.append(
                    Direct(
                        "future-read",
                        f"op {call[reader]} read {told(last)} of key {told(key)} "
                        "before it appended that itself",
                        (call[reader],),
                    )
                )
            elif writer >= 0:
                add(writer, WR, reader)
                if last in known.inner:
                    direct.append(
                        Direct(
                            "G1b",
                            f"op {call[reader]} read key {told(key)} up to {told(last)}, in the "
                            f"middle of what op {call[writer]} appended",
                            (call[writer], call[reader]),
                        )
                    )
        if size < length:
            following = writers.get(order[size], -1)
            if following == reader:
                _note_update(graph, key, size, reader, updated)
            elif following >= 0:
                add(reader, RW, following)
                if reader in appenders:
                    _note_update(graph, key, size, reader, updated)
        elif end >= 0:
            if reader not in unread:
                add(reader, RW, end)
                continue
            _note_update(graph, key, size, reader, updated)
            for writer in unread:
                add(reader, RW, writer)


def _see_elements(
    graph: Graph, key: Any, known: _Key, number: int, read: list[Any], aborted: dict[Any, int]
) -> bool:
    """Report elements of a read that stand there twice or should not; whether each stands once."""
    call = graph.call[number]
    for element in read:
        if element in known.writers:
            continue
        if element in aborted:
            failed = aborted[element]
            name, ops = "G1a", [failed, call]
            what = f"which op {failed} appended and that failed"
        else:
            name, ops = "phantom-element", [call]
            what = "which nobody ever appended"
        graph.direct.append(
            Direct(name, f"op {call} read {told(element)} of key {told(key)}, {what}", tuple(ops))
        )
    if len(set(read)) == len(read):
        return True
    twice = next(element for place, element in enumerate(read) if element in read[:place])
    graph.direct.append(
        Direct(
            "duplicate-elements",
            f"op {call} read {told(twice)} more than once in key {told(key)}: {_listed(read)}",
            (call,),
        )
    )
    return False


def _see_dirty(graph: Graph, key: Any, element: Any, writer: int, aborted: dict[Any, int]) -> None:
    if element in aborted:
        failed, after = aborted[element], graph.call[writer]
        graph.direct.append(
            Direct(
                "dirty-update",
                f"op {after} appended to key {told(key)} after {told(element)}, "
                f"which op {failed} appended and that failed",
                (failed, after),
            )
        )


def _note_update(graph: Graph, key: Any, size: int, number: int, updated: dict[int, int]) -> None:
    """Two transactions that both read a version and then both appended: one update got lost."""
    other = updated.setdefault(size, number)
    if other != number:
        one, two = sorted((graph.call[other], graph.call[number]))
        graph.direct.append(
            Direct(
                "lost-update",
                f"op {one} and op {two} both read the same version of key {told(key)} "
                f"({size} elements) and both appended to it",
                (one, two),
            )
        )


def _incompatible(graph: Graph, key: Any, known: _Key, reader: int, read: list[Any]) -> Direct:
    place = next(
        (i for i, (a, b) in enumerate(zip(read, known.longest, strict=False)) if a != b),
        len(known.longest),
    )
    return Direct(
        "incompatible-order",
        f"op {graph.call[reader]} and op {graph.call[known.reader]} read key {told(key)} in "
        f"different orders: {_listed(read[: place + 1])} against "
        f"{_listed(known.longest[: place + 1])} at element {place + 1}",
        tuple(sorted((graph.call[reader], graph.call[known.reader]))),
    )


def reason(graph: Graph, edge: Edge) -> str:
    """Return in words how it is known that `edge` holds: `it appended 3 to x after 2 of T1`."""
    micros = graph.txns.micros
    keys = {as_key(key) for _, key, _ in micros[edge.source]}
    keys &= {as_key(key) for _, key, _ in micros[edge.target]}
    for key in sorted(keys, key=str):
        order = graph.orders[key]
        source = _of(micros[edge.source], key, appended=True)
        target = _of(micros[edge.target], key, appended=True)
        if edge.kind == WW:
            first = [order.index(e) for e in source if e in order]
            later = [order.index(e) for e in target if e in order]
            if first and later and max(first) < min(later):
                return (
                    f"it appended {told(order[max(first)])} to key {told(key)} before "
                    f"{told(order[min(later)])}, which the next one appended"
                )
            if source and target and first and not later:
                return (
                    f"it appended {told(source[-1])} to key {told(key)}, which was read before "
                    f"the next one's {told(target[0])} was there"
                )
        if edge.kind == WR:
            for read in _of(micros[edge.target], key, appended=False):
                if any(e in source for e in read):
                    seen = [e for e in read if e in source][-1]
                    return f"it appended {told(seen)} to key {told(key)}, which the next one read"
        if edge.kind == RW:
            for read in _of(micros[edge.source], key, appended=False):
                missed = [e for e in target if e not in read]
                if missed:
                    return (
                        f"it read {_listed(read)} of key {told(key)}, without {told(missed[0])}, "
                        "which the next one appended"
                    )
    return "its version came first"


def _of(micros: Any, key: Any, *, appended: bool) -> list[Any]:
    """Return the elements that were appended to a key, or the lists that were read of it."""
    found: list[Any] = []
    for f, other, value in micros:
        if as_key(other) != key:
            continue
        if f == "append" and appended:
            found.append(as_key(value))
        elif f != "append" and not appended:
            found.append([as_key(element) for element in value or ()])
    return found
