"""Lists and sets that only grow and are read as a whole: the reads say in what order.

Both go by one primitive. When the operations stand in groups that must follow each other, there is
an order iff every operation returns after the last call in any group before its own.
O(n log n) and the size of what was read.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from labrys.checkers.distinct.outcome import (
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
)
from labrys.checkers.history import FOREVER, Operation
from labrys.checkers.text import as_key, told

_encode = msgspec.json.Encoder(order="sorted").encode


class _Growth:
    """What was put in, by element, and the reads: (size, call, return, what was read)."""

    def __init__(self) -> None:
        self.calls: dict[Any, int] = {}
        self.returns: dict[Any, int] = {}
        self.reads: list[tuple[int, int, int, list[Any]]] = []
        self.repeated: Any = None

    def collect(self, operations: Sequence[Operation], f: str) -> None:
        for operation in operations:
            if operation.is_fail:
                continue
            ret = operation.ret
            if operation.invoke.f == f:
                element = as_key(operation.invoke.value)
                if element in self.calls:
                    self.repeated = element
                self.calls[element] = operation.invoke.index
                self.returns[element] = FOREVER if ret is None else ret
            elif ret is not None:
                whole = operation.value or []
                self.reads.append((len(whole), operation.invoke.index, ret, whole))
        self.reads.sort(key=lambda read: read[:2])

    def unread(self, read: set[Any], latest: int, last: int) -> Violation | None:
        """Return the violation of an element that was in before something that op `last` saw."""
        for element, ret in self.returns.items():
            if ret <= latest and element not in read:
                return Violation(
                    f"{told(element)} was in (op {self.calls[element]}) before op {latest} began, "
                    f"and no read has it, not even op {last}",
                    tuple(sorted({self.calls[element], latest, last})),
                )
        return None


def check_list(operations: Sequence[Operation], initial: Sequence[Any] = ()) -> Outcome:
    """Judge appends to a list and whole reads of it, in order of invocation."""
    growth = _Growth()
    growth.collect(operations, "append")
    if growth.repeated is not None:
        return NotApplicable(f"{told(growth.repeated)} is appended twice")
    start = [as_key(element) for element in initial]
    if any(element in growth.calls for element in start) or len(set(start)) < len(start):
        return NotApplicable("an element is there at the start and appended as well")
    if not growth.reads:
        return Linearizable()
    longest = growth.reads[-1]
    whole = _encode(longest[3])
    for size, call, _, elements in growth.reads:
        # Compared as text: 1, true and 1.0 are three elements.
        text = _encode(elements)
        if size and (text[:-1] != whole[: len(text) - 1] or whole[len(text) - 1] not in b",]"):
            return Violation(
                f"op {call} and op {longest[1]} disagree about the order: "
                f"one read is no beginning of the other",
                tuple(sorted((call, longest[1]))),
            )
    elements = [as_key(element) for element in longest[3]]
    if elements[: len(start)] != start and len(elements) >= len(start):
        return Violation(
            f"op {longest[1]} read a list that does not begin as it began", (longest[1],)
        )
    latest, size = -1, len(start)
    if growth.reads[0][0] < size:
        return Violation(
            f"op {growth.reads[0][1]} read fewer elements than there were at first",
            (growth.reads[0][1],),
        )
    known = set(start)
    position = 0
    for length in range(size, len(elements) + 1):
        if length > size:
            element = elements[length - 1]
            called = growth.calls.get(element)
            if called is None:
                return Violation(
                    f"op {longest[1]} read {told(element)}, which nobody appended", (longest[1],)
                )
            if element in known:
                return Violation(f"op {longest[1]} read {told(element)} twice", (longest[1],))
            known.add(element)
            if growth.returns[element] <= latest:
                return Violation(
                    f"{told(element)} was in (op {called}) before op {latest} began, "
                    "which the reads put before it",
                    tuple(sorted({called, latest, longest[1]})),
                )
            latest = max(latest, called)
        begins = latest
        while position < len(growth.reads) and growth.reads[position][0] == length:
            _, call, ret, _ = growth.reads[position]
            if ret <= begins:
                return Violation(
                    f"op {call} returned with {length} elements before op {begins} began, which "
                    "had to happen first",
                    tuple(sorted({call, begins, longest[1]})),
                )
            latest = max(latest, call)
            position += 1
    return growth.unread(known, latest, longest[1]) or Linearizable()


def check_set(operations: Sequence[Operation], initial: Sequence[Any] = ()) -> Outcome:
    """Judge adds to a set and whole reads of it, in order of invocation."""
    growth = _Growth()
    growth.collect(operations, "add")
    if growth.repeated is not None:
        return NotApplicable(f"{told(growth.repeated)} is added twice")
    before = {as_key(element) for element in initial}
    if before & growth.calls.keys():
        return NotApplicable("an element is there at the start and added as well")
    latest, before_call = -1, -1
    calls, returns = growth.calls, growth.returns
    begins = latest
    is_first = True
    for size, call, ret, read in growth.reads:
        now = set(read) if set(map(type, read)) <= {int} else {as_key(e) for e in read}
        if len(now) < size:
            return Violation(f"op {call} read an element twice", (call,))
        if now != before or is_first:
            if not before <= now:
                missing = told(min(before - now, key=str))
                if before_call < 0:
                    return Violation(f"op {call} did not read {missing}, which was there", (call,))
                return Violation(
                    f"op {before_call} read {missing}, op {call} did not, and that one read "
                    f"something that op {before_call} did not: neither can have been first",
                    tuple(sorted((before_call, call))),
                )
            begins = latest
            for element in now - before:
                called = calls.get(element)
                if called is None:
                    return Violation(f"op {call} read {told(element)}, which nobody added", (call,))
                if returns[element] <= begins:
                    return Violation(
                        f"{told(element)} was in (op {called}) before op {begins} began, which "
                        "did not see it",
                        tuple(sorted({called, begins, call, before_call} - {-1})),
                    )
                latest = max(latest, called)
            begins = latest
            before, before_call, is_first = now, call, False
        if ret <= begins:
            return Violation(
                f"op {call} returned before op {begins} began, which had to happen first",
                tuple(sorted({call, begins, before_call})),
            )
        latest = max(latest, call)
    last = max(before_call, 0)
    return growth.unread(before, latest, last) or Linearizable()
