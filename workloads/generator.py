"""Generators: pure values that decide which op comes next, for whom, and when.

A run is steered by one generator. The scheduler (the interpreter for real runs, `simulate` for
virtual ones) asks it with `op(context)` whenever something may be possible, and gets one of

- `(op, next)`: begin this op now, and go on with the generator `next`;
- `(Pending(until), next)`: nothing now; ask `next` again when an op has begun or ended, or at the
  time `until`, whichever comes first;
- `None`: exhausted, for ever.

A step that was returned is always taken: what is not due is pending, so no generator has to think
about ops that were offered and dropped. After an op has begun and after it has ended, the scheduler
calls `update(context, event)` and goes on with what that returns. Everything is immutable; state
(counters, values seen, time of the next op) lives in the value that comes next. Randomness comes
from `context.rng` alone. So a run of the simulator is a function of the generator and the seed.

Wherever a generator is expected, these will do (`Source`): an `Op` from `template` (once), a list
or tuple (one after the other), a function `context -> Source | None` (called again whenever its
last result is exhausted, until it returns None), or None (nothing). All durations are in seconds,
all times in nanoseconds since the run began. Nothing here recurses per event: the depth of the
stack is the depth of nesting of the combinators, however long the run.
"""

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.workloads.context import (
    CLIENTS_MASK,
    NEMESIS_MASK,
    Context,
    Mask,
    Thread,
    bits_of,
    mask_of,
)

NEVER: Final = 2**63 - 1
"""A time that does not come: only another op can end the wait."""

SLACK_NS: Final = 10_000_000
"""How late a paced generator may be and still keep to its timetable. Catching up with less keeps
the scheduler's own jitter from lowering the rate; catching up with more, after all threads were
busy, would come out as a burst."""

EMPTY_ROUNDS_MAX: Final = 1_000
"""How often in a row a function, a repeat or a filter may come up empty before we call it a bug."""

MARKS: Final = frozenset({"phase", "log"})
"""The `f` of ops that are written into the history and carried out by nobody."""

UNASSIGNED: Final = ""
"""The process of a template: any free one."""


class Pending(msgspec.Struct, frozen=True):
    """No op now. `until` is when to ask again at the latest."""

    until: int = NEVER


PENDING: Final = Pending()
"""No op before another one begins or ends."""


class Generator(msgspec.Struct, frozen=True):
    """Decides what comes next; see the module's docstring."""

    def op(self, ctx: Context) -> "Step | None":
        """Return what to do now and the generator to go on with, or None when exhausted."""
        raise NotImplementedError

    def update(self, ctx: Context, event: Op) -> "Generator":
        """Return the generator to go on with after `event` (an op has begun or ended).

        `ctx` has the processes as they were when the op ran, also for one that ended in `info`.
        """
        return self


Step = tuple[Op | Pending, Generator]
Source = (
    Generator | Op | Sequence["Source"] | Callable[[Context], "Source | None"] | None
)  # recursive, so that a list of lists or a function that returns a list is fine


def generator(source: Source) -> Generator:
    """Return the generator that `source` stands for. Raises TypeError if it is none."""
    if isinstance(source, Generator):
        return source
    if isinstance(source, Op):
        return _One(source)
    if source is None:
        return DONE
    if isinstance(source, list | tuple):
        return _Chain(tuple([generator(each) for each in source]))
    if callable(source):
        return _Function(source)
    raise TypeError(
        f"not a generator: {source!r}. Use an Op from template(), a list, a function of the "
        "context, or a combinator (an iterator will not do: reading it would change it)"
    )


def template(f: str, value: object = None, *, key: str | None = None) -> Op:
    """Return an op for any free process. As a generator it is played once."""
    return Op(type=OpType.INVOKE, process=UNASSIGNED, f=f, key=key, value=value)


def mark(f: str, value: object) -> Op:
    """Return a remark for the history, such as `mark("phase", "main")` or `mark("log", "text")`."""
    if f not in MARKS:
        raise ValueError(f"a mark is one of {', '.join(sorted(MARKS))}, not {f!r}")
    return Op(type=OpType.INFO, process=NEMESIS, f=f, value=value)


def assign(ctx: Context, op: Op) -> Op | Pending:
    """Return `op` given to a free process (or the one it names) now; pending when all are busy."""
    process = op.process
    if process == UNASSIGNED:
        chosen = ctx.free_process()
        if chosen is None:
            return PENDING
        process = chosen
    elif op.f not in MARKS and not ctx.free & ctx.bit_of(process):
        return PENDING
    kind = OpType.INFO if process == NEMESIS else OpType.INVOKE
    return msgspec.structs.replace(op, type=kind, process=process, time=ctx.time)


