"""Why a key is not linearizable, in words and as data.

Three views of the same failure. The *prefix*: the longest order that works, and the state it
leaves. The *rejected*: every operation that should come next, with the reason why it cannot. And
the *core*: the few operations that contradict each other all by themselves, which is what a person
wants to see first. Operations are named by the index of their invocation.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from labrys.checkers.budget import Budget
from labrys.checkers.core import Core, minimal_core
from labrys.checkers.history import Operation
from labrys.checkers.models import (
    UNSEEN,
    Action,
    Illegal,
    Model,
    described,
    json_text,
    leaves,
    needs,
)
from labrys.checkers.search import DeadEnd, Placed, Step, Stuck
from labrys.checkers.verdict import Finding

_REJECTED_MAX: Final = 10
_PREFIX_MAX: Final = 1_000
_CORE_TOLD_MAX: Final = 20
_CORE_MOVES: Final = 50_000
"""Work spent on making the core smaller; what is left when it is spent is still a proof."""


class Subject(NamedTuple):
    """One object's operations, as they were and as the search sees them, side by side."""

    key: str | None
    model: Model
    steps: Sequence[Step]
    operations: Sequence[Operation]


def explain(subject: Subject, stuck: Stuck, budget: Budget) -> Finding:
    """Return the finding for a key that is not linearizable."""
    steps = subject.steps
    core = minimal_core(subject.model, steps, stuck, budget.part(_CORE_MOVES))
    end = stuck.dead_ends[0] if stuck.dead_ends else None
    prefix = order(subject.model, steps, end, stuck.event) if end else []
    state = _state_after(subject.model, steps, prefix)
    rejected = [
        (number, _why_not(subject, number, prefix, state))
        for number in (end.owed if end else (stuck.step,))[:_REJECTED_MAX]
    ]
    window = (
        min(steps[number].call for number in core.numbers),
        max(ret for number in core.numbers if (ret := steps[number].ret) is not None),
    )
    lines = [
        f"{_named(subject.key)} is not linearizable: {told(subject, stuck.step)} fits nowhere",
        f"longest linearizable prefix: {len(prefix)} operations, leaving {state}; next would be",
        *(f"  {told(subject, number)}: {reason}" for number, reason in rejected),
        _headline_of_core(core),
        *(f"  {told(subject, number)}" for number in core.numbers[:_CORE_TOLD_MAX]),
        *(["  ..."] if len(core.numbers) > _CORE_TOLD_MAX else []),
    ]
    return Finding(
        message="\n".join(lines),
        ops=tuple(steps[number].call for number in core.numbers),
        key=subject.key,
        data={
            "key": subject.key,
            "window": list(window),
            "prefix": [steps[number].call for number in prefix[-_PREFIX_MAX:]],
            "prefix_length": len(prefix),
            "state": _as_json(state),
            "rejected": [
                {"op": steps[number].call, "reason": reason} for number, reason in rejected
            ],
            "core": [steps[number].call for number in core.numbers],
        },
    )


def told(subject: Subject, number: int) -> str:
    """Return one operation in words: `1219 process 3 read -> 5 at 12.41 s`."""
    operation, step = subject.operations[number], subject.steps[number]
    text = f"{operation.call} process {operation.process} {described(step.action)}"
    completion = operation.completion
    if step.ret is None:
        return f"{text}{_at(operation.invoke.time)}, outcome unknown"
    return f"{text}{_at(completion.time if completion else -1)}"


