"""Mutexes with an owner: times at which somebody held it cannot overlap, and so have an order."""

from collections.abc import Sequence

from labrys.checkers.distinct.outcome import (
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
)
from labrys.checkers.history import FOREVER, Operation


def check(operations: Sequence[Operation]) -> Outcome:
    """Judge acquires and releases of a mutex that is free at first, in order of invocation.

    Between the return of its acquire and the call of its release a process certainly holds the
    mutex. Where two such times are disjoint, only one order of the two is possible; it remains to
    see that every operation returns after the last call before it. O(n log n).
    """
    holds: list[tuple[int, Operation, Operation | None]] = []
    holding: dict[int | str, int] = {}
    for operation in operations:
        if operation.is_fail:
            continue
        if operation.ret is None:
            return NotApplicable("an operation crashed: nobody knows who holds the mutex")
        process = operation.process
        if operation.f == "acquire":
            if process in holding:
                held = holds[holding[process]][1]
                return Violation(
                    f"process {process} acquired it (op {operation.call}) while it held it "
                    f"(op {held.call})",
                    (held.call, operation.call),
                )
            holding[process] = len(holds)
            holds.append((operation.ret, operation, None))
        elif process not in holding:
            return Violation(
                f"process {process} released it (op {operation.call}) without holding it",
                (operation.call,),
            )
        else:
            place = holding.pop(process)
            holds[place] = (*holds[place][:2], operation)
    holds.sort(key=lambda hold: hold[0])
    latest = -1
    for place, (since, acquire, release) in enumerate(holds):
        if place:
            _, other, before = holds[place - 1]
            if (FOREVER if before is None else before.call) > since:
                return Violation(
                    f"process {acquire.process} acquired it (op {acquire.call}) while process "
                    f"{other.process} held it (op {other.call})",
                    tuple(sorted((other.call, acquire.call))),
                )
        for one in (acquire, release):
            if one is None:
                continue
            ret = one.ret
            assert ret is not None, "crashed ones were refused above"
            if ret <= latest:
                return Violation(
                    f"op {one.call} returned before op {latest} began, which had to happen first",
                    tuple(sorted((one.call, latest))),
                )
            latest = max(latest, one.call)
    return Linearizable()