# --- What the scheduler does with a generator -----------------------------------------------------


def begin(gen: Generator, ctx: Context, op: Op) -> tuple[Generator, Context]:
    """Return generator and context after `op` began at `op.time`."""
    after = ctx.at(op.time) if op.f in MARKS else ctx.busy(op.time, op.process)
    return gen.update(after, op), after


def end(gen: Generator, ctx: Context, completion: Op) -> tuple[Generator, Context]:
    """Return generator and context after `completion` at its time.

    The generator learns of it under the old process numbers; only then is the process of an op with
    an unknown outcome retired. The other way round it could not tell whose op that was.
    """
    process = completion.process
    after = ctx.freed(completion.time, process)
    gen = gen.update(after, completion)
    if completion.type is OpType.INFO and isinstance(process, int):
        after = after.retired(process)
    return gen, after


# --- Plain values as generators -------------------------------------------------------------------


class _Done(Generator, frozen=True):
    def op(self, ctx: Context) -> Step | None:
        return None


DONE: Final[Generator] = _Done()


class _One(Generator, frozen=True):
    what: Op

    def op(self, ctx: Context) -> Step | None:
        op = assign(ctx, self.what)
        return op, (self if isinstance(op, Pending) else DONE)


class _Chain(Generator, frozen=True):
    """One after the other. `current` is the state of the one at `place`; later ones have not begun
    and hear of no events."""

    children: tuple[Generator, ...]
    place: int = 0
    current: Generator | None = None

    def op(self, ctx: Context) -> Step | None:
        current = self.current
        for place in range(self.place, len(self.children)):
            step = (self.children[place] if current is None else current).op(ctx)
            if step is not None:
                return step[0], _Chain(self.children, place, step[1])
            current = None
        return None

    def update(self, ctx: Context, event: Op) -> Generator:
        if self.current is None:
            return self
        current = self.current.update(ctx, event)
        return self if current is self.current else _Chain(self.children, self.place, current)


class _Function(Generator, frozen=True):
    function: Callable[[Context], Source | None]
    current: Generator | None = None

    def op(self, ctx: Context) -> Step | None:
        current = self.current
        for _ in range(EMPTY_ROUNDS_MAX):
            if current is None:
                made = self.function(ctx)
                if made is None:
                    return None
                current = generator(made)
            step = current.op(ctx)
            if step is not None:
                return step[0], _Function(self.function, step[1])
            current = None
        raise RuntimeError(f"{self.function!r} made {EMPTY_ROUNDS_MAX} empty generators in a row")

    def update(self, ctx: Context, event: Op) -> Generator:
        if self.current is None:
            return self
        current = self.current.update(ctx, event)
        return self if current is self.current else _Function(self.function, current)


# --- Counts ---------------------------------------------------------------------------------------


class _Limit(Generator, frozen=True):
    child: Generator
    remaining: int

    def op(self, ctx: Context) -> Step | None:
        if self.remaining <= 0:
            return None
        step = self.child.op(ctx)
        if step is None:
            return None
        used = 0 if isinstance(step[0], Pending) else 1
        return step[0], _Limit(step[1], self.remaining - used)

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        return self if child is self.child else _Limit(child, self.remaining)


def limit(count: int, source: Source) -> Generator:
    """At most `count` ops of `source`."""
    return _Limit(generator(source), count)


def once(source: Source) -> Generator:
    """The first op of `source`."""
    return limit(1, source)


class _Repeat(Generator, frozen=True):
    fresh: Generator
    current: Generator
    remaining: int | None

    def op(self, ctx: Context) -> Step | None:
        current, remaining = self.current, self.remaining
        for _ in range(EMPTY_ROUNDS_MAX):
            if remaining is not None and remaining <= 0:
                return None
            step = current.op(ctx)
            if step is not None:
                return step[0], _Repeat(self.fresh, step[1], remaining)
            current = self.fresh
            remaining = None if remaining is None else remaining - 1
        raise RuntimeError(f"nothing to repeat: {self.fresh!r} is empty")

    def update(self, ctx: Context, event: Op) -> Generator:
        current = self.current.update(ctx, event)
        return self if current is self.current else _Repeat(self.fresh, current, self.remaining)


def repeat(source: Source, times: int | None = None) -> Generator:
    """`source` from its beginning to its end, `times` times over (None: for ever)."""
    fresh = generator(source)
    return _Repeat(fresh, fresh, times)


