"""Registers with distinct values: zones of clusters, without any search.

Gibbons and Korach (*Testing shared memories*, 1997, section 4): when no value is written twice, the
operations of one value stand together in every order, so a history is as good as its *clusters*. A
cas glues the cluster of its new value directly behind that of the value it expects, so clusters
form chains. A chain holds the register from the first return in it (somebody is done with it) to
the last call in it (somebody still needs it): its zone. Two zones that run forward must not
overlap, and no chain may fit as a whole inside such a zone of another.

Crashed operations return at infinity. One whose value nobody needs is dropped, which is exact: it
may simply never have happened. O(n log n).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from labrys.checkers.distinct.outcome import (
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
)
from labrys.checkers.history import FOREVER, Operation
from labrys.checkers.op import OpType
from labrys.checkers.text import as_key, json_text, told

_NEVER: Final = -2
"""The call of a writer that is not there."""
_INITIAL: Final = -1
_FUNCTIONS: Final = {"read": "read", "write": "write", "cas": "cas"}
_KNOWN: Final = frozenset({"read", "write", "delete"})


class _Clusters(NamedTuple):
    """The operations of each value, by a number for the value."""

    slots: dict[Any, int]
    call: list[int]
    """Of the writer; `_NEVER` without one."""
    ret: list[int]
    expects: list[int]
    """The value that the writer, a cas, expects; -1 for a write."""
    last_read: list[int]
    """The last call of a read, -1 without any."""
    first_read: list[int]
    """The first return of a read."""


def check(
    operations: Sequence[Operation],
    initial: Any = None,
    *,
    functions: Mapping[str, str] = _FUNCTIONS,
    nil_any: bool = False,
) -> Outcome:
    """Judge reads, writes, cas and deletes of one register, in order of invocation.

    `functions` says which `f` means which of those. With `nil_any`, a read of null says nothing.
    What is no operation of a register is `NotApplicable`: somebody else has to say what is wrong.
    """
    clusters = _Clusters({as_key(initial): 0}, [_INITIAL], [_INITIAL], [-1], [-1], [FOREVER])
    consumer: dict[int, int] = {}
    """By value: the value that the cas which expects it leaves."""
    failure = _collect(operations, initial, clusters, consumer, functions, nil_any)
    if failure is not None:
        return failure
    _, call, ret, expects, last_read, first_read = clusters
    # What somebody saw must have been there, and so must what that came from.
    crashed_cas = [s for s in range(len(call)) if ret[s] == FOREVER and expects[s] >= 0]
    needed = [s for s in crashed_cas if last_read[s] >= 0 or s in consumer]
    while needed:
        slot = needed.pop()
        before = expects[slot]
        if before < 0 or ret[slot] != FOREVER:
            continue
        other = consumer.get(before)
        if other is None:
            consumer[before] = slot
            needed.append(before)
        elif other != slot:
            return _twice(clusters, before, other, slot)
    forward: list[tuple[int, int, int]] = []
    backward: list[tuple[int, int, int]] = []
    reached = 0
    for root in range(len(call)):
        if expects[root] >= 0 or call[root] == _NEVER:
            continue
        if ret[root] == FOREVER and last_read[root] < 0 and root not in consumer:
            continue
        latest, earliest = call[root], ret[root]
        slot = root
        while True:
            if first_read[slot] <= latest:
                return _against_time(operations, clusters, slot, latest)
            if first_read[slot] < earliest:
                earliest = first_read[slot]
            if last_read[slot] > latest:
                latest = last_read[slot]
            after = consumer.get(slot)
            if after is None:
                break
            reached += 1
            slot = after
            if ret[slot] <= latest:
                return _against_time(operations, clusters, slot, latest)
            if ret[slot] < earliest:
                earliest = ret[slot]
            if call[slot] > latest:
                latest = call[slot]
        if earliest < latest:
            forward.append((earliest, latest, root))
        else:
            backward.append((latest, earliest, root))
    if reached < len(consumer):
        return _unreached(clusters, consumer)
    forward.sort()
    for (_, end, one), (start, _, other) in pairwise(forward):
        if start < end:
            return _overlap(operations, clusters, consumer, one, other)
    if forward:
        starts = [start for start, _, _ in forward]
        for start, end, root in backward:
            place = bisect_left(starts, start) - 1
            if place >= 0 and end < forward[place][1]:
                around = forward[place][2]
                return _overlap(operations, clusters, consumer, around, root)
    return Linearizable()


def _collect(
    operations: Sequence[Operation],
    initial: Any,
    clusters: _Clusters,
    consumer: dict[int, int],
    functions: Mapping[str, str],
    nil_any: bool,
) -> Outcome | None:
    """Sort the operations into clusters; return the verdict if that already gives one."""
    slots, call, ret, expects, last_read, first_read = clusters
    known = slots.get
    ok, fail = OpType.OK, OpType.FAIL
    for operation in operations:
        invoke = operation.invoke
        completion = operation.completion
        f = functions.get(invoke.f)
        value = invoke.value
        if f == "cas":
            if type(value) is not list or len(value) != 2:
                return NotApplicable(f"op {invoke.index} is no cas")
        elif f is None or f not in _KNOWN:
            return NotApplicable(f"{invoke.f} is more than a register can do")
        returned = FOREVER
        if completion is not None:
            outcome = completion.type
            if outcome is ok:
                returned = completion.index
            elif outcome is fail:
                continue
        expected = -1
        if f == "read":
            if returned == FOREVER or completion is None:
                continue
            value = completion.value
            if value is None and nil_any:
                continue
        elif f == "cas":
            expected_value, value = value
            if type(expected_value) is not int:
                expected_value = as_key(expected_value)
            expected = known(expected_value, -1)
            if expected < 0:
                expected = _new(clusters, expected_value)
        elif f == "delete":
            value = None
        if type(value) is not int:
            value = as_key(value)
        slot = known(value, -1)
        if slot < 0:
            slot = _new(clusters, value)
        if f == "read" or slot == expected:
            if returned != FOREVER:  # a cas that changes nothing only looks
                last_read[slot] = invoke.index
                if returned < first_read[slot]:
                    first_read[slot] = returned
            continue
        if call[slot] != _NEVER:
            return NotApplicable(f"{told(value)} is written twice")
        call[slot] = invoke.index
        ret[slot] = returned
        if expected >= 0:
            expects[slot] = expected
            if returned != FOREVER:
                other = consumer.setdefault(expected, slot)
                if other != slot:
                    twice = _twice(clusters, expected, other, slot)
                    return _or_not_applicable(operations, initial, functions, twice)
    for value, slot in slots.items():
        if call[slot] == _NEVER and (
            last_read[slot] >= 0 or (slot in consumer and ret[consumer[slot]] != FOREVER)
        ):
            at = last_read[slot] if last_read[slot] >= 0 else call[consumer[slot]]
            return Violation(f"op {at} found {told(value)}, which no operation ever leaves", (at,))
    return None


def _or_not_applicable(
    operations: Sequence[Operation],
    initial: Any,
    functions: Mapping[str, str],
    violation: Violation,
) -> Outcome:
    """Return `violation` unless a value is written twice further on: then it proves nothing."""
    written = {as_key(initial)}
    for operation in operations:
        value = operation.invoke.value
        match functions.get(operation.f):
            case "cas" if type(value) is not list or len(value) != 2:
                return NotApplicable(f"op {operation.call} is no cas")
            case "cas" if as_key(value[0]) == as_key(value[1]):
                continue
            case "cas":
                value = value[1]
            case "delete":
                value = None
            case "read":
                continue
            case "write":
                pass
            case _:
                return NotApplicable(f"{operation.f} is more than a register can do")
        if operation.is_fail:
            continue
        if as_key(value) in written:
            return NotApplicable(f"{json_text(value)} is written twice")
        written.add(as_key(value))
    return violation


def _new(clusters: _Clusters, value: Any) -> int:
    slot = clusters.slots[value] = len(clusters.call)
    clusters.call.append(_NEVER)
    clusters.ret.append(FOREVER)
    clusters.expects.append(-1)
    clusters.last_read.append(-1)
    clusters.first_read.append(FOREVER)
    return slot


# From here on there is a violation to be told: what costs time is allowed.


def _value(clusters: _Clusters, slot: int) -> str:
    return told(next(value for value, known in clusters.slots.items() if known == slot))


def _twice(clusters: _Clusters, before: int, one: int, other: int) -> Violation:
    first, second = sorted((clusters.call[one], clusters.call[other]))
    return Violation(
        f"op {first} and op {second} both replaced {_value(clusters, before)}, "
        "which was there only once",
        (first, second),
    )


def _against_time(
    operations: Sequence[Operation],
    clusters: _Clusters,
    slot: int,
    latest: int,
) -> Violation:
    """Some operation of `slot` returned before one that must come first was called."""
    returned = min(clusters.ret[slot], clusters.first_read[slot])
    one = _op_returning(operations, returned)
    value = _value(clusters, slot)
    return Violation(
        f"op {one} had {value} at hand and returned before op {latest} was invoked, "
        f"which must come before {value}",
        tuple(sorted({one, latest})),
    )


def _unreached(clusters: _Clusters, consumer: dict[int, int]) -> Violation:
    """Follow a cas backwards until it comes round, or to a value that was never there."""
    reached = set()
    for root in range(len(clusters.call)):
        slot: int | None = root
        if clusters.expects[root] < 0 and clusters.call[root] != _NEVER:
            while slot is not None:
                reached.add(slot)
                slot = consumer.get(slot)
    slot = next(after for before, after in consumer.items() if after not in reached)
    path: list[int] = []
    while slot not in path and clusters.call[slot] != _NEVER and clusters.expects[slot] >= 0:
        path.append(slot)
        slot = clusters.expects[slot]
    ops = tuple(sorted(clusters.call[one] for one in path))
    if slot in path:
        ops = tuple(sorted(clusters.call[one] for one in path[path.index(slot) :]))
        named = ", ".join(f"op {op}" for op in ops[:4])
        return Violation(f"{named}: each replaced what another of them left", ops)
    return Violation(
        f"op {clusters.call[path[-1]]} replaced {_value(clusters, slot)}, "
        "which no operation ever leaves",
        ops,
    )


def _overlap(
    operations: Sequence[Operation],
    clusters: _Clusters,
    consumer: dict[int, int],
    one: int,
    other: int,
) -> Violation:
    """Tell of two chains, each of which needs the register at the same time."""
    ops: list[int] = []
    words: list[str] = []
    for root in (one, other):
        slot: int | None = root
        first, last, names = FOREVER, -1, []
        while slot is not None:
            first = min(first, clusters.ret[slot], clusters.first_read[slot])
            last = max(last, clusters.call[slot], clusters.last_read[slot])
            names.append(_value(clusters, slot))
            slot = consumer.get(slot)
        done = _op_returning(operations, first)
        ops += [done, last]
        name = names[0] if len(names) == 1 else f"{names[0]} and what came of it by cas"
        since = "from the start" if done < 0 else f"by op {done}, which returned at {first}"
        words.append(f"{name} was there {since}, and still for op {last}")
    return Violation("; ".join(words), tuple(sorted({op for op in ops if op >= 0})))


def _op_returning(operations: Sequence[Operation], ret: int) -> int:
    return next((op.call for op in operations if op.ret == ret), -1)
