"""Stacks with distinct values: take away what can have lain at the bottom, go on with the rest.

After Abdulla et al. (PLDI 2025) and Lee and Mathur (OOPSLA 2025). Three steps, none of which
changes whether there is an order:

1. A value whose pop was called before its push returned can come and go in one moment.
2. A value whose push can be first of all and whose pop last of all can lie at the bottom: with or
   without it, the others see the same.
3. At a moment at which no value is certainly inside (see `contents`), the stack can be empty: what
   is before and what is after it are two histories.

If some values are left that none of this takes away, the stack was never empty while they were
there, so one of them was at the bottom; but none can have been.

O(n log n) for each time that step 3 has to follow on step 2, which is seldom often.
"""

from collections.abc import Iterable, Sequence

from labrys.checkers.distinct.contents import Contents, collect, judged
from labrys.checkers.distinct.outcome import Outcome, Violation
from labrys.checkers.history import FOREVER, Operation


def check(operations: Sequence[Operation]) -> Outcome:
    """Judge pushes and pops of a stack that is empty at first, in order of invocation."""
    contents = collect(operations, "push", "pop")
    if not isinstance(contents, Contents):
        return contents
    return judged(contents, _out_of_order)


def _out_of_order(contents: Contents) -> Violation | None:
    held = [slot for slot in contents.inside() if contents.put_ret[slot] < contents.take_call[slot]]
    stuck = _stuck(contents, held)
    return _told(contents, _reduced(contents, stuck)) if stuck else None


def _stuck(contents: Contents, held: Sequence[int]) -> list[int]:
    """Return values of which none can have been at the bottom; none if there is an order."""
    todo = [list(held)]
    while todo:
        rest = _without_bottoms(contents, todo.pop())
        parts = _parts(contents, rest)
        if len(parts) == 1:
            return rest
        todo += parts
    return []


def _without_bottoms(contents: Contents, held: Sequence[int]) -> list[int]:
    """Take away, again and again, a value that can have been at the bottom of all that are left."""
    _, put_call, put_ret, take_call, take_ret, *_ = contents
    by_put = sorted(held, key=put_call.__getitem__)
    by_take = sorted(held, key=take_ret.__getitem__, reverse=True)
    first_ret = sorted(held, key=put_ret.__getitem__, reverse=True)
    last_call = sorted(held, key=take_call.__getitem__)
    gone: set[int] = set()
    half: set[int] = set()
    """Can have been pushed first, or popped last; who is found again can have been both."""
    puts = takes = 0
    while True:
        while first_ret and first_ret[-1] in gone:
            first_ret.pop()
        while last_call and last_call[-1] in gone:
            last_call.pop()
        if not first_ret:
            return []
        found: list[int] = []
        while puts < len(by_put) and put_call[by_put[puts]] < put_ret[first_ret[-1]]:
            found.append(by_put[puts])
            puts += 1
        while takes < len(by_take) and take_ret[by_take[takes]] >= take_call[last_call[-1]]:
            found.append(by_take[takes])
            takes += 1
        before = len(gone)
        for slot in found:
            if slot in half:
                gone.add(slot)
            half.add(slot)
        if len(gone) == before:
            return [slot for slot in held if slot not in gone]


def _parts(contents: Contents, held: Iterable[int]) -> list[list[int]]:
    """Split at the moments at which nothing is certainly inside."""
    put_ret, take_call = contents.put_ret, contents.take_call
    parts: list[list[int]] = []
    until = -1
    for slot in sorted(held, key=put_ret.__getitem__):
        if put_ret[slot] > until:
            parts.append([])
        parts[-1].append(slot)
        until = max(until, take_call[slot])
    return parts


def _reduced(contents: Contents, stuck: list[int]) -> list[int]:
    """Leave out values, many at a time at first, as long as the rest is stuck as well."""
    chunk = len(stuck) // 2
    while chunk:
        place = 0
        while place < len(stuck):
            rest = _stuck(contents, stuck[:place] + stuck[place + chunk :])
            if rest:
                stuck = rest
            else:
                place += chunk
        chunk //= 2
    return stuck


def _told(contents: Contents, stuck: Sequence[int]) -> Violation:
    ops: list[int] = []
    words: list[str] = []
    for slot in sorted(stuck, key=contents.put_call.__getitem__):
        put, taken = contents.put_call[slot], contents.take_call[slot]
        if taken == FOREVER:
            words.append(f"{contents.name(slot)} (op {put}, never popped)")
            ops.append(put)
        else:
            words.append(f"{contents.name(slot)} (op {put}, popped by op {taken})")
            ops += [put, taken]
    return Violation(
        f"none of {', '.join(words)} can have been at the bottom of the others, though the stack "
        "was never empty in between",
        tuple(sorted(set(ops))),
    )