class _ProcessLimit(Generator, frozen=True):
    child: Generator
    count: int
    seen: frozenset[int | str] = frozenset()

    def op(self, ctx: Context) -> Step | None:
        step = self.child.op(ctx)
        if step is None:
            return None
        op, child = step
        seen = self.seen
        if not isinstance(op, Pending) and op.process not in seen:
            if len(seen) >= self.count:
                return None
            seen |= {op.process}
        return op, _ProcessLimit(child, self.count, seen)

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        return self if child is self.child else _ProcessLimit(child, self.count, self.seen)


def process_limit(count: int, source: Source) -> Generator:
    """`source` until it would need more than `count` processes.

    Crashed ops make new processes, and each one makes a history harder to check; this bounds them.
    """
    return _ProcessLimit(generator(source), count)


# --- Choice ---------------------------------------------------------------------------------------


class _Mix(Generator, frozen=True):
    children: tuple[Generator, ...]
    weights: tuple[float, ...]

    def op(self, ctx: Context) -> Step | None:
        # Exhausted children stay in their place: they cost a call, and positions stay comparable.
        children = list(self.children)
        until = NEVER
        exhausted = 0
        for place in _in_random_order(ctx.rng, self.weights):
            step = children[place].op(ctx)
            if step is None:
                children[place] = DONE
                exhausted += 1
                continue
            op, children[place] = step
            if not isinstance(op, Pending):
                return op, _Mix(tuple(children), self.weights)
            until = min(until, op.until)
        if exhausted == len(children):
            return None
        return Pending(until), _Mix(tuple(children), self.weights)

    def update(self, ctx: Context, event: Op) -> Generator:
        children = tuple([child.update(ctx, event) for child in self.children])
        same = all(map(_is, children, self.children))
        return self if same else _Mix(children, self.weights)


def _is(one: object, other: object) -> bool:
    return one is other


def _in_random_order(rng: random.Random, weights: Sequence[float]) -> Iterable[int]:
    """Yield all positions, each next one drawn from those left by weight."""
    places = list(range(len(weights)))
    left = list(weights)
    while places:
        if len(places) == 1:
            yield places[0]
            return
        aim = rng.random() * sum(left)
        drawn = 0
        while drawn < len(places) - 1 and aim >= left[drawn]:
            aim -= left[drawn]
            drawn += 1
        left.pop(drawn)
        yield places.pop(drawn)


def mix(*sources: Source, weights: Sequence[float] | None = None) -> Generator:
    """Each op from a source drawn at random, uniformly or by `weights`, until all are exhausted.

    A source that has nothing to offer right now does not hold the others back: the draw is among
    those that have. Every source hears of every event.
    """
    given = tuple(weights) if weights is not None else (1.0,) * len(sources)
    if len(given) != len(sources) or any(weight <= 0 for weight in given):
        raise ValueError(f"{len(sources)} sources need as many positive weights, not {given}")
    return _Mix(tuple(generator(source) for source in sources), given)


def any_of(*sources: Source) -> Generator:
    """All sources side by side, whichever is due first; ties are drawn at random.

    For sources with a pace of their own, such as faults of several kinds. The same as `mix`: what
    is not due is pending and does not take part in the draw.
    """
    return mix(*sources)


class _FlipFlop(Generator, frozen=True):
    turn: Generator
    other: Generator

    def op(self, ctx: Context) -> Step | None:
        step = self.turn.op(ctx)
        if step is None:
            return None
        if isinstance(step[0], Pending):
            return step[0], _FlipFlop(step[1], self.other)
        return step[0], _FlipFlop(self.other, step[1])

    def update(self, ctx: Context, event: Op) -> Generator:
        turn, other = self.turn.update(ctx, event), self.other.update(ctx, event)
        return self if turn is self.turn and other is self.other else _FlipFlop(turn, other)


def flip_flop(first: Source, second: Source) -> Generator:
    """One op of `first`, one of `second`, and so on until the one whose turn it is has no more."""
    return _FlipFlop(generator(first), generator(second))


# --- Time -----------------------------------------------------------------------------------------


class _TimeLimit(Generator, frozen=True):
    child: Generator
    length_ns: int
    ends: int | None = None

    def op(self, ctx: Context) -> Step | None:
        ends = ctx.time + self.length_ns if self.ends is None else self.ends
        if ctx.time >= ends:
            return None
        step = self.child.op(ctx)
        if step is None:
            return None
        op = step[0]
        if isinstance(op, Pending):
            op = Pending(min(op.until, ends))
        return op, _TimeLimit(step[1], self.length_ns, ends)

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        return self if child is self.child else _TimeLimit(child, self.length_ns, self.ends)


def time_limit(seconds: float, source: Source) -> Generator:
    """The ops that `source` begins within `seconds` of the first time it is asked.

    It ends then even if `source` is pending for ever. Ops in flight are not cut short.
    """
    return _TimeLimit(generator(source), _ns(seconds))


