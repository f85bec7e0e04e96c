"""The core of a violation: few operations that contradict each other all by themselves.

Nothing is added to the history, it is only weakened, so what remains is a proof. First the past is
forgotten: any state may have been there. Then single operations are: a pure one is removed, an
update may then have happened at any time or never. Removing an update could make a contradiction
of our own, for then nobody would have written what was read.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.history import FOREVER
from labrys.checkers.search import Stuck
from labrys.checkers.steps import Steps
from labrys.checkers.subject import Subject

_Kept: TypeAlias = list[tuple[int, bool]]
"""Steps in order of call, and whether each certainly happened."""


class Core(NamedTuple):
    """Steps that contradict each other, whatever happened before event `start`."""

    numbers: list[int]
    """In order of call."""
    start: int | None
    """None: only together with the state at the very beginning."""


def minimal_core(subject: Subject, stuck: Stuck, budget: Budget) -> Core:
    """Return few steps of `subject` that suffice for the contradiction that `stuck` ran into.

    With the budget spent they are not as few as could be, but a proof all the same.
    """
    call, ret = subject.steps.call, subject.steps.ret
    end = stuck.event
    first = 0 if stuck.start is None else stuck.start
    kept: _Kept = [(n, ret[n] <= end) for n in range(bisect_left(call, end)) if ret[n] >= first]
    start = stuck.start

    def is_wrong(some: _Kept, start: int | None) -> bool:
        budget.spend(len(some))
        return _is_wrong(subject, _weaker(subject.steps, some), start, budget)

    try:
        start = _latest_start(subject, kept, start, is_wrong)
        if start is not None:
            kept = _within(subject.steps, kept, start)
        size = max(1, sum(certain for _, certain in kept) // 2)
        while True:
            certain = [n for n, is_certain in kept if is_certain]
            smaller = False
            for place in range(0, len(certain), size):
                weaker = _weakened(subject, kept, set(certain[place : place + size]))
                if is_wrong(weaker, start):
                    kept, smaller = weaker, True
            if size == 1 and not smaller:
                break
            size = max(1, size // 2)
    except BudgetSpent:
        pass  # a larger proof is a proof too
    return Core([n for n, certain in kept if certain], start)


def _is_wrong(subject: Subject, steps: Steps, start: int | None, budget: Budget) -> bool:
    search = subject.search(budget, steps)
    if start is None:
        return search.run() is not None
    begin = bisect_left(search.events, start, key=lambda number: _event(steps, number))
    search.run(begin)
    window = search.window(len(search.events), budget)
    return window is not None and window.run() is not None


def _event(steps: Steps, number: int) -> int:
    return steps.call[number] if number >= 0 else steps.ret[~number]


def _weaker(steps: Steps, some: _Kept) -> Steps:
    chosen = steps.chosen(number for number, _ in some)
    for place, (_, certain) in enumerate(some):
        if not certain:
            chosen.ret[place] = FOREVER
    return chosen


def _within(steps: Steps, kept: _Kept, start: int) -> _Kept:
    return [(n, certain) for n, certain in kept if not certain or steps.ret[n] >= start]


def _latest_start(
    subject: Subject,
    kept: _Kept,
    known: int | None,
    is_wrong: Callable[[_Kept, int | None], bool],
) -> int | None:
    """Return the latest event from which a window is a proof; None if it takes the beginning."""
    steps = subject.steps
    if subject.model.states(steps.actions()) is None:
        return None
    events: Sequence[int] = sorted(
        [steps.call[n] for n, _ in kept] + [steps.ret[n] for n, certain in kept if certain]
    )
    if known is not None:
        events = events[bisect_left(events, known) :]

    def proves(length: int) -> bool:
        start = events[-length]
        return is_wrong(_within(steps, kept, start), start)

    length = 2
    while length < len(events) and not proves(length):
        length *= 2
    if length >= len(events):
        if known is None:
            return None
        length = len(events)
    too_short, enough = length // 2, length
    while too_short + 1 < enough:
        middle = (too_short + enough) // 2
        if proves(middle):
            enough = middle
        else:
            too_short = middle
    return events[-enough]


def _weakened(subject: Subject, kept: _Kept, chosen: set[int]) -> _Kept:
    """Make the steps `chosen` optional. A pure one that is optional says nothing."""
    pure = subject.model.pure
    return [
        (n, certain and n not in chosen)
        for n, certain in kept
        if n not in chosen or subject.steps.action(n).f not in pure
    ]
