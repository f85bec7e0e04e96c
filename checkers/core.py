"""The core of a violation: few operations that contradict each other all by themselves.

Nothing is added to the history, it is only weakened, so what remains is a proof. First the past is
forgotten: any state may have been there. Then single operations are: a pure one is removed, an
update may then have happened at any time or never. Removing an update could make a contradiction
of our own, for then nobody would have written what was read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.models import Model
from labrys.checkers.search import Search, Step, Stuck, events_of, within


class Core(NamedTuple):
    """Steps that contradict each other, whatever happened before event `start`."""

    numbers: list[int]
    """In order of call."""
    start: int | None
    """None: only together with the state at the very beginning."""


def minimal_core(model: Model, steps: Sequence[Step], stuck: Stuck, budget: Budget) -> Core:
    """Return few of `steps` that suffice for the contradiction that `stuck` ran into.

    With the budget spent they are not as few as could be, but a proof all the same.
    """
    number_of = {step.call: number for number, step in enumerate(steps)}
    kept = [
        step if step.ret is not None and step.ret <= stuck.event else step._replace(ret=None)
        for step in steps
        if step.call < stuck.event
    ]
    start: int | None = None

    def is_wrong(some: Sequence[Step], start: int | None) -> bool:
        if start is not None:
            some = within(some, start, stuck.event)
        budget.spend(len(some))
        search = Search(model, some, budget)
        outcome = search.run() if start is None else search.run_window(start, stuck.event)
        return isinstance(outcome, Stuck)

    try:
        start = _latest_start(model, kept, is_wrong)
        if start is not None:
            kept = within(kept, start, stuck.event)
        size = max(1, sum(step.ret is not None for step in kept) // 2)
        while True:
            certain = [step.call for step in kept if step.ret is not None]
            smaller = False
            for place in range(0, len(certain), size):
                weaker = _weakened(model, kept, set(certain[place : place + size]))
                if is_wrong(weaker, start):
                    kept, smaller = weaker, True
            if size == 1 and not smaller:
                break
            size = max(1, size // 2)
    except BudgetSpent:
        pass  # a larger proof is a proof too
    return Core([number_of[step.call] for step in kept if step.ret is not None], start)


def _latest_start(
    model: Model, steps: Sequence[Step], is_wrong: Callable[[Sequence[Step], int | None], bool]
) -> int | None:
    """Return the latest event from which a window is a proof; None if it takes the beginning."""
    if model.states(step.action for step in steps) is None:
        return None
    events = [event for event, _ in events_of(steps)]
    length = 2
    while length < len(events) and not is_wrong(steps, events[-length]):
        length *= 2
    if length >= len(events):
        return None
    too_short, enough = length // 2, length
    while too_short + 1 < enough:
        middle = (too_short + enough) // 2
        if is_wrong(steps, events[-middle]):
            enough = middle
        else:
            too_short = middle
    return events[-enough]


def _weakened(model: Model, steps: Sequence[Step], chosen: set[int]) -> list[Step]:
    """Make the steps called at `chosen` optional. A pure one that is optional says nothing."""
    return [
        step._replace(ret=None) if step.call in chosen else step
        for step in steps
        if step.call not in chosen or step.action.f not in model.pure
    ]
