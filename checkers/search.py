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

Two cheaper ways through the same events, for histories with many crashed operations over few
values, where the antichain is exponential in ways of spending them. A *beam* keeps only the best
configurations after each return; each is really reachable, so a beam that survives proves `valid`.
One that dies after dropping something proves nothing. A *window* begins in the middle with every
configuration there could possibly be: any state, nothing owed, nothing used. When even that dies,
the events of the window alone prove `invalid`.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from labrys.checkers.budget import Budget
from labrys.checkers.models import UNSEEN, Action, Illegal, Model, leaves


class Step(NamedTuple):
    """One operation as the search sees it. `call` and `ret` are indices into the history."""

    action: Action
    call: int
    ret: int | None
    """None: crashed, it may take effect at any time after its call or never."""


class Placed(NamedTuple):
    """A chain of the updates that were placed, the last one first."""

    before: "Placed | None"
    step: int
    """Which of the steps."""
    at: int
    """Just before which event it was placed."""


class DeadEnd(NamedTuple):
    """A configuration from which the stuck operation cannot be placed."""

    state: Hashable
    path: Placed | None
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


class Survived(NamedTuple):
    """The history is linearizable: `path` holds the updates in order, as a witness."""

    path: Placed | None


_Frontier: TypeAlias = dict[int, list[tuple[int, Placed | None]]]

_DEAD_ENDS_MAX: Final = 10
_LOOKS_PER_BEAM: Final = 8
"""How many configurations a beam of one may look at to place one operation."""
_COMPARISONS_PER_MOVE: Final = 16
"""How many comparisons with others of an antichain take as long as a move."""


