"""Random histories to judge: tiny messy ones, simulated registers, planted violations."""

import heapq
import random
from collections.abc import Sequence
from typing import Any

from tests.checkers.oracle import ILLEGAL, Act, apply

from labrys.checkers.history import History
from labrys.checkers.models import Model
from labrys.checkers.op import Op, OpType
from labrys.checkers.search import Step


def messy(rng: random.Random, family: str = "register") -> list[Act]:
    """3 to 10 operations with random arguments and results; about two in five are impossible."""
    values = range(rng.randint(1, 3))
    crash_rate = rng.choice([0, 0.1, 0.3])
    processes = rng.randint(2, 5)
    count = rng.randint(3, 9)
    running: list[tuple[str, Any, int]] = []
    acts: list[Act] = []
    event = 0
    while len(acts) + len(running) < count or running:
        may_call = len(running) < processes and len(acts) + len(running) < count
        if may_call and (not running or rng.random() < 0.5):
            running.append((*_random_call(rng, family, values), event))
        else:
            f, value, call = running.pop(rng.randrange(len(running)))
            crashed = rng.random() < crash_rate
            if f != "read" or not crashed:
                acts.append(Act(f, value, call, None if crashed else event))
        event += 1
    return acts


def _random_call(rng: random.Random, family: str, values: Sequence[int]) -> tuple[str, Any]:
    if family == "mutex":
        return rng.choice(["acquire", "release"]), None
    if family == "kv":
        f = rng.choice(["read", "write", "append", "append"])
        letters = "ab"[: len(values)]
        length = rng.randint(1, 3) if f == "read" else 1
        return f, "".join(rng.choice(letters) for _ in range(length))
    f = rng.choice(["read", "write", "cas"])
    value = rng.choice(values)
    return f, [rng.choice(values), value] if f == "cas" else value


def simulated(
    rng: random.Random,
    count: int,
    processes: int,
    *,
    values: int | None = None,
    crash_rate: float = 0.0,
    mix: tuple[int, int, int] = (1, 1, 1),
    smart: float = 0.7,
) -> list[Act]:
    """A real register under load: every operation takes effect somewhere in its interval.

    `values` None writes distinct values. `mix` weighs reads, writes and cas; a cas expects the
    current value with probability `smart`. A crashed update takes effect late, or never.
    """
    state: Any = None
    written = 0
    events: list[tuple[float, int, str, int]] = []
    order = 0

    def schedule(delay: float, what: str, who: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (now + delay, order, what, who))

    now = 0.0
    calls: list[list[Any]] = []  # f, value, call, ret or None, happened
    acts: list[Act] = []
    event = 0
    for who in range(processes):
        schedule(rng.expovariate(5), "call", who)
    while events:
        now, _, what, who = heapq.heappop(events)
        if what == "call":
            if len(calls) >= count:
                continue
            f = rng.choices(["read", "write", "cas"], mix)[0]
            fresh = written if values is None else rng.randrange(values)
            written += f != "read"
            value: Any = None if f == "read" else fresh
            if f == "cas":
                old = rng.randrange(max(1, written - 1)) if values is None else fresh
                if values is not None:
                    old = rng.randrange(values)
                value = [state if rng.random() < smart else old, fresh]
            number = len(calls)
            calls.append([f, value, event, None, False])
            event += 1
            latency = rng.expovariate(1)
            if f != "read" and rng.random() < crash_rate:
                if rng.random() < 0.5:
                    schedule(rng.expovariate(1 / 20), "effect", number)
                schedule(rng.expovariate(5), "call", who)
            else:
                schedule(rng.random() * latency, "effect", number)
                schedule(latency, "return", number)
                schedule(latency + rng.expovariate(5), "call", who)
        elif what == "effect":
            call = calls[who]
            if call[0] == "read":
                call[1], call[4] = state, True
            else:
                after = apply(state, call[0], call[1])
                call[4] = after is not ILLEGAL
                state = after if call[4] else state
        else:
            call = calls[who]
            call[3] = event
            event += 1
    for f, value, called, ret, happened in calls:
        if ret is None or happened:
            acts.append(Act(f, value, called, ret))
    return acts


def with_stale_read(acts: list[Act], processes: int) -> list[Act] | None:
    """Give the read returning nearest 90 % a value that nothing has mentioned for long."""
    end = max(act.ret or 0 for act in acts)
    reads = [act for act in acts if act.f == "read" and act.ret is not None]
    victim = min(reads, key=lambda act: abs((act.ret or 0) - 0.9 * end))
    horizon = victim.call - 12 * processes
    recent = {
        repr(value)
        for act in acts
        if act.call >= horizon or act.ret is None or act.ret >= horizon
        for value in (act.value if isinstance(act.value, list) else [act.value])
    }
    old = [
        act.value
        for act in acts
        if act.f == "write" and (act.ret or end) < horizon and repr(act.value) not in recent
    ]
    if not old:
        return None
    return [victim._replace(value=old[-1]) if act is victim else act for act in acts]


def mutated(rng: random.Random, acts: list[Act], values: int) -> list[Act]:
    """Change the result of one read or the expectation of one cas."""
    targets = [i for i, act in enumerate(acts) if act.f in ("read", "cas") and act.ret is not None]
    if not targets:
        return acts
    i = rng.choice(targets)
    value = rng.randrange(values)
    act = acts[i]
    changed = act._replace(value=value if act.f == "read" else [value, act.value[1]])
    return [*acts[:i], changed, *acts[i + 1 :]]


def as_history(acts: list[Act]) -> History:
    """Write the acts down as a history; every act has a process of its own."""
    events: list[tuple[int, Op]] = []
    for process, act in enumerate(acts):
        asked = None if act.f == "read" else act.value
        invoke = Op(OpType.INVOKE, process, act.f, act.call, act.call * 1000, value=asked)
        events.append((act.call, invoke))
        if act.ret is not None:
            done = Op(OpType.OK, process, act.f, act.ret, act.ret * 1000, value=act.value)
            events.append((act.ret, done))
    return History(op for _, op in sorted(events, key=lambda pair: pair[0]))


def as_steps(model: Model, acts: Sequence[Act]) -> list[Step]:
    """Return the acts as the search takes them, the way the checker does."""
    steps = []
    for operation in as_history(list(acts)).operations:
        action = model.action(operation)
        if action is not None and (operation.ret is not None or action.f not in model.pure):
            steps.append(Step(action, operation.call, operation.ret))
    return steps
