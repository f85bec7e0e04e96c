"""What queues, stacks and bags with distinct values have in common: who put in and took out what.

Between the return of its put and the call of its take a value is certainly inside. Nothing else can
keep the container from being empty: at a moment that no value covers so, every take that has been
called can be brought forward and every put that has not returned put off, whatever the order in
which values come out. So an operation that found it empty needs such a moment, and that is all.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from labrys.checkers.distinct.outcome import (
    Linearizable,
    NotApplicable,
    Outcome,
    Violation,
)
from labrys.checkers.history import FOREVER, Operation
from labrys.checkers.op import OpType
from labrys.checkers.text import as_key, told

NEVER: Final = -1
"""The call of a put that is not there."""
_TOLD_MAX: Final = 3


class Contents(NamedTuple):
    """The values, numbered in order of first mention: when each was put in and taken out."""

    slots: dict[Any, int]
    put_call: list[int]
    """`NEVER` without one, in the end for none."""
    put_ret: list[int]
    """`FOREVER` of a crashed one."""
    take_call: list[int]
    """`FOREVER` without one."""
    take_ret: list[int]
    crashed_takes: list[int]
    """The calls of takes of which nobody knows what they took, if anything."""
    empties: list[tuple[int, int]]
    """Call and return of those that found nothing."""
    repeated: set[int]
    """Those of a value that was put in more than once: who took which of them is a guess."""

    def name(self, slot: int) -> str:
        """Return a value as JSON text."""
        return told(next(value for value, known in self.slots.items() if known == slot))

    def lost(self) -> list[int]:
        """Return the values that were put in for certain and that nobody is known to have taken."""
        return [
            slot
            for slot, taken in enumerate(self.take_call)
            if taken == FOREVER and self.put_ret[slot] != FOREVER
        ]

    def inside(self) -> list[int]:
        """Return the values that were there for certain: taken, or put in by who returned."""
        return [
            slot
            for slot, taken in enumerate(self.take_call)
            if taken != FOREVER or self.put_ret[slot] != FOREVER
        ]

    def without_repeated(self) -> Self:
        """Return what is left when nobody looks at values that were put in more than once."""
        take_call, put_ret = list(self.take_call), list(self.put_ret)
        for slot in self.repeated:
            take_call[slot] = put_ret[slot] = FOREVER  # as if it had never been put in
        take_ret = [FOREVER if s in self.repeated else ret for s, ret in enumerate(self.take_ret)]
        return self._replace(
            put_ret=put_ret, take_call=take_call, take_ret=take_ret, repeated=set()
        )

    def taken_also(self, slots: Sequence[int], calls: Sequence[int]) -> Self:
        """Return the contents if crashed takes, called at `calls`, took the values `slots`."""
        take_call = list(self.take_call)
        for slot, call in zip(slots, calls, strict=False):
            take_call[slot] = max(call, self.put_call[slot])
        return self._replace(take_call=take_call, crashed_takes=[])


def collect(operations: Sequence[Operation], put: str, take: str) -> Contents | Outcome:
    """Sort operations, in order of invocation, by value; return the verdict if that gives one.

    `put` and `take` are the functions that they have to be.
    """
    contents = Contents({}, [], [], [], [], [], [], set())
    slots, put_call, put_ret, take_call, take_ret, crashed_takes, empties, _ = contents
    more_puts: dict[Any, list[tuple[int, int]]] = {}
    more_takes: dict[Any, list[tuple[int, int]]] = {}
    ok, fail = OpType.OK, OpType.FAIL
    for operation in operations:
        invoke = operation.invoke
        completion = operation.completion
        is_put = invoke.f == put
        if not is_put and invoke.f != take:
            return NotApplicable(f"{invoke.f} is neither {put} nor {take}")
        returned = FOREVER
        if completion is not None:
            if completion.type is ok:
                returned = completion.index
            elif completion.type is fail:
                continue
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
            value = as_key(value)
        slot = slots.get(value)
        if slot is None:
            slot = slots[value] = len(put_call)
            put_call.append(NEVER)
            put_ret.append(FOREVER)
            take_call.append(FOREVER)
            take_ret.append(FOREVER)
        if is_put:
            if put_call[slot] == NEVER:
                put_call[slot] = invoke.index
                put_ret[slot] = returned
            else:
                more_puts.setdefault(value, []).append((invoke.index, returned))
        elif take_call[slot] == FOREVER:
            take_call[slot] = invoke.index
            take_ret[slot] = returned
        else:
            more_takes.setdefault(value, []).append((invoke.index, returned))
    return _taken_too_often(contents, more_puts, more_takes) or (
        _out_of_nowhere(_matched(contents, more_puts, more_takes)) or contents
    )


def _taken_too_often(
    contents: Contents,
    more_puts: Mapping[Any, Sequence[tuple[int, int]]],
    more_takes: Mapping[Any, Sequence[tuple[int, int]]],
) -> Violation | None:
    for value, takes in more_takes.items():
        slot = contents.slots[value]
        puts = [contents.put_call[slot], *(call for call, _ in more_puts.get(value, ()))]
        if puts[0] == NEVER:
            break  # told by who looks for that
        rets = sorted([(contents.take_ret[slot], contents.take_call[slot]), *map(_swapped, takes)])
        for number, (ret, _) in enumerate(rets):
            # So many had come out by then: were as many put in?
            before = [call for call in puts if call < ret]
            if len(before) <= number:
                ops = sorted(call for _, call in rets[: number + 1])
                times = {1: "once", 2: "twice"}.get(len(before), f"{len(before)} times")
                return Violation(
                    f"{told(value)} was put in {times} before {ret} and taken out by "
                    f"{', '.join(f'op {op}' for op in ops)}",
                    tuple(sorted([*before, *ops])),
                )
    return None


def _swapped(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[1], pair[0]


def _matched(
    contents: Contents,
    more_puts: Mapping[Any, Sequence[tuple[int, int]]],
    more_takes: Mapping[Any, Sequence[tuple[int, int]]],
) -> Contents:
    """Add what was put in again, and guess that the first to come in are the first to come out.

    So somebody's value is inside at a moment iff more puts of it have returned than takes of it
    were called, which is certain whoever took which.
    """
    slots, put_call, put_ret, take_call, take_ret, _, _, repeated = contents
    for value, again in more_puts.items():
        first = slots[value]
        takes = [(take_call[first], take_ret[first]), *more_takes.get(value, ())]
        puts = sorted([(put_call[first], put_ret[first]), *again], key=lambda put: put[1])
        for number, (put, ret) in enumerate(puts):
            slot = first
            if number:
                slot = slots["\0", told(value), number] = len(put_call)
                for column in (put_call, put_ret, take_call, take_ret):
                    column.append(FOREVER)
            put_call[slot], put_ret[slot] = put, ret
            take_call[slot], take_ret[slot] = (
                takes[number] if number < len(takes) else (FOREVER, FOREVER)
            )
            repeated.add(slot)
    return contents


def _out_of_nowhere(contents: Contents) -> Violation | None:
    for slot, called in enumerate(contents.put_call):
        at = contents.take_call[slot]
        if slot in contents.repeated:
            continue  # here a guess may be wrong: see `_taken_too_often`
        if called == NEVER:
            return Violation(f"op {at} took {contents.name(slot)}, which nobody put in", (at,))
        if contents.take_ret[slot] < called:
            name = contents.name(slot)
            return Violation(
                f"{name} came out (op {at}) before it was put in (op {called})", (at, called)
            )
    return None


def _is_sound(contents: Contents) -> bool:
    """Whether no value was taken out before it was put in, as far as guesses go."""
    return all(contents.put_call[slot] < contents.take_ret[slot] for slot in contents.repeated)


def falsely_empty(contents: Contents) -> Violation | None:
    """Return who found nothing while something was certainly inside all along."""
    put_call, put_ret, take_call = contents.put_call, contents.put_ret, contents.take_call
    if not contents.empties:
        return None
    sure = sorted((ret, take_call[s], s) for s, ret in enumerate(put_ret) if ret < take_call[s])
    merged: list[tuple[int, int, list[int]]] = []
    for start, end, slot in sure:
        if merged and start < merged[-1][1]:
            before, until, slots = merged[-1]
            if end > until:
                named = [*slots, slot] if len(slots) < _TOLD_MAX else slots
                merged[-1] = (before, end, named)
        else:
            merged.append((start, end, [slot]))
    starts = [start for start, _, _ in merged]
    for call, ret in contents.empties:
        place = bisect_right(starts, call) - 1
        if place >= 0 and ret < merged[place][1]:
            slots = merged[place][2]
            inside = ", then ".join(contents.name(slot) for slot in slots)
            ops = (call, *(put_call[slot] for slot in slots))
            return Violation(
                f"op {call} found it empty, though {inside} was inside all the while",
                tuple(sorted(ops)),
            )
    return None


def judged(contents: Contents, out_of_order: Callable[[Contents], Violation | None]) -> Outcome:
    """Judge by the order in which values come out and by who found it empty.

    Where values are missing that crashed takes may have eaten, what is wrong even if all of them
    were eaten as early as can be is wrong, and what is right for one way of eating them is right.
    Where a value was put in more than once, what is wrong without all such values is wrong, and
    what is right for one guess about who took which of them is right. Emptiness needs no guess
    unless somebody crashed.
    """
    if contents.repeated:
        apart = judged(contents.without_repeated(), out_of_order)
        if isinstance(apart, Violation):
            return apart
        guess = contents._replace(repeated=set())
        if not guess.crashed_takes and (found := falsely_empty(guess)) is not None:
            return found
        outcome = judged(guess, out_of_order)
        if isinstance(outcome, Linearizable) and _is_sound(contents):
            return outcome
        return NotApplicable("values are put in more than once")

    def violation(assumed: Contents) -> Violation | None:
        return out_of_order(assumed) or falsely_empty(assumed)

    lost, crashed = contents.lost(), contents.crashed_takes
    if not lost or not crashed:
        return violation(contents) or Linearizable()
    found = violation(contents.taken_also(lost, [crashed[0]] * len(lost)))
    if found is not None:
        return found
    lost.sort(key=contents.put_call.__getitem__)
    for eaten in (lost, lost[::-1], []):
        if violation(contents.taken_also(eaten, crashed)) is None:
            return Linearizable()
    return NotApplicable("nobody knows which of the missing values crashed operations took")
