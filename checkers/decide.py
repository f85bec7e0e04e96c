"""The driver of the search: valid fast, invalid from few events, never a blow-up.

A short history is given to the exact search first: most cost about one move an operation. All
others, and what is too hard for that, are walked through with a narrow beam, which proves `valid`
if it survives. Where it dies, it starts again a little earlier and wider; and if it dies there
again, a window around that event is asked for a proof of `invalid` that does not need the rest of
the history. Only when all of that fails is the exact search given what budget is left.
"""

from collections import deque
from typing import Final, NamedTuple

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.search import Search, Stuck, Survived

_SHORT: Final = 512
"""Histories of so many operations are tried exactly first."""
_FIRST_MOVES_PER_STEP: Final = 16
_FIRST_MOVES: Final = 2_000
_BEAM: Final = 4
_EVENTS_PER_CHECKPOINT: Final = 64
_CHECKPOINTS: Final = 256
_WIDE_EVENTS: Final = 256
"""How long after its death a beam stays wide."""
_LEVELS: Final = 6
_WINDOW_EVENTS: Final = 16
_WINDOW_MOVES: Final = 4_000


class GaveUp(NamedTuple):
    """No verdict: which limit was reached, where, and what had to be placed there."""

    spent: BudgetSpent
    event: int
    owed: tuple[int, ...]
    """Steps that were open, the first to return first."""


def decide(search: Search, budget: Budget) -> Survived | Stuck | GaveUp:
    """Decide whether the steps of a fresh `search` are linearizable.

    `Stuck` always has a proof: its `exact` is true. The verdict depends on the moves that `budget`
    allows and on nothing else, unless time or memory end first.
    """
    furthest = search
    try:
        if len(search.steps) <= _SHORT:
            moves = _FIRST_MOVES + _FIRST_MOVES_PER_STEP * len(search.steps)
            furthest = exact = search.copy(budget.part(moves))
            try:
                return exact.run() or exact.survived()
            except BudgetSpent:
                budget.poll()
        driven = _driven(search.copy(budget), budget)
        if not isinstance(driven, Search):
            return driven
        furthest = exact = search.copy(budget)
        return exact.run() or exact.survived()
    except _Spent as end:
        return GaveUp(end.spent, end.search.event, tuple(end.search.owed()))
    except BudgetSpent as spent:
        return GaveUp(spent, furthest.event, tuple(furthest.owed()))


class _Spent(Exception):
    def __init__(self, spent: BudgetSpent, search: Search) -> None:
        super().__init__()
        self.spent = spent
        self.search = search


def _driven(search: Search, budget: Budget) -> Survived | Stuck | Search:
    """Walk a beam through the history; a `Search` means that it ended without a proof."""
    search.beam = _BEAM
    checkpoints = deque([search.copy()], maxlen=_CHECKPOINTS)
    level, wide_until = 0, -1
    while True:
        try:
            stuck = search.run(search.place + _EVENTS_PER_CHECKPOINT)
        except BudgetSpent as spent:
            raise _Spent(spent, search) from None
        if stuck is None:
            if search.is_over:
                return search.survived()
            if level and search.place > wide_until:
                level, search.beam = 0, _BEAM
            checkpoints.append(search.copy())
            continue
        if stuck.exact:
            return stuck
        level += 1
        if level > 1:
            try:
                start = _refuted(search.place, level, checkpoints, budget)
            except BudgetSpent as spent:
                raise _Spent(spent, search) from None
            if start is not None:
                return stuck._replace(exact=True, start=start)
        if level > _LEVELS:
            return search
        back = search.place - _EVENTS_PER_CHECKPOINT * 3 ** (level - 1)
        wide_until = search.place + _WIDE_EVENTS
        while len(checkpoints) > 1 and checkpoints[-1].place > back:
            checkpoints.pop()
        search = checkpoints[-1].copy()
        search.beam = _BEAM * 4**level


def _refuted(place: int, level: int, checkpoints: deque[Search], budget: Budget) -> int | None:
    """Return the event from which a window up to `place` is a proof of `invalid` by itself."""
    back = place - _WINDOW_EVENTS * 4**level
    start = checkpoints[0]
    for checkpoint in checkpoints:
        if checkpoint.place > back:
            break
        start = checkpoint
    part = budget.part(_WINDOW_MOVES * 4 ** (level - 2))
    try:
        window = start.window(place, part)
        refuted = window is not None and window.run(place) is not None
    except BudgetSpent:
        budget.poll()  # its own moves are no reason to stop here, time and memory are
        refuted = False
    budget.spend(part.moves)
    return start.event + 1 if refuted else None
