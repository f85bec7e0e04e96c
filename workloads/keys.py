"""Many independent keys in one run, a few threads on each at a time.

One object gets hard to check, and boring, after some hundred ops. So a workload works on one key
after the other: the client threads form groups of equal size, each group has its own key, and when
the ops of that key are used up, the group goes on with the next new key.
"""

import functools
from collections.abc import Callable

import msgspec

from labrys.checkers.op import Op
from labrys.workloads.context import CLIENTS_MASK, Context, Mask, bits_of
from labrys.workloads.generator import (
    EMPTY_ROUNDS_MAX,
    NEVER,
    Generator,
    Pending,
    Source,
    Step,
    generator,
    limit,
)

THREADS_PER_KEY = 5
"""What `default_threads_per_key` aims at: enough to collide, few enough to check fast."""


def divide_threads(clients: int, threads_per_key: int) -> int:
    """Return the number of groups. Raises ValueError, with advice, when the groups do not fit."""
    if threads_per_key >= 1 and clients % threads_per_key == 0:
        return clients // threads_per_key
    divisors = [str(size) for size in range(1, clients + 1) if clients % size == 0]
    if threads_per_key > clients or threads_per_key < 1:
        advice = f"threads_per_key may be {', '.join(divisors)}"
    else:
        below = clients - clients % threads_per_key
        advice = (
            f"use concurrency {below} or {below + threads_per_key}, "
            f"or threads_per_key {', '.join(divisors)}"
        )
    raise ValueError(f"{clients} clients do not form groups of {threads_per_key} a key: {advice}")


def default_threads_per_key(clients: int) -> int:
    """Return the largest group size up to THREADS_PER_KEY that divides `clients`."""
    return next(size for size in range(THREADS_PER_KEY, 0, -1) if clients % size == 0)


class _Keys(Generator, frozen=True):
    """`current` has the key in work and its generator by group; empty before the first ask."""

    make: Callable[[str], Source]
    threads_per_key: int
    ops_per_key: int
    masks: tuple[Mask, ...] = ()
    current: tuple[tuple[str, Generator], ...] = ()
    begun: int = 0
    """How many keys have been given out."""

    def op(self, ctx: Context) -> Step | None:
        state = self if self.masks else self._divided(ctx)
        until = NEVER
        places = list(range(len(state.masks)))
        ctx.rng.shuffle(places)
        for place in places:
            if not ctx.free & state.masks[place]:
                continue
            op, state = state._ask(place, ctx)
            if not isinstance(op, Pending):
                return op, state
            until = min(until, op.until)
        return Pending(until), state

    def update(self, ctx: Context, event: Op) -> Generator:
        bit = ctx.bit_of(event.process)
        for place, mask in enumerate(self.masks):
            if mask & bit:
                key, gen = self.current[place]
                if event.key != key:  # a straggler: the group has moved on
                    return self
                return self._with(place, key, gen.update(ctx.only(mask), event))
        return self

    def _divided(self, ctx: Context) -> "_Keys":
        bits = bits_of(ctx.threads & CLIENTS_MASK)
        groups = divide_threads(len(bits), self.threads_per_key)
        size = self.threads_per_key
        masks = tuple(
            functools.reduce(int.__or__, bits[size * group : size * (group + 1)])
            for group in range(groups)
        )
        state = msgspec.structs.replace(
            self, masks=masks, current=(("", generator(None)),) * groups
        )
        for place in range(groups):
            state = state._next_key(place, ctx)
        return state

    def _next_key(self, place: int, ctx: Context) -> "_Keys":
        key = f"k{self.begun}"
        # Jittered, so that the groups do not all change keys at the same moment.
        ops = max(1, round(self.ops_per_key * ctx.rng.uniform(0.9, 1.0)))
        state = self._with(place, key, limit(ops, self.make(key)))
        return msgspec.structs.replace(state, begun=self.begun + 1)

    def _with(self, place: int, key: str, gen: Generator) -> "_Keys":
        current = (*self.current[:place], (key, gen), *self.current[place + 1 :])
        return _Keys(
            self.make, self.threads_per_key, self.ops_per_key, self.masks, current, self.begun
        )

    def _ask(self, place: int, ctx: Context) -> "tuple[Op | Pending, _Keys]":
        state = self
        view = ctx.only(self.masks[place])
        for _ in range(EMPTY_ROUNDS_MAX):
            key, gen = state.current[place]
            step = gen.op(view)
            if step is not None:
                op = step[0]
                if not isinstance(op, Pending):
                    op = msgspec.structs.replace(op, key=key)
                return op, state._with(place, key, step[1])
            state = state._next_key(place, ctx)
        raise RuntimeError(f"{self.make!r} made {EMPTY_ROUNDS_MAX} keys in a row without an op")


def independent_keys(
    make: Callable[[str], Source], *, threads_per_key: int, ops_per_key: int
) -> Generator:
    """`make(key)` for the keys k0, k1, ... without end, `threads_per_key` client threads on each.

    Each key gets 90 to 100 % of `ops_per_key` ops, tagged with the key. The generators need not
    set the key, and hear of the events of their own key only. Raises ValueError when first asked
    with a number of client threads that `threads_per_key` does not divide; call `divide_threads`
    to find out earlier.
    """
    return _Keys(make, threads_per_key, ops_per_key)
