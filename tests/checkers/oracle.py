"""Two slow, obvious judges of linearizability that share no code with the engine.

`is_linearizable` tries every order by plain recursion; `is_linearizable_wgl` is Wing and Gong's
search with Lowe's memory of (placed, state), for histories of some dozens of operations.
"""

from typing import Any, NamedTuple

ILLEGAL = object()


class Act(NamedTuple):
    """One operation: `value` is the argument of an update, the result of a read."""

    f: str
    value: Any
    call: int
    ret: int | None


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


def is_linearizable(initial: Any, acts: list[Act]) -> bool:
    """Try all orders: an act may come next if no other pending one returned before its call."""
    if all(act.ret is None for act in acts):
        return True
    first_return = min(act.ret for act in acts if act.ret is not None)
    for i, act in enumerate(acts):
        if act.call < first_return:
            state = apply(initial, act.f, act.value)
            if state is not ILLEGAL and is_linearizable(state, acts[:i] + acts[i + 1 :]):
                return True
    return False


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
