"""The search for registers: the same antichain, with tables that know what a value is.

Everything that `Search` finds out by asking the model for each open operation stands here in tables
by value, kept up to date at every call and return: which open operations are settled at a value,
who could write it, and who would move on from it. Configurations and moves are the same.
"""

from bisect import insort
from collections.abc import Hashable
from typing import Any, Final, NamedTuple, Self

from labrys.checkers.budget import Budget
from labrys.checkers.history import FOREVER
from labrys.checkers.models.model import UNSEEN, Model
from labrys.checkers.search import (
    COMPARISONS_PER_MOVE,
    LOOKS_PER_BEAM,
    Frontier,
    Path,
    Search,
    insert,
)
from labrys.checkers.steps import Classes, Steps

_NOTHING: Final[tuple[int, ...]] = ()
_READ, _WRITE, _CAS = range(3)
_UNSEEN_VALUE: Final = 0


class Registers(NamedTuple):
    """What each class does, by its number: values are numbers too, and 0 is any unseen one."""

    kind: list[int]
    needs: list[int]
    """The value it must find; -1 for a write."""
    leaves: list[int]
    """The value that it leaves; -1 for a read."""
    values: list[Hashable]
    numbers: dict[Hashable, int]

    @classmethod
    def empty(cls) -> Self:
        """Return the table of no classes."""
        return cls([], [], [], [UNSEEN], {UNSEEN: _UNSEEN_VALUE})

    def extend(self, model: Model, classes: Classes) -> bool:
        """Add the classes that are new; False if one of them does more than read, write or cas."""
        for action in classes.actions[len(self.kind) :]:
            if action.f not in _KINDS:
                return False
            kind = _KINDS[action.f]
            needs, leaves = model.needs(action), model.leaves(action)
            if kind == _CAS and needs == leaves:
                kind, leaves = _READ, None  # it changes nothing: it only looks
            self.kind.append(kind)
            self.needs.append(-1 if needs is None else self._number(needs))
            self.leaves.append(-1 if leaves is None else self._number(leaves))
        self._number(model.initial)
        return True

    def _number(self, value: Hashable) -> int:
        known = self.numbers.setdefault(value, len(self.values))
        if known == len(self.values):
            self.values.append(value)
        return known


_KINDS: Final = {"read": _READ, "write": _WRITE, "cas": _CAS}


