"""Random histories to judge: tiny messy ones, simulated registers, planted violations."""

import heapq
import random
from collections.abc import Sequence
from typing import Any

from tests.checkers.oracle import ILLEGAL, UNKNOWN, Act, apply

from labrys.checkers.history import History
from labrys.checkers.models import Model
from labrys.checkers.op import Op, OpType
from labrys.checkers.steps import Compiler, Steps


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


def messy_of(rng: random.Random, family: str, *, distinct: bool = False) -> list[Act]:
    """3 to 9 operations of any family, with random results and some of them crashed."""
    values = range(1, rng.randint(2, 4))
    crash_rate = rng.choice([0, 0.1, 0.3])
    width = rng.randint(1, 5)
    count = rng.randint(3, 8)
    functions = _FUNCTIONS[family]
    chosen = [f for f in functions if rng.random() < 0.8] or list(functions)
    running: list[tuple[str, Any, int, int]] = []
    free = list(range(width))
    acts: list[Act] = []
    holding: set[int] = set()
    fresh = 0
    event = 0
    while len(acts) + len(running) < count or running:
        may_call = free and len(acts) + len(running) < count
        if may_call and (not running or rng.random() < 0.5):
            process = free.pop(rng.randrange(len(free)))
            f = rng.choice(chosen)
            if "acquire" in functions and rng.random() < 0.9:
                # At random hardly any order would be possible.
                f = "release" if process in holding else "acquire"
            fresh += 1
            argument = fresh if distinct else rng.choice(values)
            running.append((f, argument, event, process))
        else:
            f, argument, call, process = running.pop(rng.randrange(len(running)))
            crashed = rng.random() < crash_rate
            highest = fresh if distinct else values[-1]
            value = _value_of(rng, family, f, argument, crashed, max(1, highest))
            if family == "fenced-lock" and value is not UNKNOWN and rng.random() < 0.8:
                value = event if f == "acquire" else None
            if f == "acquire" and not crashed:
                holding.add(process)
            elif f == "release":
                holding.discard(process)
            if not (crashed and f in ("read", "contains")):
                acts.append(Act(f, value, call, None if crashed else event, process))
            if crashed:
                free.append(width)
                width += 1
            else:
                free.append(process)
        event += 1
    return acts


_FUNCTIONS = {
    "fifo-queue": ["enqueue", "dequeue"],
    "unordered-queue": ["enqueue", "dequeue"],
    "stack": ["push", "pop"],
    "set": ["add", "add", "remove", "contains", "read"],
    "counter": ["add", "add", "read"],
    "append": ["append", "append", "read"],
    "mutex": ["acquire", "release"],
    "owned-mutex": ["acquire", "release"],
    "fenced-lock": ["acquire", "release"],
    "txn": ["txn"],
    "multi-register": ["txn"],
}


def _value_of(
    rng: random.Random, family: str, f: str, argument: int, crashed: bool, highest: int
) -> Any:
    """Return the argument of an update, or some result."""
    some = rng.randint(1, highest)
    match family, f:
        case (_, "dequeue" | "pop"):
            return UNKNOWN if crashed else None if rng.random() < 0.15 else some
        case ("set", "contains"):
            return [some, rng.random() < 0.5]
        case ("set", "read"):
            return rng.sample(range(1, highest + 1), rng.randint(0, min(3, highest)))
        case ("append", "read"):
            return rng.sample(range(1, highest + 1), rng.randint(0, min(3, highest)))
        case ("counter", "read"):
            return rng.randint(0, 4)
        case ("counter", "add"):
            return rng.choice([1, 1, 1, 2, -1]) if highest > 2 else 1
        case (_, "release") | ("mutex" | "owned-mutex", _):
            return None
        case ("fenced-lock", _):
            return UNKNOWN if crashed else rng.randint(1, 4)
        case (_, "txn"):
            return [_micro(rng, family, crashed) for _ in range(rng.randint(1, 3))]
    return argument


def _micro(rng: random.Random, family: str, crashed: bool) -> tuple[str, str, Any]:
    key = rng.choice("xy")
    kind = rng.choice(["r", "w"] if family == "multi-register" else ["r", "append"])
    if kind != "r":
        return kind, key, rng.randint(1, 2)
    if crashed:
        return kind, key, UNKNOWN
    if family == "multi-register":
        return kind, key, rng.choice([None, 1, 2])
    return kind, key, rng.choice([None, (1,), (2,), (1, 2)])


def as_history(acts: list[Act]) -> History:
    """Write the acts down as a history; every act has a process of its own unless it names one."""
    events: list[tuple[int, Op]] = []
    for number, act in enumerate(acts):
        process = number if act.process is None else act.process
        asked, answered = _asked_and_answered(act)
        invoke = Op(OpType.INVOKE, process, act.f, act.call, act.call * 1000, value=asked)
        events.append((act.call, invoke))
        if act.ret is not None:
            done = Op(OpType.OK, process, act.f, act.ret, act.ret * 1000, value=answered)
            events.append((act.ret, done))
    return History(op for _, op in sorted(events, key=lambda pair: pair[0]))


def _asked_and_answered(act: Act) -> tuple[Any, Any]:
    if act.f in ("read", "dequeue", "pop"):
        return None, act.value
    if act.f == "contains":
        return act.value[0], act.value[1]
    if act.f == "acquire":
        return None, act.value
    if act.f == "txn":
        asked = [[kind, key, None if kind == "r" else part] for kind, key, part in act.value]
        answered = [[kind, key, _plain(part)] for kind, key, part in act.value]
        return asked, None if act.ret is None else answered
    return act.value, act.value


def _plain(part: Any) -> Any:
    return list(part) if isinstance(part, tuple) else part


def as_steps(model: Model, acts: Sequence[Act]) -> Steps:
    """Return the acts as a search takes them, the way the checker does."""
    return Compiler(model).steps(as_history(list(acts)).operations)[0]
