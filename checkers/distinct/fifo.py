"""FIFO queues with distinct values: five patterns, and no search.

A queue in which no value is enqueued twice is linearizable iff none of a few patterns occurs
(Henzinger, Sezgin and Vafeiadis, CONCUR 2013; Bouajjani et al., ICALP 2015): a value that nobody
enqueued, or that came out too early, or twice; two values that came out in the wrong order; a value
that was passed over; and an empty queue while something was certainly in it.

A crashed enqueue whose value never came out need not have happened. A crashed dequeue may have
eaten one value that is missing. O(n log n).
"""

from bisect import bisect_right
from collections.abc import Sequence, Set

from labrys.checkers.distinct.contents import Contents, collect, judged
from labrys.checkers.distinct.outcome import Linearizable, Outcome, Violation
from labrys.checkers.history import FOREVER, Operation


def check(operations: Sequence[Operation]) -> Outcome:
    """Judge enqueues and dequeues of a queue that is empty at first, in order of invocation."""
    contents = collect(operations, "enqueue", "dequeue")
    if not isinstance(contents, Contents):
        return contents
    if contents.crashed_takes and not contents.empties and not contents.repeated:
        return _eaten(contents) or _out_of_order(contents, set(contents.lost())) or Linearizable()
    return judged(contents, _out_of_order)


def _in_order(contents: Contents) -> list[int]:
    """Return the values in order of their enqueue's call."""
    return sorted(range(len(contents.put_call)), key=contents.put_call.__getitem__)


def _out_of_order(contents: Contents, excused: Set[int] = frozenset()) -> Violation | None:
    """Return a value that was in before another one and came out too late, or not at all.

    Values that are `excused` may be gone at any time.
    """
    _, put_call, put_ret, take_call, take_ret, *_ = contents
    in_order = _in_order(contents)
    # Who was in before y, and was taken last of those?
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
            return _told(contents, latest_slot, slot)
    return None


def _told(contents: Contents, first: int, second: int) -> Violation:
    name, put_call, take_call = contents.name, contents.put_call, contents.take_call
    story = f"{name(first)} was in (op {put_call[first]}) before {name(second)} was put in "
    story += f"(op {put_call[second]}), "
    ops = [put_call[first], put_call[second], take_call[second]]
    if take_call[first] == FOREVER:
        story += f"yet {name(second)} came out (op {take_call[second]}) and the other never did"
    else:
        story += (
            f"yet {name(second)} came out (op {take_call[second]}) before anybody began to take "
            f"the other (op {take_call[first]})"
        )
        ops.append(take_call[first])
    return Violation(story, tuple(sorted(ops)))


def _eaten(contents: Contents) -> Violation | None:
    """Give every lost value that must be gone in time a crashed dequeue called before that.

    Return the violation of a value for which none is left.
    """
    _, put_call, put_ret, take_call, take_ret, crashed_takes, *_ = contents
    in_order = _in_order(contents)
    calls = [put_call[slot] for slot in in_order]
    soonest: list[tuple[int, int]] = [(FOREVER, -1)]
    for slot in reversed(in_order):
        soonest.append(min(soonest[-1], (take_ret[slot], slot)))
    soonest.reverse()
    deadlines = []
    for slot in contents.lost():
        deadline, waiting = soonest[bisect_right(calls, put_ret[slot])]
        if deadline != FOREVER:
            deadlines.append((deadline, slot, waiting))
    deadlines.sort()
    for place, (deadline, slot, waiting) in enumerate(deadlines):
        if place >= len(crashed_takes) or crashed_takes[place] > deadline:
            return Violation(
                f"{contents.name(slot)} (put in by op {put_call[slot]}) never came out, though "
                f"{contents.name(waiting)}, put in later by op {put_call[waiting]}, did (op "
                f"{take_call[waiting]}); there are not enough crashed dequeues to have taken it",
                (put_call[slot], put_call[waiting], take_call[waiting]),
            )
    return None