def order(model: Model, steps: Sequence[Step], end: DeadEnd, event: int) -> list[int]:
    """Return a full order of the steps that configuration `end` has placed before `event`.

    The search records only the updates whose effect it used. Everything else that it settled was
    either in a state which it left as it was, or directly before a blind write, unseen: the same
    two places are looked for here.
    """
    chain: list[Placed] = []
    placed = end.path
    while placed is not None:
        chain.append(placed)
        placed = placed.before
    chain.reverse()
    unseen = model.unseen(
        [step.action for step in steps if step.ret is not None],
        [step.action for step in steps if step.ret is None],
    )

    def after(state: Hashable, action: Action) -> Hashable | Illegal:
        result = model.step(state, action)
        return UNSEEN if not isinstance(result, Illegal) and unseen(result) else result

    state: Hashable = UNSEEN if unseen(model.initial) else model.initial
    used = {placed.step for placed in chain}
    settled = [
        number
        for number, step in enumerate(steps)
        if step.ret is not None
        and step.call < event
        and number not in used
        and number not in end.owed
    ]
    settled.sort(key=lambda number: steps[number].call, reverse=True)
    result: list[int] = []
    open_now: list[int] = []
    for placed in [*chain, None]:
        ended = event if placed is None else placed.at
        # Settled while this state lasted, until the next move: whoever was called before it.
        while settled and steps[settled[-1]].call < ended:
            open_now.append(settled.pop())
        looping = [n for n in open_now if after(state, steps[n].action) == state]
        result += looping
        taken = set(looping)
        if placed is not None:
            action = steps[placed.step].action
            if action.f in model.blind:
                covered = [
                    n
                    for n in open_now
                    if n not in taken
                    and steps[n].action.f in model.blind
                    and (steps[n].ret or 0) >= ended
                ]
                result += covered
                taken.update(covered)
            result.append(placed.step)
            next_state = after(state, action)
            assert not isinstance(next_state, Illegal), f"step {placed.step}: {next_state.reason}"
            state = next_state
        open_now = [n for n in open_now if n not in taken]
        late = [n for n in open_now if (steps[n].ret or 0) < ended]
        assert not late, f"no place for the settled steps {late} before event {ended}"
    assert not open_now, f"no place for the settled steps {open_now}"
    return result


def _state_after(model: Model, steps: Sequence[Step], prefix: Sequence[int]) -> Hashable:
    state = model.initial
    for number in prefix:
        after = model.step(state, steps[number].action)
        assert not isinstance(after, Illegal), f"step {number}: {after.reason}"
        state = after
    return state


def _why_not(subject: Subject, number: int, prefix: Sequence[int], state: Hashable) -> str:
    """Say in one sentence why a step cannot come next."""
    steps = subject.steps
    step = steps[number]
    after = subject.model.step(state, step.action)
    if not isinstance(after, Illegal):
        return f"it can be placed, leaving {after}, but not all the others after it"
    wanted = needs(step.action)
    if wanted is None:
        return after.reason
    sources = {n for n, other in enumerate(steps) if leaves(other.action) == wanted}
    if not sources:
        origin = "" if wanted == subject.model.initial else f"; no operation ever leaves {wanted}"
        return after.reason + origin
    first = min(sources, key=lambda n: steps[n].call)
    if step.ret is not None and steps[first].call > step.ret:
        invoke = subject.operations[first].invoke
        when = (
            f"op {invoke.index}, invoked{_at(invoke.time)}"
            if invoke.time >= 0
            else (f"op {invoke.index}, invoked later")
        )
        return f"{after.reason}; {wanted} was first left by {when}"
    placed = [position for position, n in enumerate(prefix) if n in sources]
    if placed:
        left = prefix[placed[-1]]
        over = next((n for n in prefix[placed[-1] + 1 :] if _changes(subject, n, wanted)), None)
        if over is not None:
            return (
                f"{after.reason}; {wanted} was left by op {steps[left].call} and replaced by "
                f"op {steps[over].call} ({described(steps[over].action)})"
            )
    return after.reason


def _changes(subject: Subject, number: int, value: str) -> bool:
    left = leaves(subject.steps[number].action)
    return left is not None and left != value


def _headline_of_core(core: Core) -> str:
    many = len(core.numbers)
    what = "this operation cannot be" if many == 1 else f"these {many} contradict each other"
    before = "" if core.start is None else f", and whatever happened before op {core.start}"
    # The others are weakened, not gone: each may have happened at any time after its invocation.
    return f"{what}, whatever became of the other operations{before}:"


def _named(key: str | None) -> str:
    return "the history" if key is None else f"key {json_text(key)}"


def _at(time_ns: int) -> str:
    return f" at {time_ns / 1e9:.2f} s" if time_ns >= 0 else ""


def _as_json(state: Hashable) -> Any:
    try:
        return msgspec.json.decode(str(state))
    except msgspec.DecodeError:
        return str(state)
