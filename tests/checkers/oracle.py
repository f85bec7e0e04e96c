"""Two slow, obvious judges of linearizability that share no code with the engine.

`is_linearizable` tries every order by plain recursion; `is_linearizable_wgl` is Wing and Gong's
search with Lowe's memory of (placed, state), for histories of some dozens of operations.
"""

from typing import Any, NamedTuple

ILLEGAL = object()
UNKNOWN = object()
"""The result that nobody saw."""


class Act(NamedTuple):
    """One operation: `value` is the argument of an update, the result of a read."""

    f: str
    value: Any
    call: int
    ret: int | None
    process: int | None = None
    """None: a process of its own."""


def apply(state: Any, f: str, value: Any) -> Any:
    """Return the next state of a register, string or mutex, or ILLEGAL."""
    if f == "read":
        return state if state == value else ILLEGAL
    if f == "write":
        return value
    if f == "cas":
        return value[1] if state == value[0] else ILLEGAL
    if f == "append":
        return (state or "") + value
    if f == "acquire":
        return "held" if state == "free" else ILLEGAL
    if f == "release":
        return "free" if state == "held" else ILLEGAL
    raise ValueError(f)


def next_states(family: str, state: Any, act: Act) -> list[Any]:
    """Return all states that the act can lead to; none if it cannot happen."""
    f, value = act.f, act.value
    match family, f:
        case ("fifo-queue", "enqueue") | ("stack", "push"):
            return [(*state, value)]
        case ("unordered-queue", "enqueue"):
            return [tuple(sorted((*state, value)))]
        case ("fifo-queue" | "stack" | "unordered-queue", _):
            if not state:
                return [state] if value in (None, UNKNOWN) else []
            places = {"fifo-queue": [0], "stack": [len(state) - 1]}.get(family, range(len(state)))
            return [
                state[:place] + state[place + 1 :]
                for place in places
                if value is UNKNOWN or value == state[place]
            ]
        case ("set", "add"):
            return [state | {value}]
        case ("set", "remove"):
            return [state - {value}]
        case ("set", "contains"):
            return [state] if (value[0] in state) == value[1] else []
        case ("set", "read"):
            return [state] if sorted(value) == sorted(state) else []
        case ("counter", "add"):
            return [state + value]
        case ("counter", "read"):
            return [state] if state == value else []
        case ("append", "append"):
            return [(*state, value)]
        case ("append", "read"):
            return [state] if state == tuple(value) else []
        case ("owned-mutex", "acquire"):
            return [act.process] if state == "free" else []
        case ("owned-mutex", "release"):
            return ["free"] if state == act.process else []
        case ("fenced-lock", "acquire"):
            holder, last = state
            if holder is not None or (value is not UNKNOWN and value <= last):
                return []
            return [(act.process, last if value is UNKNOWN else value)]
        case ("fenced-lock", "release"):
            return [(None, state[1])] if state[0] == act.process else []
        case ("txn" | "multi-register", "txn"):
            now = dict(state)
            for kind, key, part in value:
                if kind == "w":
                    now[key] = part
                elif kind == "append":
                    now[key] = (*now.get(key, ()), part)
                elif part is not UNKNOWN and now.get(key) != part:
                    return []
            return [tuple(sorted(now.items()))]
    after = apply(state, f, value)
    return [] if after is ILLEGAL else [after]


INITIAL: dict[str, Any] = {
    "fifo-queue": (),
    "stack": (),
    "unordered-queue": (),
    "set": frozenset(),
    "counter": 0,
    "append": (),
    "owned-mutex": "free",
    "fenced-lock": (None, -1),
    "txn": (),
    "multi-register": (),
    "mutex": "free",
}
"""The first state of each family; None for registers and strings."""


def is_possible(family: str, acts: list[Act], state: Any = None) -> bool:
    """Try all orders of acts of any family by plain recursion."""
    if state is None:
        state = INITIAL.get(family)
    if all(act.ret is None for act in acts):
        return True
    first_return = min(act.ret for act in acts if act.ret is not None)
    for i, act in enumerate(acts):
        if act.call < first_return:
            rest = acts[:i] + acts[i + 1 :]
            if any(is_possible(family, rest, after) for after in next_states(family, state, act)):
                return True
    return False


def is_linearizable(initial: Any, acts: list[Act]) -> bool:
    """Try all orders of acts on a register, a string or a plain mutex."""
    return is_possible("register", acts, initial)


def is_linearizable_wgl(initial: Any, acts: list[Act]) -> bool:
    """The same, remembering which (pending acts, state) have failed."""
    acts = sorted(acts, key=lambda act: act.call)
    certain = sum(1 << i for i, act in enumerate(acts) if act.ret is not None)
    tried: set[tuple[int, Any]] = set()
    stack = [(0, initial)]
    while stack:
        placed, state = stack.pop()
        if placed & certain == certain:
            return True
        pending = [i for i in range(len(acts)) if not placed >> i & 1]
        returns = [ret for i in pending if (ret := acts[i].ret) is not None]
        first_return = min(returns)
        for i in pending:
            if acts[i].call >= first_return:
                break
            after = apply(state, acts[i].f, acts[i].value)
            if after is not ILLEGAL and (placed | 1 << i, after) not in tried:
                tried.add((placed | 1 << i, after))
                stack.append((placed | 1 << i, after))
    return False
