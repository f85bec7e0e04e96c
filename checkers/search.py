"""Just-in-time linearization over an antichain: the general engine.

The problem. Find an order of the operations that respects real time (an operation that returned
before another was called comes first) and that the model accepts. Crashed operations may come
anywhere after their call, or never. This is NP-complete, so the engine lives off doing little.

The idea. Walk through the events in time with the set of all *configurations* that can explain
what was seen so far: a state, and which open operations have been placed. An operation need not be
placed before its return forces it (Lowe's just-in-time), so only returns branch. After each return
a configuration is dropped when another one with the same state is at least as good in every way:
what is left is an antichain.

A configuration is (state, bits); every bit is a cost:

- `owed`: the operation is open and must still be placed before it returns;
- `used`: the effect of an open or crashed update is consumed.

`a` is at least as good as `b` iff `a & b == a`. An open update is unused and owed, unused and no
longer owed ("free": placed where nobody noticed, yet still available), or used. Free beats both
others; those two are not comparable.

Why few moves suffice (each is an exchange argument on a complete order):

- *Loops.* An open operation that leaves the state as it is can be placed right now at no cost: a
  read of the current value, but also a write of it. It stays available for a real use later. So
  pure operations are never moves.
- *Cover.* When a blind write is placed, all other open blind writes may be imagined directly
  before it, where nobody sees them: none of them is owed any longer.
- *A blind write is a move only if its value is seen*: by an owed operation that loops there, or by
  an unused update that moves on from there. Writing the current value again is a move only to
  cover writes that are still owed.
- *Earliest deadline first.* Of open operations with equal actions, in the same position, only the
  one that returns first is tried, and a crashed one only when no open one is left.
- *Crashed operations of equal action are a count.* They get a bit when first needed, and give it
  back once every configuration has used it.
- *Unseen states are one.* States that no operation can tell apart collapse (`Model.unseen`), and a
  crashed operation that leads to one is never a move.

At the return of k every configuration must have k placed. One where k is free or used simply
goes on; but where k is free its option ends now, so using it now is tried *as well*. All others
branch over the moves until k is placed, and no further. When no configuration is left, the history
up to this return is the shortest prefix that is not linearizable.

Two cheaper ways through the same events, where the antichain grows too wide. A *beam* keeps only
the best configurations after each return; each is really reachable, so a beam that survives proves
`valid`. One that dies after dropping something proves nothing. A *window* begins in the middle with
every configuration there could possibly be: any state, nothing owed, nothing used, and as many
crashed operations as anybody could wish for. When even that dies, the events of the window alone
prove `invalid`. `decide` drives both; a search can be copied at any event for that.
"""

from collections.abc import Hashable, Iterator
from typing import Final, NamedTuple, Self, TypeAlias

from labrys.checkers.budget import Budget
from labrys.checkers.history import FOREVER
from labrys.checkers.models.model import UNSEEN, Illegal, Model
from labrys.checkers.steps import Steps

Path: TypeAlias = tuple["Path | None", int, int]
"""A chain of the updates that were placed, the last one first: (before, step, just before which
event it was placed). A plain tuple: this is the innermost allocation of the search."""

Frontier: TypeAlias = dict[int, list[tuple[int, Path | None]]]
"""The antichain of each state: (bits, how it came about)."""


class DeadEnd(NamedTuple):
    """A configuration from which the stuck operation cannot be placed."""

    state: Hashable
    path: Path | None
    owed: tuple[int, ...]
    """The open steps that are not placed, in order of their return."""


class Stuck(NamedTuple):
    """The search ended: no configuration can place step `step`, which returns at `event`."""

    step: int
    event: int
    exact: bool
    """Whether this proves the history wrong: nothing was left out on the way."""
    dead_ends: tuple[DeadEnd, ...]
    """Some of the furthest configurations, the one that owes least first."""
    start: int | None = None
    """The event from which on the operations contradict each other, whatever was before."""


class Survived(NamedTuple):
    """The history is linearizable: `path` holds the updates in order, as a witness."""

    path: Path | None