class _Paced(Generator, frozen=True):
    child: Generator
    gap_ns: int
    is_random: bool
    due: int = 0

    def op(self, ctx: Context) -> Step | None:
        if ctx.time < self.due:
            return Pending(self.due), self
        step = self.child.op(ctx)
        if step is None:
            return None
        op, child = step
        if isinstance(op, Pending):
            return op, _Paced(child, self.gap_ns, self.is_random, self.due)
        start = max(self.due, ctx.time - SLACK_NS) if self.due else ctx.time
        gap = int(ctx.rng.random() * 2 * self.gap_ns) if self.is_random else self.gap_ns
        return op, _Paced(child, self.gap_ns, self.is_random, start + gap)

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        if child is self.child:
            return self
        return _Paced(child, self.gap_ns, self.is_random, self.due)


def stagger(seconds: float, source: Source) -> Generator:
    """`source` with random gaps between the beginnings of its ops: 0 to 2 x `seconds`, uniform.

    The rate is that of all threads together: `stagger(1 / 200, ...)` makes 200 ops/s however many
    threads there are, and fewer when all threads are busy. Wrap it in `each_thread` for a rate per
    thread.
    """
    return _Paced(generator(source), _ns(seconds), is_random=True)


def delay(seconds: float, source: Source) -> Generator:
    """`source` with `seconds` between the beginnings of its ops, of all threads together."""
    return _Paced(generator(source), _ns(seconds), is_random=False)


class _Sleep(Generator, frozen=True):
    length_ns: int
    ends: int | None = None

    def op(self, ctx: Context) -> Step | None:
        ends = ctx.time + self.length_ns if self.ends is None else self.ends
        return None if ctx.time >= ends else (Pending(ends), _Sleep(self.length_ns, ends))


def sleep(seconds: float) -> Generator:
    """No op for `seconds`, for use in a list. It counts from the moment it is its turn: when the op
    before has begun, or, behind `synchronize`, when it has ended."""
    return _Sleep(_ns(seconds))


def _ns(seconds: float) -> int:
    if seconds < 0:
        raise ValueError(f"a duration cannot be negative: {seconds} s")
    return round(seconds * 1e9)


# --- Threads --------------------------------------------------------------------------------------


class _OnThreads(Generator, frozen=True):
    child: Generator
    mask: Mask

    def op(self, ctx: Context) -> Step | None:
        # Also when none of its threads is free: the child may have come to its end.
        step = self.child.op(ctx.only(self.mask))
        return None if step is None else (step[0], _OnThreads(step[1], self.mask))

    def update(self, ctx: Context, event: Op) -> Generator:
        if not ctx.bit_of(event.process) & self.mask:
            return self
        child = self.child.update(ctx.only(self.mask), event)
        return self if child is self.child else _OnThreads(child, self.mask)


def on_threads(threads: Iterable[Thread], source: Source) -> Generator:
    """`source` on these threads only; it neither sees the others nor hears of their ops."""
    return _OnThreads(generator(source), mask_of(threads))


def clients(source: Source) -> Generator:
    """`source` on the client threads only."""
    return _OnThreads(generator(source), CLIENTS_MASK)


def nemesis(source: Source) -> Generator:
    """`source` on the nemesis only."""
    return _OnThreads(generator(source), NEMESIS_MASK)


class _Parts(Generator, frozen=True):
    """Generators side by side, each on threads of its own. The masks do not overlap.

    One whose threads are all busy is not even asked: there are many parts and many asks.
    """

    masks: tuple[Mask, ...]
    children: tuple[Generator, ...]

    def op(self, ctx: Context) -> Step | None:
        children = list(self.children)
        until = NEVER
        is_exhausted = True
        places = list(range(len(children)))
        ctx.rng.shuffle(places)
        for place in places:
            if children[place] is DONE:
                continue
            if not ctx.free & self.masks[place]:
                is_exhausted = False
                continue
            step = children[place].op(ctx.only(self.masks[place]))
            if step is None:
                children[place] = DONE
                continue
            is_exhausted = False
            op, children[place] = step
            if not isinstance(op, Pending):
                return op, _Parts(self.masks, tuple(children))
            until = min(until, op.until)
        return None if is_exhausted else (Pending(until), _Parts(self.masks, tuple(children)))

    def update(self, ctx: Context, event: Op) -> Generator:
        bit = ctx.bit_of(event.process)
        for place, mask in enumerate(self.masks):
            if mask & bit:
                child = self.children[place].update(ctx.only(mask), event)
                if child is self.children[place]:
                    return self
                rest = self.children[place + 1 :]
                return _Parts(self.masks, (*self.children[:place], child, *rest))
        return self