class Search:
    """One search over the operations of one object. Use once: `run`."""

    def __init__(self, model: Model, steps: Sequence[Step], budget: Budget) -> None:
        self.event = -1
        """The event the search has come to; after `BudgetSpent`, how far it came."""
        self._model = model
        self._budget = budget
        self._steps = steps
        certain = [step.action for step in steps if step.ret is not None]
        crashed = [step.action for step in steps if step.ret is None]
        self._unseen = model.unseen(certain, crashed)
        # States and actions become small integers; what a step does is computed once for each.
        self._states: list[Hashable] = []
        self._ids: dict[Hashable, int] = {}
        self._classes: dict[Action, int] = {}
        self._class_of = [
            self._classes.setdefault(step.action, len(self._classes)) for step in steps
        ]
        self._actions = list(self._classes)
        self._rows: list[dict[int, int]] = [{} for _ in self._actions]
        self._pure = [action.f in model.pure for action in self._actions]
        self._blind = [action.f in model.blind for action in self._actions]
        # The open operations.
        self._free_bits: list[int] = []
        self._bits_made = 0
        self._owed: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._open_updates: list[int] = []
        self._owed_since = 0
        """What was called since the frontier was last brought up to date."""
        self._owed_blind = 0
        self._crashed: dict[int, list[int]] = {}
        """The crashed updates by class, in order of call."""
        self._crashed_bits: dict[int, list[int]] = {}
        """The bits of the first ones of each class: they are used in this order."""
        self._loops: dict[int, int] = {}
        self._viewers: dict[int, tuple[list[int], bool]] = {}
        self._frontier: _Frontier = {self._intern(model.initial): [(0, None)]}
        self._beam: int | None = None
        self._truncated = False

    def run(self, beam: int | None = None) -> Survived | Stuck:
        """Search all events. With `beam`, keep only that many configurations after each return.

        Raises `BudgetSpent`.
        """
        self._beam = beam
        return self._walk(events_of(self._steps))

    def run_window(self, start: int, end: int) -> Survived | Stuck:
        """Search the events from `start` to `end`, beginning with everything that could be there.

        Of the steps, only those `within` matter. `Survived` then proves nothing, and the paths know
        nothing of what was before `start`.
        Raises `BudgetSpent`; and `ValueError` if the model cannot list its states.
        """
        events = events_of(self._steps)
        first = next((i for i, (event, _) in enumerate(events) if event >= start), len(events))
        for event, number in events[:first]:
            if event == self._steps[number].call:
                self._call(number)
            else:
                self._close(number)
        # Also what was open at the start may have left its value.
        concerned = [step for step in self._steps if step.ret is None or step.ret >= start]
        states = self._model.states(step.action for step in concerned)
        if states is None:
            raise ValueError("the states of this model cannot be listed")
        self._owed_since = 0
        self._frontier = {self._intern(state): [(0, None)] for state in states}
        return self._walk([entry for entry in events[first:] if entry[0] <= end])

    def _walk(self, events: Sequence[tuple[int, int]]) -> Survived | Stuck:
        for event, number in events:
            self.event = event
            if event == self._steps[number].call:
                self._call(number)
            elif (stuck := self._return(number)) is not None:
                return stuck
        chain = next(iter(self._frontier.values()))
        return Survived(chain[0][1])

    def owed(self) -> list[int]:
        """Return the steps that were open where the search stopped, in order of their return."""
        return sorted(self._owed, key=self._deadline)

    # The tables of open operations.

    def _call(self, number: int) -> None:
        of_class = self._class_of[number]
        self._loops.clear()
        self._viewers.clear()
        if self._steps[number].ret is None:
            # Most often nobody saw what a crashed update left; then it need not have happened.
            left = leaves(self._actions[of_class])
            if not self._pure[of_class] and not (left is not None and self._unseen(left)):
                self._crashed.setdefault(of_class, []).append(number)
            return
        owed = self._owed[number] = self._take_bit()
        self._owed_since |= owed
        if self._pure[of_class]:
            return
        self._used[number] = self._take_bit()
        self._open_updates.append(number)
        self._open_updates.sort(key=self._deadline)
        if self._blind[of_class]:
            self._owed_blind |= owed

    def _close(self, number: int) -> None:
        self._loops.clear()
        self._viewers.clear()
        owed = self._owed.pop(number)
        self._free_bits.append(owed)
        self._owed_blind &= ~owed
        if number in self._used:
            self._free_bits.append(self._used.pop(number))
            self._open_updates.remove(number)

    def _take_bit(self) -> int:
        if self._free_bits:
            return self._free_bits.pop()
        self._bits_made += 1
        return 1 << (self._bits_made - 1)

    def _deadline(self, number: int) -> int:
        ret = self._steps[number].ret
        assert ret is not None, f"step {number} is crashed: it has no deadline"
        return ret

    # What actions do to states.

    def _intern(self, state: Hashable) -> int:
        if self._unseen(state):
            state = UNSEEN
        known = self._ids.setdefault(state, len(self._states))
        if known == len(self._states):
            self._states.append(state)
        return known

    def _after(self, of_class: int, state: int) -> int:
        """Return the state after an action of the class, or -1 if it is illegal."""
        row = self._rows[of_class]
        after = row.get(state)
        if after is None:
            result = self._model.step(self._states[state], self._actions[of_class])
            after = row[state] = -1 if isinstance(result, Illegal) else self._intern(result)
        return after

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

    def _is_seen(self, state: int, bits: int) -> bool:
        """Whether a blind write that leads to `state` is of use there to somebody."""
        if bits & self._loops_at(state) & ~self._owed_blind:
            return True
        viewers = self._viewers.get(state)
        if viewers is None:
            movers = [
                self._used[number]
                for number in self._open_updates
                if not self._blind[self._class_of[number]]
                and self._after(self._class_of[number], state) >= 0
            ]
            crashed = any(
                not self._blind[of_class] and self._after(of_class, state) not in (-1, state)
                for of_class in self._crashed
            )
            viewers = self._viewers[state] = (movers, crashed)
        return viewers[1] or any(not bits & used for used in viewers[0])

    # The search itself.

    def _return(self, last: int) -> Stuck | None:
        """Place step `last`, which returns now, in every configuration; drop those that cannot."""
        owed, used = self._owed[last], self._used.get(last, 0)
        forget = ~(owed | used)
        settled: _Frontier = {}
        todo: list[tuple[int, int, Placed | None]] = []
        for state, chain in self._frontier.items():
            fresh = self._owed_since & ~self._loops_at(state)
            for bits, path in chain:
                bits |= fresh
                if bits & owed:
                    todo.append((state, bits, path))
                    continue
                _insert(settled, state, bits & forget, path)
                if used and not bits & used:
                    todo.append((state, bits, path))
        self._owed_since = 0
        if self._beam is None:
            explored = self._expand(last, todo, settled)
        else:
            # Crashed operations are what makes the search wide: first try without.
            explored = self._expand(last, todo, settled, crashed=False)
            if not settled and self._crashed:
                explored = self._expand(last, todo, settled)
            elif self._crashed:
                self._truncated = True
        if not settled:
            return self._stuck(last, explored)
        self._close(last)
        self._frontier = settled
        if self._crashed_bits:
            self._recycle()
        if self._beam is not None:
            self._narrow(self._beam)
        return None

    def _expand(
        self,
        last: int,
        todo: list[tuple[int, int, Placed | None]],
        settled: _Frontier,
        *,
        crashed: bool = True,
    ) -> _Frontier:
        """Try every order of moves that ends in placing `last`; return all that was reached.

        Without `crashed`, crashed operations are left alone. A beam looks at only so many.
        """
        owed, used = self._owed[last], self._used.get(last, 0)
        forget = ~(owed | used)
        class_of_last = self._class_of[last]
        reached: _Frontier = {}
        queue = [entry for entry in todo if _insert(reached, *entry)]
        looks_max = None if self._beam is None else _LOOKS_PER_BEAM * self._beam
        event = self.event
        for looks, (state, bits, path) in enumerate(queue):  # grows while walked: breadth first
            if looks == looks_max:
                self._truncated = True
                break
            # A move costs as much as the antichains are long that it is compared with.
            self._budget.spend(1 + len(reached[state]) // _COMPARISONS_PER_MOVE)
            if used:
                after = self._after(class_of_last, state)
                if after >= 0:
                    left = (bits | used) & ~(owed | self._loops_at(after))
                    if self._blind[class_of_last]:
                        left &= ~self._owed_blind
                    _insert(settled, after, left & forget, Placed(path, last, event))
            for number, bit in self._moves(last, state, bits, crashed):
                of_class = self._class_of[number]
                after = self._after(of_class, state)
                left = (bits | bit) & ~(self._owed.get(number, 0) | self._loops_at(after))
                if self._blind[of_class]:
                    left &= ~self._owed_blind
                if not used and not left & owed:
                    _insert(settled, after, left & forget, Placed(path, number, event))
                elif _insert(reached, after, left, grown := Placed(path, number, event)):
                    queue.append((after, left, grown))
        return reached

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
            known = self._crashed_bits.setdefault(of_class, [])
            place = next((i for i, bit in enumerate(known) if not bits & bit), len(known))
            if place == len(numbers):
                continue
            if place == len(known):
                known.append(self._take_bit())
            yield numbers[place], known[place]

    def _is_move(self, of_class: int, state: int, bits: int) -> bool:
        after = self._after(of_class, state)
        if not self._blind[of_class]:
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
                self._viewers.clear()
        if spent:
            for state, chain in self._frontier.items():
                self._frontier[state] = [(bits & ~spent, path) for bits, path in chain]

    def _narrow(self, beam: int) -> None:
        """Keep the best `beam` configurations: fewest costs first, every state represented."""
        size = sum(len(chain) for chain in self._frontier.values())
        if size <= beam:
            return
        self._truncated = True
        ranked = sorted(
            (rank, bits.bit_count(), state, bits, path)
            for state, chain in self._frontier.items()
            for rank, (bits, path) in enumerate(sorted(chain, key=lambda c: c[0].bit_count()))
        )
        self._frontier = {}
        for _, _, state, bits, path in ranked[:beam]:
            self._frontier.setdefault(state, []).append((bits, path))

    def _stuck(self, last: int, explored: _Frontier) -> Stuck:
        dead_ends = [
            DeadEnd(
                self._states[state],
                path,
                tuple(number for number in self.owed() if bits & self._owed[number]),
            )
            for state, chain in explored.items()
            for bits, path in chain
        ]
        dead_ends.sort(key=lambda end: len(end.owed))
        return Stuck(last, self.event, not self._truncated, tuple(dead_ends[:_DEAD_ENDS_MAX]))


def within(steps: Sequence[Step], start: int, end: int) -> list[Step]:
    """Return the steps that a window from event `start` to `end` has to do with."""
    return [step for step in steps if step.call <= end and (step.ret is None or step.ret >= start)]


def events_of(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Return (event, step) of every call and return in order of time."""
    calls = [(step.call, number) for number, step in enumerate(steps)]
    returns = [(step.ret, number) for number, step in enumerate(steps) if step.ret is not None]
    return sorted(calls + returns)


def _insert(frontier: _Frontier, state: int, bits: int, path: Placed | None) -> bool:
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