DEAD_ENDS_MAX: Final = 10
LOOKS_PER_BEAM: Final = 3
"""How many configurations a beam of one may look at to place one operation."""
COMPARISONS_PER_MOVE: Final = 16
"""How many comparisons with others of an antichain take as long as a move."""


class Search:
    """One search over the operations of one object, for any model.

    `run` goes on from `place`, a position among `events`, so that a copy can start again there.
    """

    def __init__(self, model: Model, steps: Steps, budget: Budget) -> None:
        self.place = 0
        """Which of `events` comes next."""
        self.beam: int | None = None
        """How many configurations to keep after each return; None: all."""
        self.is_truncated = False
        """Whether a configuration was ever dropped for no good reason."""
        self.steps = steps
        self.events = steps.events()
        self._model = model
        self._budget = budget
        self._call_of, self._ret_of = steps.call, steps.ret
        self._class_of = steps.of_class
        self._event = -1
        self._is_window = False
        # The open operations.
        self._free_bits: list[int] = []
        self._bits_made = 0
        self._owed: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._owed_since = 0
        """What was called since the frontier was last brought up to date."""
        self._owed_blind = 0
        self._crashed: dict[int, list[int]] = {}
        """The crashed updates by class, in order of call."""
        self._crashed_bits: dict[int, list[int]] = {}
        """The bits of the first ones of each class: they are used in this order."""
        self._frontier: Frontier = {}
        self._prepare()

    def _prepare(self) -> None:
        """Number the states and find out what the actions do."""
        model, steps = self._model, self.steps
        self._blurred = model.blurred(steps.actions(crashed=False), steps.actions(crashed=True))
        self._states: list[Hashable] = []
        self._ids: dict[Hashable, int] = {}
        actions = steps.classes.actions
        found = set(self._class_of)
        self._rows: dict[int, dict[int, int]] = {c: {} for c in found}
        self._pure = {c for c in found if actions[c].f in model.pure}
        self._blind = {c for c in found if actions[c].f in model.blind}
        self._open_updates: list[int] = []
        self._loops: dict[int, int] = {}
        self._viewers: dict[int, tuple[list[int], bool]] = {}
        self._frontier = {self._intern(model.initial): [(0, None)]}

    # What the driver does with a search.

    @property
    def event(self) -> int:
        """The event of the history that the search has come to."""
        return self._event

    def run(self, until: int | None = None) -> Stuck | None:
        """Go through the events up to the one at place `until`; None if there is a way.

        After a `Stuck` the search cannot go on. Raises `BudgetSpent`.
        """
        events = self.events
        end = len(events) if until is None else min(until, len(events))
        while self.place < end:
            number = events[self.place]
            self.place += 1
            if number >= 0:
                self._event = self._call_of[number]
                if (
                    self.place < end
                    and events[self.place] == ~number
                    and self._happen_alone(number, end)
                ):
                    self._event = self._ret_of[~events[self.place]]
                    self.place += 1
                else:
                    self._call(number)
            else:
                self._event = self._ret_of[~number]
                if (stuck := self._return(~number)) is not None:
                    return stuck
        return None

    @property
    def is_over(self) -> bool:
        """Whether all events were gone through."""
        return self.place == len(self.events)

    def survived(self) -> Survived:
        """Return the witness of a search that is over."""
        chain = next(iter(self._frontier.values()))
        return Survived(chain[0][1])

    def owed(self) -> list[int]:
        """Return the steps that are open, in order of their return."""
        return sorted(self._owed, key=self._ret_of.__getitem__)

    def copy(self, budget: Budget | None = None) -> Self:
        """Return a search that goes on from here by itself."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._budget = budget or self._budget
        other._free_bits = list(self._free_bits)
        other._owed = dict(self._owed)
        other._used = dict(self._used)
        other._crashed = {c: list(numbers) for c, numbers in self._crashed.items()}
        other._crashed_bits = {c: list(bits) for c, bits in self._crashed_bits.items()}
        other._frontier = dict(self._frontier)  # its lists are never changed once they are here
        other._copy_tables()
        return other

    def window(self, until: int, budget: Budget) -> Self | None:
        """Return a search from here on that begins with all that could be there.

        It goes up to place `until`; None if the states of this model cannot be listed.
        """
        # Also what is open now may have left its value.
        concerned = {self._class_of[n] for n in self._owed}
        concerned.update(self._crashed)
        for number in self.events[self.place : until]:
            concerned.add(self._class_of[number if number >= 0 else ~number])
        states = self._states_of(concerned)
        if states is None:
            return None
        other = self.copy(budget)
        other._is_window = True
        other._owed_since = 0
        other.beam = None
        other.is_truncated = False
        other._frontier = {state: [(0, None)] for state in states}
        return other

    # What differs for registers.

    def _copy_tables(self) -> None:
        self._open_updates = list(self._open_updates)
        self._loops = dict(self._loops)
        self._viewers = dict(self._viewers)

    def _states_of(self, classes: set[int]) -> set[int] | None:
        actions = self.steps.classes.actions
        states = self._model.states(actions[c] for c in sorted(classes))
        return None if states is None else {self._intern(state) for state in states}

    def _happen_alone(self, number: int, end: int) -> bool:
        """Place a step that returns at once, if that is possible without further thought.

        More such steps may be placed with it, as long as they return before place `end`; then
        `place` moves on to the return of the last.
        """
        if len(self._frontier) != 1:
            return False
        ((state, chain),) = self._frontier.items()
        of_class = self._class_of[number]
        after = self._after(of_class, state)
        if of_class in self._pure:
            return after == state
        if after < 0 or self._owed or self._crashed:
            return False
        at = self._ret_of[number]
        self._frontier = {after: [(bits, (path, number, at)) for bits, path in chain]}
        return True

    def _call(self, number: int) -> None:
        of_class = self._class_of[number]
        self._loops.clear()
        self._viewers.clear()
        if self._ret_of[number] == FOREVER:
            left = self._model.leaves(self.steps.classes.actions[of_class])
            # Most often nobody saw what a crashed update left; then it need not have happened.
            if of_class not in self._pure and (left is None or self._blurred(left) != UNSEEN):
                self._crashed.setdefault(of_class, []).append(number)
            return
        owed = self._owed[number] = self._take_bit()
        self._owed_since |= owed
        if of_class in self._pure:
            return
        self._used[number] = self._take_bit()
        self._open_updates.append(number)
        self._open_updates.sort(key=self._ret_of.__getitem__)
        if of_class in self._blind:
            self._owed_blind |= owed

    def _close(self, number: int) -> None:
        self._loops.clear()
        self._viewers.clear()
        owed = self._owed.pop(number)
        self._free_bits.append(owed)
        self._owed_blind &= ~owed
        used = self._used.pop(number, 0)
        if used:
            self._free_bits.append(used)
            self._open_updates.remove(number)

    def _loops_at(self, state: int) -> int:
        """Return the owed bits of all open operations that leave `state` as it is."""
        loops = self._loops.get(state)
        if loops is None:
            loops = 0
            for number, owed in self._owed.items():
                if self._after(self._class_of[number], state) == state:
                    loops |= owed
            self._loops[state] = loops
        return loops

    def _expand(
        self,
        last: int,
        todo: list[tuple[int, int, Path | None]],
        settled: Frontier,
        *,
        crashed: bool = True,
    ) -> Frontier:
        """Try every order of moves that ends in placing `last`; return all that was reached.

        Without `crashed`, crashed operations are left alone. A beam looks at only so many.
        """
        owed, used = self._owed[last], self._used.get(last, 0)
        forget = ~(owed | used)
        class_of_last = self._class_of[last]
        reached: Frontier = {}
        queue = [entry for entry in todo if insert(reached, *entry)]
        looks_max = None if self.beam is None else LOOKS_PER_BEAM * self.beam
        event = self._event
        for looks, (state, bits, path) in enumerate(queue):  # grows while walked: breadth first
            if looks == looks_max:
                self.is_truncated = True
                break
            # A move costs as much as the antichains are long that it is compared with.
            self._budget.spend(1 + len(reached[state]) // COMPARISONS_PER_MOVE)
            if used:
                after = self._after(class_of_last, state)
                if after >= 0:
                    left = (bits | used) & ~(owed | self._loops_at(after))
                    if class_of_last in self._blind:
                        left &= ~self._owed_blind
                    insert(settled, after, left & forget, (path, last, event))
            for number, bit in self._moves(last, state, bits, crashed):
                of_class = self._class_of[number]
                after = self._after(of_class, state)
                left = (bits | bit) & ~(self._owed.get(number, 0) | self._loops_at(after))
                if of_class in self._blind:
                    left &= ~self._owed_blind
                grown = (path, number, event)
                if not used and not left & owed:
                    insert(settled, after, left & forget, grown)
                elif insert(reached, after, left, grown):
                    queue.append((after, left, grown))
        return reached

    # The tables of open operations.

    def _take_bit(self) -> int:
        if self._free_bits:
            return self._free_bits.pop()
        self._bits_made += 1
        return 1 << (self._bits_made - 1)

    def _intern(self, state: Hashable) -> int:
        state = self._blurred(state)
        known = self._ids.setdefault(state, len(self._states))
        if known == len(self._states):
            self._states.append(state)
        return known

    def _state(self, state: int) -> Hashable:
        return self._states[state]

    def _after(self, of_class: int, state: int) -> int:
        """Return the state after an action of the class, or -1 if it is illegal."""
        row = self._rows[of_class]
        after = row.get(state)
        if after is None:
            action = self.steps.classes.actions[of_class]
            result = self._model.step(self._states[state], action)
            after = row[state] = -1 if isinstance(result, Illegal) else self._intern(result)
        return after

    def _is_seen(self, state: int, bits: int) -> bool:
        """Whether a blind write that leads to `state` is of use there to somebody."""
        if bits & self._loops_at(state) & ~self._owed_blind:
            return True
        viewers = self._viewers.get(state)
        if viewers is None:
            movers = [
                self._used[number]
                for number in self._open_updates
                if self._class_of[number] not in self._blind
                and self._after(self._class_of[number], state) >= 0
            ]
            crashed = any(
                of_class not in self._blind and self._after(of_class, state) not in (-1, state)
                for of_class in self._crashed
            )
            viewers = self._viewers[state] = (movers, crashed)
        return viewers[1] or any(not bits & used for used in viewers[0])

    # The search itself.

    def _return(self, last: int) -> Stuck | None:
        """Place step `last`, which returns now, in every configuration; drop those that cannot."""
        owed, used = self._owed[last], self._used.get(last, 0)
        forget = ~(owed | used)
        settled: Frontier = {}
        todo: list[tuple[int, int, Path | None]] = []
        owed_since = self._owed_since
        for state, chain in self._frontier.items():
            fresh = owed_since & ~self._loops_at(state) if owed_since else 0
            for bits, path in chain:
                bits |= fresh
                if bits & owed:
                    todo.append((state, bits, path))
                    continue
                insert(settled, state, bits & forget, path)
                if used and not bits & used:
                    todo.append((state, bits, path))
        self._owed_since = 0
        if todo:
            if self.beam is None:
                explored = self._expand(last, todo, settled)
            else:
                # Crashed operations are what makes the search wide: first try without.
                explored = self._expand(last, todo, settled, crashed=False)
                if self._crashed:
                    if not settled:
                        explored = self._expand(last, todo, settled)
                    else:
                        self.is_truncated = True
            if not settled:
                return self._stuck(last, explored)
        self._close(last)
        self._frontier = settled
        if self._crashed_bits:
            self._recycle()
        if self.beam is not None:
            self._narrow(self.beam)
        return None

    def _moves(self, last: int, state: int, bits: int, crashed: bool) -> Iterator[tuple[int, int]]:
        """Yield each update worth placing in this configuration, with its used bit."""
        tried: set[tuple[int, bool]] = set()
        for number in self._open_updates:
            used = self._used[number]
            if bits & used:
                continue
            of_class = self._class_of[number]
            position = (of_class, bool(bits & self._owed[number]))
            if position in tried:
                continue
            tried.add(position)
            if number != last and self._is_move(of_class, state, bits):
                yield number, used
        for of_class, numbers in self._crashed.items() if crashed else ():
            if (of_class, True) in tried or (of_class, False) in tried:
                continue
            after = self._after(of_class, state)
            if after < 0 or self._states[after] == UNSEEN:
                continue
            if not self._is_move(of_class, state, bits):
                continue
            found = self._crashed_move(of_class, numbers, bits)
            if found is not None:
                yield found

    def _crashed_move(self, of_class: int, numbers: list[int], bits: int) -> tuple[int, int] | None:
        """Return the next unused crashed step of a class with its used bit, if there is one."""
        if self._is_window:
            return numbers[0], 0
        known = self._crashed_bits.setdefault(of_class, [])
        place = 0
        for bit in known:
            if not bits & bit:
                break
            place += 1
        if place == len(numbers):
            return None
        if place == len(known):
            known.append(self._take_bit())
        return numbers[place], known[place]

    def _is_move(self, of_class: int, state: int, bits: int) -> bool:
        after = self._after(of_class, state)
        if of_class not in self._blind:
            return after not in (-1, state)
        if after == state:
            return bool(bits & self._owed_blind)
        return self._is_seen(after, bits)

    def _recycle(self) -> None:
        """Take back the bits of crashed operations that every configuration has used."""
        common = -1
        for chain in self._frontier.values():
            for bits, _ in chain:
                common &= bits
        spent = 0
        for of_class, known in list(self._crashed_bits.items()):
            numbers = self._crashed[of_class]
            while known and known[0] & common:
                spent |= known[0]
                self._free_bits.append(known.pop(0))
                numbers.pop(0)
            if not known:
                del self._crashed_bits[of_class]
            if not numbers:
                del self._crashed[of_class]
                self._crashed_gone(of_class)
        if spent:
            for state, chain in self._frontier.items():
                self._frontier[state] = [(bits & ~spent, path) for bits, path in chain]

    def _crashed_gone(self, of_class: int) -> None:
        """Forget the last crashed step of a class."""
        self._viewers.clear()

    def _narrow(self, beam: int) -> None:
        """Keep the best `beam` configurations: fewest costs first, every state represented."""
        frontier = self._frontier
        if len(frontier) <= beam and sum(map(len, frontier.values())) <= beam:
            return
        self.is_truncated = True
        ranked = []
        for state, chain in frontier.items():
            costs = sorted((bits.bit_count(), bits, place) for place, (bits, _) in enumerate(chain))
            ranked += [(rank, cost, state, place) for rank, (cost, _, place) in enumerate(costs)]
        ranked.sort()
        kept: Frontier = {}
        self._frontier = kept
        for _, _, state, place in ranked[:beam]:
            kept.setdefault(state, []).append(frontier[state][place])

    def _stuck(self, last: int, explored: Frontier) -> Stuck:
        open_steps = self.owed()
        dead_ends = [
            DeadEnd(
                self._state(state),
                path,
                tuple(number for number in open_steps if bits & self._owed[number]),
            )
            for state, chain in explored.items()
            for bits, path in chain
        ]
        dead_ends.sort(key=lambda end: len(end.owed))
        return Stuck(last, self._event, not self.is_truncated, tuple(dead_ends[:DEAD_ENDS_MAX]))


def insert(frontier: Frontier, state: int, bits: int, path: Path | None) -> bool:
    """Add a configuration unless one at least as good is there; drop those it is as good as."""
    chain = frontier.get(state)
    if chain is None:
        frontier[state] = [(bits, path)]
        return True
    for other, _ in chain:
        if other & bits == other:
            return False
    chain[:] = [entry for entry in chain if entry[0] & bits != bits]
    chain.append((bits, path))
    return True