class RegisterSearch(Search):
    """One search over the operations of one register."""

    def __init__(self, model: Model, steps: Steps, budget: Budget, table: Registers) -> None:
        self._table = table
        super().__init__(model, steps, budget)

    def _prepare(self) -> None:
        table = self._table
        kind, needs, leaves = table.kind, table.needs, table.leaves
        seen: set[int] = set()
        crashed_cas: list[int] = []
        for of_class, ret in zip(self._class_of, self._ret_of, strict=True):
            if ret != FOREVER:
                seen.add(needs[of_class])
            elif kind[of_class] == _CAS:
                crashed_cas.append(of_class)
        # A crashed cas matters only if somebody sees what it leaves: walk back from what was seen.
        while fresh := {needs[c] for c in crashed_cas if leaves[c] in seen} - seen:
            seen |= fresh
        self._seen_values = seen
        self._free_at: dict[int, int] = {}
        """By value: the owed bits of all open operations that are settled there."""
        self._readers_at: dict[int, int] = {}
        """By value: the owed bits of the open reads of it."""
        self._writes_of: dict[int, list[tuple[int, int, int, int]]] = {}
        """By value: the open writes of it, (return, step, owed, used), first to return first."""
        self._cas_from: dict[int, list[tuple[int, int, int, int, int]]] = {}
        """By value: the open cas that expect it, (return, step, owed, used, new value)."""
        self._cas_used: dict[int, int] = {}
        """By value: the used bits of the open cas that expect it."""
        self._crashed_writes: dict[int, int] = {}
        """By value: the class of the crashed writes of it."""
        self._crashed_cas: dict[int, dict[int, int]] = {}
        """By value expected and value left: the class of the crashed cas."""
        self._frontier = {self._as_seen(table.numbers[self._model.initial]): [(0, None)]}

    def _as_seen(self, value: int) -> int:
        return value if value in self._seen_values else _UNSEEN_VALUE

    def _state(self, state: int) -> Hashable:
        return self._table.values[state]

    def _copy_tables(self) -> None:
        self._free_at = dict(self._free_at)
        self._readers_at = dict(self._readers_at)
        self._writes_of = {value: list(writes) for value, writes in self._writes_of.items()}
        self._cas_from = {value: list(cas) for value, cas in self._cas_from.items()}
        self._cas_used = dict(self._cas_used)
        self._crashed_writes = dict(self._crashed_writes)
        self._crashed_cas = {value: dict(cas) for value, cas in self._crashed_cas.items()}

    def _states_of(self, classes: set[int]) -> set[int] | None:
        table = self._table
        states = {_UNSEEN_VALUE}
        for of_class in classes:
            for value in (table.needs[of_class], table.leaves[of_class]):
                if value in self._seen_values:
                    states.add(value)
        return states - {-1}

    def _happen_alone(self, number: int, end: int) -> bool:
        frontier = self._frontier
        if len(frontier) != 1:
            return False
        ((state, chain),) = frontier.items()
        kind, needs, leaves = self._table.kind, self._table.needs, self._table.leaves
        events, class_of = self.events, self._class_of
        place, placed = self.place, -1
        while True:
            of_class = class_of[number]
            needed = needs[of_class]
            if needed >= 0 and needed != state:
                break
            if kind[of_class] != _READ:
                if self._owed:
                    break
                # Crashed operations are as well placed later: nothing is owed that they could help.
                state = self._as_seen(leaves[of_class])
                at = self._ret_of[number]
                chain = [(bits, (path, number, at)) for bits, path in chain]
            placed = place
            if place + 2 >= end:
                break
            number = events[place + 1]
            if number < 0 or events[place + 2] != ~number:
                break
            place += 2
        if placed < 0:
            return False
        self.place = placed
        self._frontier = {state: chain}
        return True

    def _call(self, number: int) -> None:
        of_class = self._class_of[number]
        table = self._table
        kind, needs = table.kind[of_class], table.needs[of_class]
        ret = self._ret_of[number]
        if ret == FOREVER:
            if kind == _READ or table.leaves[of_class] not in self._seen_values:
                return
            self._crashed.setdefault(of_class, []).append(number)
            if kind == _WRITE:
                self._crashed_writes[table.leaves[of_class]] = of_class
            else:
                self._crashed_cas.setdefault(needs, {})[table.leaves[of_class]] = of_class
            return
        owed = self._owed[number] = self._take_bit()
        self._owed_since |= owed
        if kind == _READ:
            self._free_at[needs] = self._free_at.get(needs, 0) | owed
            self._readers_at[needs] = self._readers_at.get(needs, 0) | owed
            return
        used = self._used[number] = self._take_bit()
        if kind == _WRITE:
            value = self._as_seen(table.leaves[of_class])
            self._free_at[value] = self._free_at.get(value, 0) | owed
            self._owed_blind |= owed
            insort(self._writes_of.setdefault(value, []), (ret, number, owed, used))
        else:
            new = self._as_seen(table.leaves[of_class])
            insort(self._cas_from.setdefault(needs, []), (ret, number, owed, used, new))
            self._cas_used[needs] = self._cas_used.get(needs, 0) | used

    def _close(self, number: int) -> None:
        of_class = self._class_of[number]
        table = self._table
        kind, needs = table.kind[of_class], table.needs[of_class]
        owed = self._owed.pop(number)
        self._free_bits.append(owed)
        if kind == _READ:
            _take_away(self._readers_at, needs, owed)
            _take_away(self._free_at, needs, owed)
            return
        used = self._used.pop(number)
        self._free_bits.append(used)
        # It returns first of all that are open, so it stands first in its list.
        if kind == _WRITE:
            value = self._as_seen(table.leaves[of_class])
            _take_away(self._free_at, value, owed)
            self._owed_blind &= ~owed
            _pop_first(self._writes_of, value)
        else:
            _take_away(self._cas_used, needs, used)
            _pop_first(self._cas_from, needs)

    def _loops_at(self, state: int) -> int:
        return self._free_at.get(state, 0)

    def _crashed_gone(self, of_class: int) -> None:
        table = self._table
        leaves = table.leaves[of_class]
        if table.kind[of_class] == _WRITE:
            del self._crashed_writes[leaves]
            return
        from_here = self._crashed_cas[table.needs[of_class]]
        del from_here[leaves]
        if not from_here:
            del self._crashed_cas[table.needs[of_class]]

    def _expand(
        self,
        last: int,
        todo: list[tuple[int, int, Path | None]],
        settled: Frontier,
        *,
        crashed: bool = True,
    ) -> Frontier:
        owed, used = self._owed[last], self._used.get(last, 0)
        forget = ~(owed | used)
        table = self._table
        class_of_last = self._class_of[last]
        is_write = table.kind[class_of_last] == _WRITE
        needs_last, leaves_last = table.needs[class_of_last], table.leaves[class_of_last]
        if leaves_last not in self._seen_values:
            leaves_last = _UNSEEN_VALUE
        free_at, readers_at, cas_used = self._free_at, self._readers_at, self._cas_used
        writes_of, cas_from = self._writes_of, self._cas_from
        crashed_cas = self._crashed_cas if crashed else {}
        crashed_writes = self._crashed_writes if crashed else {}
        targets = [*writes_of, *(value for value in crashed_writes if value not in writes_of)]
        """The values that some write could leave."""
        owed_blind = self._owed_blind
        settled_by_last = owed_blind if is_write else 0
        event = self._event
        reached: Frontier = {}
        queue = [entry for entry in todo if insert(reached, *entry)]
        looks_max = -1 if self.beam is None else LOOKS_PER_BEAM * self.beam
        spend = self._budget.spend
        for looks, (state, bits, path) in enumerate(queue):  # grows while walked: breadth first
            if looks == looks_max:
                self.is_truncated = True
                break
            spend(1 + len(reached[state]) // COMPARISONS_PER_MOVE)
            if is_write or (used and state == needs_last):
                left = (bits | used) & ~(settled_by_last | free_at.get(leaves_last, 0)) & forget
                insert(settled, leaves_last, left, (path, last, event))
            moves: list[tuple[int, int, int, int]] = []
            """(step, value left, its used bit, what it settles)"""
            tried: list[tuple[int, int]] = []
            for _, number, owed_one, used_one, new in cas_from.get(state, _NOTHING):  # type: ignore[misc]
                if bits & used_one:
                    continue
                position = (new, bits & owed_one and 1)
                if position in tried:
                    continue
                tried.append(position)
                if number != last:
                    moves.append((number, new, used_one, owed_one))
            for value in targets:
                if not (
                    readers_at.get(value, 0) & bits
                    or cas_used.get(value, 0) & ~bits
                    or value in crashed_cas
                    if value != state
                    else bits & owed_blind
                ):
                    continue
                for _, number, _, used_one in writes_of.get(value, ()):
                    if not bits & used_one:
                        if number != last:
                            moves.append((number, value, used_one, owed_blind))
                        break
                else:
                    if value not in crashed_writes:
                        continue
                    of_class = crashed_writes[value]
                    found = self._crashed_move(of_class, self._crashed[of_class], bits)
                    if found is not None:
                        moves.append((found[0], value, found[1], owed_blind))
            for value, of_class in crashed_cas.get(state, _NO_CAS).items():
                if (value, 0) in tried or (value, 1) in tried:
                    continue
                found = self._crashed_move(of_class, self._crashed[of_class], bits)
                if found is not None:
                    moves.append((found[0], value, found[1], 0))
            for number, value, used_one, settles in moves:
                left = (bits | used_one) & ~(settles | free_at.get(value, 0))
                if not used and not left & owed:
                    insert(settled, value, left & forget, (path, number, event))
                elif insert(reached, value, left, grown := (path, number, event)):
                    queue.append((value, left, grown))
        return reached


_NO_CAS: Final[dict[int, int]] = {}


def _take_away(table: dict[int, int], value: int, bit: int) -> None:
    left = table[value] & ~bit
    if left:
        table[value] = left
    else:
        del table[value]


def _pop_first(table: dict[int, list[Any]], value: int) -> None:
    rows = table[value]
    del rows[0]
    if not rows:
        del table[value]
