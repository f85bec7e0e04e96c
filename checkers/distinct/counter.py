"""Counters that grow by one: keep the count as low as the returns allow."""

import heapq
from collections.abc import Sequence
from typing import Any, Final

from labrys.checkers.distinct.outcome import (
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
)
from labrys.checkers.history import FOREVER, Operation

_TOLD_MAX: Final = 9
_ADDS: Final = ("add", "inc", "increment")


def check(operations: Sequence[Operation], initial: int = 0) -> Outcome:
    """Judge increments by one and reads of a counter, in order of invocation.

    The count rises only when it must: at the return of an increment that was not counted yet, or of
    a read that saw more. Then the open increments that return first are counted first, crashed ones
    last. A read is settled as soon as the count passes what it saw. This is an exchange argument:
    counting later, or another one, never helps. O(n log n).
    """
    events: list[tuple[int, int, bool]] = []
    kept: list[tuple[bool, Any, int, int]] = []
    for operation in operations:
        if operation.is_fail:
            continue
        is_read = operation.invoke.f == "read"
        ret = operation.ret
        if is_read and ret is None:
            continue
        value = operation.value if is_read else operation.invoke.value
        if not is_read and (operation.invoke.f not in _ADDS or value not in (None, 1)):
            return NotApplicable("the counter changes by more than one at a time")
        number = len(kept)
        kept.append((is_read, value, operation.invoke.index, FOREVER if ret is None else ret))
        events.append((operation.invoke.index, number, True))
        if ret is not None:
            events.append((ret, number, False))
    events.sort()
    count = initial
    crashed = 0
    open_adds: list[tuple[int, int]] = []
    counted: set[int] = set()
    waiting: dict[int, list[int]] = {}
    settled: set[int] = set()
    raised: set[int] = set()
    """The reads that made the count rise."""
    for _, number, is_call in events:
        is_read, value, call, ret = kept[number]
        if is_call:
            if not is_read:
                if ret == FOREVER:
                    crashed += 1
                else:
                    heapq.heappush(open_adds, (ret, number))
            elif value == count:
                settled.add(number)
            else:
                waiting.setdefault(value, []).append(number)
            continue
        if is_read:
            if number in settled:
                continue
            if value < count:
                # What had to be counted by then: by its own return, or because somebody read it.
                before = [
                    (other_ret, other_call)
                    for other, (other_reads, _, other_call, other_ret) in enumerate(kept)
                    if other_ret < call and (other in raised or not other_reads)
                ]
                ops = [other_call for _, other_call in sorted(before)[-_TOLD_MAX:]]
                return Violation(
                    f"op {call} read {value}, but the count was at least {count} when it began",
                    (*ops, call),
                )
            goal = value
            raised.add(number)
        elif number in counted:
            continue
        else:
            goal = count + 1
        while count < goal:
            while open_adds and open_adds[0][1] in counted:
                heapq.heappop(open_adds)
            if open_adds:
                counted.add(heapq.heappop(open_adds)[1])
            elif crashed:
                crashed -= 1
            else:
                return Violation(
                    f"op {call} read {value}, but the count was no more than {count} when it "
                    "returned",
                    (call,),
                )
            count += 1
            settled.update(waiting.pop(count, ()))
    return Linearizable()
