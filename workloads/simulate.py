"""A run without threads, sockets or sleeping: generators against an imagined system.

The same order of things as in the interpreter (completions that are due are taken before anything
new begins; generators hear of a crash under the old process number), with the clock set by hand.
A run is a function of the generator, the system and the seed.
"""

import heapq
import random
from collections.abc import Callable

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.workloads.context import context
from labrys.workloads.generator import MARKS, NEVER, Pending, Source, begin, end, generator

System = Callable[[Op], tuple[Op, int]]
"""An imagined system: takes an op, returns its completion and how long it took, in nanoseconds."""

OPS_MAX = 1_000_000
"""Where `simulate` takes a generator to be endless."""


def always(kind: OpType, latency_ns: int = 10) -> System:
    """Return the system in which every client op ends as `kind` after `latency_ns`."""

    def system(op: Op) -> tuple[Op, int]:
        outcome = OpType.INFO if op.process == NEMESIS else kind
        return msgspec.structs.replace(op, type=outcome), latency_ns

    return system


def simulate(
    source: Source,
    *,
    clients: int,
    system: System | None = None,
    seed: int = 0,
    ops_max: int = OPS_MAX,
) -> list[Op]:
    """Return the history of `source` against `system`, by default one where all is ok in 10 ns.

    Ends when the generator is exhausted and nothing is in flight, or with the first `ops_max`
    events. Raises RuntimeError when the generator waits for an event that cannot come.
    """
    system = system or always(OpType.OK)
    gen = generator(source)
    ctx = context(clients, random.Random(seed))
    history: list[Op] = []
    in_flight: list[tuple[int, int, Op]] = []  # (time, order of invocation, completion)
    is_exhausted = False

    def record(op: Op) -> Op:
        history.append(msgspec.structs.replace(op, index=len(history)))
        return history[-1]

    while len(history) < ops_max:
        if in_flight and in_flight[0][0] <= ctx.time:
            due, _, completion = heapq.heappop(in_flight)
            gen, ctx = end(gen, ctx, record(msgspec.structs.replace(completion, time=ctx.time)))
            continue
        until = NEVER
        if not is_exhausted:
            step = gen.op(ctx)
            if step is None:
                is_exhausted = True
            else:
                op, gen = step
                if not isinstance(op, Pending):
                    op = record(op)
                    gen, ctx = begin(gen, ctx, op)
                    if op.f not in MARKS:
                        completion, latency_ns = system(op)
                        due = ctx.time + latency_ns
                        heapq.heappush(in_flight, (due, op.index, completion))
                    continue
                until = op.until
        if in_flight:
            until = min(until, in_flight[0][0])
        elif is_exhausted:
            break
        if until == NEVER:
            raise RuntimeError(f"stuck: {gen!r} is pending and nothing is in flight")
        ctx = ctx.at(max(ctx.time, until))
    return history