class _Divided(Generator, frozen=True):
    """Turns into `_Parts` when first asked, since only then the threads are known."""

    divide: Callable[[Context], _Parts]

    def op(self, ctx: Context) -> Step | None:
        return self.divide(ctx).op(ctx)


def each_thread(source: Source) -> Generator:
    """An own copy of `source` for every thread, the nemesis too unless inside `clients`.

    Per thread and not per process: a copy goes on when the process of its thread is retired.
    """
    child = generator(source)

    def divide(ctx: Context) -> _Parts:
        bits = bits_of(ctx.threads)
        return _Parts(tuple(bits), (child,) * len(bits))

    return _Divided(divide)


def reserve(parts: Sequence[tuple[int, Source]], rest: Source = None) -> Generator:
    """The first client threads for the first part, the next ones for the second, ...

    `parts` are (number of threads, source); the remaining client threads get `rest`. The threads
    are those of the surrounding view, in order, so that reserves may be nested. Raises ValueError
    when asked in a view with too few client threads.
    """
    counts = [count for count, _ in parts]
    children = tuple(generator(source) for _, source in parts)
    if any(count < 1 for count in counts):
        raise ValueError(f"each part needs at least one thread, got {counts}")

    def divide(ctx: Context) -> _Parts:
        bits = bits_of(ctx.threads & CLIENTS_MASK)
        if sum(counts) > len(bits):
            raise ValueError(f"cannot reserve {counts} threads: there are only {len(bits)} here")
        masks = []
        for count in counts:
            masks.append(functools.reduce(int.__or__, bits[:count]))
            bits = bits[count:]
        if not bits:
            return _Parts(tuple(masks), children)
        return _Parts((*masks, sum(bits)), (*children, generator(rest)))

    return _Divided(divide)


class _Synchronize(Generator, frozen=True):
    child: Generator

    def op(self, ctx: Context) -> Step | None:
        return self.child.op(ctx) if ctx.free == ctx.threads else (PENDING, self)


def synchronize(source: Source) -> Generator:
    """`source`, once every thread of this view is free."""
    return _Synchronize(generator(source))


def phases(*sources: Source) -> Generator:
    """One source after the other, each beginning when all ops of the one before have ended."""
    return generator([synchronize(source) for source in sources])


# --- Outcomes and shapes --------------------------------------------------------------------------


class _UntilOk(Generator, frozen=True):
    child: Generator
    in_flight: frozenset[int | str] = frozenset()
    is_done: bool = False

    def op(self, ctx: Context) -> Step | None:
        if self.is_done:
            return None
        step = self.child.op(ctx)
        if step is None:
            return None
        op, child = step
        mine = self.in_flight if isinstance(op, Pending) else self.in_flight | {op.process}
        return op, _UntilOk(child, mine)

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        in_flight, is_done = self.in_flight, self.is_done
        if event.type is not OpType.INVOKE and event.process in in_flight:
            in_flight -= {event.process}
            is_done = is_done or event.type is OpType.OK
        return _UntilOk(child, in_flight, is_done)


def until_ok(source: Source) -> Generator:
    """The ops of `source` until one of them ends `ok`.

    For example `each_thread(until_ok(delay(0.1, repeat(template("read")))))`. Without the delay an
    unreachable node would be asked thousands of times a second.
    """
    return _UntilOk(generator(source))


class _Map(Generator, frozen=True):
    function: Callable[[Op], Op | None]
    child: Generator

    def op(self, ctx: Context) -> Step | None:
        child = self.child
        for _ in range(EMPTY_ROUNDS_MAX):
            step = child.op(ctx)
            if step is None:
                return None
            op, child = step
            if isinstance(op, Pending):
                return op, _Map(self.function, child)
            mapped = self.function(op)
            if mapped is not None:
                return mapped, _Map(self.function, child)
        raise RuntimeError(f"{self.function!r} let none of {EMPTY_ROUNDS_MAX} ops pass")

    def update(self, ctx: Context, event: Op) -> Generator:
        child = self.child.update(ctx, event)
        return self if child is self.child else _Map(self.function, child)


def map_ops(function: Callable[[Op], Op], source: Source) -> Generator:
    """`source` with `function` applied to each op. It must leave process and time alone."""
    return _Map(function, generator(source))


def filter_ops(keep: Callable[[Op], bool], source: Source) -> Generator:
    """Those ops of `source` for which `keep` is true; the others are never begun."""
    return _Map(lambda op: op if keep(op) else None, generator(source))
