"""FIFO queues with distinct values: five patterns, and no search.

A queue in which no value is enqueued twice is linearizable iff none of a few patterns occurs
(Henzinger, Sezgin and Vafeiadis, CONCUR 2013; Bouajjani et al., ICALP 2015): a value that nobody
enqueued, or that came out too early, or twice; two values that came out in the wrong order; a value
that was passed over; and an empty queue while something was certainly in it.

A crashed enqueue whose value never came out need not have happened. A crashed dequeue may have
eaten one value that is missing. O(n log n).
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from labrys.checkers.distinct.outcome import (
    FOREVER,
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
    keyed,
    told,
)
from labrys.checkers.history import Operation
from labrys.checkers.op import OpType

_NEVER = -1


def check(operations: Sequence[Operation]) -> Outcome:
    """Judge enqueues and dequeues of a queue that is empty at first, in order of invocation."""
    slots: dict[Any, int] = {}
    put_call: list[int] = []
    put_ret: list[int] = []
    take_call: list[int] = []
    take_ret: list[int] = []
    in_order: list[int] = []
    """The values in order of their enqueue's call."""
    crashed_takes: list[int] = []
    empties: list[tuple[int, int]] = []
    early: Violation | None = None
    ok, fail = OpType.OK, OpType.FAIL
    for operation in operations:
        invoke = operation.invoke
        completion = operation.completion
        returned = FOREVER
        if completion is not None:
            if completion.type is ok:
                returned = completion.index
            elif completion.type is fail:
                continue
        is_put = invoke.f == "enqueue"
        if is_put:
            value = invoke.value
        elif returned == FOREVER or completion is None:
            crashed_takes.append(invoke.index)
            continue
        else:
            value = completion.value
            if value is None:
                empties.append((invoke.index, returned))
                continue
        if type(value) is not int:
            value = keyed(value)
        slot = slots.get(value)
        if slot is None:
            slot = slots[value] = len(put_call)
            put_call.append(_NEVER)
            put_ret.append(FOREVER)
            take_call.append(FOREVER)
            take_ret.append(FOREVER)
        if is_put:
            if put_call[slot] != _NEVER:
                return NotApplicable(f"{told(value)} is enqueued twice")
            put_call[slot] = invoke.index
            put_ret[slot] = returned
            in_order.append(slot)
        elif take_call[slot] != FOREVER:
            if early is None:
                first, second = sorted((take_call[slot], invoke.index))
                early = Violation(
                    f"{told(value)} came out twice, of op {first} and of op {second}",
                    (first, second),
                )
        else:
            take_call[slot] = invoke.index
            take_ret[slot] = returned
    if early is not None:
        return early

    def named(slot: int) -> str:
        return told(next(value for value, known in slots.items() if known == slot))

    for slot, called in enumerate(put_call):
        if called == _NEVER:
            at = take_call[slot]
            return Violation(f"op {at} took {named(slot)}, which nobody put in", (at,))
        if take_ret[slot] < called:
            return Violation(
                f"{named(slot)} came out (op {take_call[slot]}) before it was put in (op {called})",
                (take_call[slot], called),
            )
    lost = [s for s in in_order if take_call[s] == FOREVER and put_ret[s] != FOREVER]
    if lost and crashed_takes and empties:
        return NotApplicable("missing values, crashed dequeues and empty ones come together")
    if lost and crashed_takes:
        failure = _eaten(in_order, lost, put_call, put_ret, take_ret, crashed_takes)
        if failure is not None:
            slot, passed = failure
            return Violation(
                f"{named(slot)} (put in by op {put_call[slot]}) never came out, though "
                f"{named(passed)}, put in later by op {put_call[passed]}, did (op "
                f"{take_call[passed]}); there are not enough crashed dequeues to have taken it",
                (put_call[slot], put_call[passed], take_call[passed]),
            )
    # Who was in before y, and was taken last of those?
    excused = set(lost) if crashed_takes else set()
    by_return = sorted(
        (put_ret[s], s) for s in in_order if put_ret[s] != FOREVER and s not in excused
    )
    place, latest, latest_slot = 0, -1, -1
    for slot in in_order:
        called = put_call[slot]
        while place < len(by_return) and by_return[place][0] < called:
            before = by_return[place][1]
            if take_call[before] > latest:
                latest, latest_slot = take_call[before], before
            place += 1
        if take_ret[slot] < latest:
            return _out_of_order(named, latest_slot, slot, put_call, take_call)
    return _not_empty(named, empties, put_call, put_ret, take_call)


def _out_of_order(
    named: Any, first: int, second: int, put_call: Sequence[int], take_call: Sequence[int]
) -> Violation:
    story = f"{named(first)} was in (op {put_call[first]}) before {named(second)} was put in "
    story += f"(op {put_call[second]}), "
    if take_call[first] == FOREVER:
        story += f"yet {named(second)} came out (op {take_call[second]}) and the other never did"
        ops = [put_call[first], put_call[second], take_call[second]]
    else:
        story += (
            f"yet {named(second)} came out (op {take_call[second]}) before anybody began to take "
            f"the other (op {take_call[first]})"
        )
        ops = [put_call[first], put_call[second], take_call[second], take_call[first]]
    return Violation(story, tuple(sorted(ops)))


def _eaten(
    in_order: Sequence[int],
    lost: Sequence[int],
    put_call: Sequence[int],
    put_ret: Sequence[int],
    take_ret: Sequence[int],
    crashed_takes: Sequence[int],
) -> tuple[int, int] | None:
    """Give every lost value that must be gone in time a crashed dequeue called before that.

    Return a value for which none is left, with the one that had to wait for it.
    """
    calls = [put_call[slot] for slot in in_order]
    soonest: list[tuple[int, int]] = [(FOREVER, -1)]
    for slot in reversed(in_order):
        soonest.append(min(soonest[-1], (take_ret[slot], slot)))
    soonest.reverse()
    deadlines = []
    for slot in lost:
        deadline, waiting = soonest[bisect_right(calls, put_ret[slot])]
        if deadline != FOREVER:
            deadlines.append((deadline, slot, waiting))
    deadlines.sort()
    for place, (deadline, slot, waiting) in enumerate(deadlines):
        if place >= len(crashed_takes) or crashed_takes[place] > deadline:
            return slot, waiting
    return None


def _not_empty(
    named: Any,
    empties: Sequence[tuple[int, int]],
    put_call: Sequence[int],
    put_ret: Sequence[int],
    take_call: Sequence[int],
) -> Outcome:
    """See that nobody found the queue empty while something was certainly in it all along."""
    if not empties:
        return Linearizable()
    sure = sorted((ret, take_call[s], s) for s, ret in enumerate(put_ret) if ret < take_call[s])
    merged: list[tuple[int, int, list[int]]] = []
    for start, end, slot in sure:
        if merged and start < merged[-1][1]:
            before, until, slots = merged[-1]
            if end > until:
                merged[-1] = (before, end, [*slots, slot] if len(slots) < 3 else slots)
        else:
            merged.append((start, end, [slot]))
    starts = [start for start, _, _ in merged]
    for call, ret in empties:
        place = bisect_right(starts, call) - 1
        if place >= 0 and ret < merged[place][1]:
            slots = merged[place][2]
            inside = ", then ".join(named(slot) for slot in slots)
            ops = (call, *(put_call[slot] for slot in slots))
            return Violation(
                f"op {call} found the queue empty, though {inside} was in it all the while",
                tuple(sorted(ops)),
            )
    return Linearizable()
