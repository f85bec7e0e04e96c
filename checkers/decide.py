"""The driver of the search: valid fast, invalid from few events, never a blow-up.

Most histories are decided by the exact search at a cost near one move an operation. What is not,
because crashed operations over few values can be spent in too many ways, is tried from both sides:
a beam can prove `valid` without looking at most of them; where it dies, a window around that event
can prove `invalid` without looking at the rest of the history. Only when both fail is the
exact search given all the budget there is.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.models import Model
from labrys.checkers.search import Search, Step, Stuck, Survived, events_of, within

_FIRST_MOVES_PER_STEP: Final = 16
_FIRST_MOVES: Final = 2_000
_BEAMS: Final = (4, 32, 256)
_WINDOWS: Final = (32, 128, 512)
"""How many events of this object before the death of a beam a window begins."""
_MOVES_PER_WINDOW: Final = 4_000
"""For the first window; each next one gets four times as much."""


class GaveUp(NamedTuple):
    """No verdict: which limit was reached, where, and what had to be placed there."""

    spent: BudgetSpent
    event: int
    owed: tuple[int, ...]
    """Steps that were open, the first to return first."""


def decide(model: Model, steps: Sequence[Step], budget: Budget) -> Survived | Stuck | GaveUp:
    """Decide whether `steps` are linearizable. `Stuck` always has a proof: its `exact` is true."""
    moves = _FIRST_MOVES + _FIRST_MOVES_PER_STEP * len(steps)
    try:
        return Search(model, steps, budget.part(moves)).run()
    except BudgetSpent:
        pass
    last = Search(model, steps, budget)
    try:
        for beam in _BEAMS:
            last = Search(model, steps, budget)
            outcome = last.run(beam)
            if isinstance(outcome, Survived) or outcome.exact:
                return outcome
            if _is_refuted_before(outcome.event, model, steps, budget):
                return outcome._replace(exact=True)
        last = Search(model, steps, budget)
        return last.run()
    except BudgetSpent as spent:
        return GaveUp(spent, last.event, tuple(last.owed()))


def _is_refuted_before(end: int, model: Model, steps: Sequence[Step], budget: Budget) -> bool:
    """Whether a window that ends at event `end` is a proof of `invalid` by itself."""
    if model.states(step.action for step in steps) is None:
        return False
    events = [event for event, _ in events_of(steps) if event <= end]
    moves = _MOVES_PER_WINDOW
    for length in _WINDOWS:
        part = budget.part(moves)
        start = events[max(0, len(events) - length)]
        try:
            search = Search(model, within(steps, start, end), part)
            if isinstance(search.run_window(start, end), Stuck):
                return True
        except BudgetSpent:
            budget.poll()  # its own moves are no reason to stop here, time and memory are
        budget.spend(part.moves)
        moves *= 4
    return False
