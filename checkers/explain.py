"""Why a key is not linearizable, in words and as data.

Three views of the same failure. The *prefix*: the longest order that works, and the state it
leaves. The *rejected*: every operation that should come next, with the reason why it cannot. And
the *core*: the few operations that contradict each other all by themselves, which is what a person
wants to see first. Operations are named by the index of their invocation.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.budget import Budget
from labrys.checkers.core import Core, minimal_core
from labrys.checkers.history import FOREVER
from labrys.checkers.models.model import Action, Illegal, Model, described
from labrys.checkers.search import DeadEnd, Path, Stuck
from labrys.checkers.steps import Steps
from labrys.checkers.subject import Subject, at
from labrys.checkers.verdict import Finding

_REJECTED_MAX: Final = 10
_PREFIX_MAX: Final = 1_000
_PREFIX_STEPS: Final = 5_000
"""Of a longer history only so many steps before the failure are put in order."""
_CORE_TOLD_MAX: Final = 20
_CORE_MOVES: Final = 200_000
"""Work spent on making the core smaller; what is left when it is spent is still a proof."""


def explain(subject: Subject, stuck: Stuck, budget: Budget, core: Core | None = None) -> Finding:
    """Return the finding for a key that is not linearizable; `core` if it is known already."""
    steps = subject.steps
    if core is None:
        core = minimal_core(subject, stuck, budget.part(_CORE_MOVES))
    end = stuck.dead_ends[0] if stuck.dead_ends else None
    since = 0 if len(steps) <= _PREFIX_STEPS else steps.call[max(0, stuck.step - _PREFIX_STEPS)]
    prefix: list[int] = []
    state: Hashable = subject.model.initial
    if end is not None:
        prefix, state = order(subject.model, steps, end, stuck.event, since)
    rejected = [
        (number, _why_not(subject, number, prefix, state))
        for number in (end.owed if end else (stuck.step,))[:_REJECTED_MAX]
    ]
    window = (
        min(steps.call[number] for number in core.numbers),
        max(steps.ret[number] for number in core.numbers),
    )
    shown = subject.model.shown(state)
    length = len(prefix) + sum(ret < since for ret in steps.ret)
    lines = [
        f"{subject.name()} is not linearizable: {subject.told(stuck.step)} fits nowhere",
        f"longest linearizable prefix: {length} operations, leaving {shown}; next would be",
        *(f"  {subject.told(number)}: {reason}" for number, reason in rejected),
        _headline_of_core(core),
        *(f"  {subject.told(number)}" for number in core.numbers[:_CORE_TOLD_MAX]),
        *(["  ..."] if len(core.numbers) > _CORE_TOLD_MAX else []),
    ]
    return Finding(
        message="\n".join(lines),
        ops=tuple(steps.call[number] for number in core.numbers),
        key=subject.key,
        data={
            "key": subject.key,
            "part": subject.part,
            "window": list(window),
            "prefix": [steps.call[number] for number in prefix[-_PREFIX_MAX:]],
            "prefix_length": length,
            "state": _as_json(shown),
            "rejected": [
                {"op": steps.call[number], "reason": reason} for number, reason in rejected
            ],
            "core": [steps.call[number] for number in core.numbers],
        },
    )


def order(
    model: Model, steps: Steps, end: DeadEnd, event: int, since: int = 0
) -> tuple[list[int], Hashable]:
    """Return a full order of what configuration `end` has placed before `event`, and its state.

    The search records only the updates whose effect it used. Everything else that it settled was
    either in a state which it left as it was, or directly before a blind write, unseen: the same
    two places are looked for here. What was placed before event `since` is left out.
    """
    chain: list[Path] = []
    path = end.path
    while path is not None:
        chain.append(path)
        path = path[0]
    chain.reverse()
    blurred = model.blurred(steps.actions(crashed=False), steps.actions(crashed=True))

    def after(state: Hashable, action: Action) -> Hashable | Illegal:
        result = model.step(state, action)
        return result if isinstance(result, Illegal) else blurred(result)

    state = blurred(model.initial)
    exactly: Hashable = model.initial
    used = {number for _, number, _ in chain}
    settled = [
        number
        for number, (call, ret) in enumerate(zip(steps.call, steps.ret, strict=True))
        if since <= ret != FOREVER and call < event and number not in used
    ]
    owed = set(end.owed)
    settled = [number for number in reversed(settled) if number not in owed]
    result: list[int] = []
    open_now: list[int] = []
    for _, step, ended in [*chain, (None, None, event)]:
        if ended >= since:
            # Settled while this state lasted, until the next move: whoever was called before it.
            while settled and steps.call[settled[-1]] < ended:
                open_now.append(settled.pop())
            looping = [n for n in open_now if after(state, steps.action(n)) == state]
            result += looping
            taken = set(looping)
            if step is not None:
                if steps.action(step).f in model.blind:
                    covered = [
                        n
                        for n in open_now
                        if n not in taken
                        and steps.action(n).f in model.blind
                        and steps.ret[n] >= ended
                    ]
                    result += covered
                    taken.update(covered)
                result.append(step)
            open_now = [n for n in open_now if n not in taken]
            late = [n for n in open_now if steps.ret[n] < ended and steps.call[n] >= since]
            assert not late, f"no place for the settled steps {late} before event {ended}"
        if step is not None:
            exactly = _next(model, exactly, step, steps)
            next_state = after(state, steps.action(step))
            assert not isinstance(next_state, Illegal), f"step {step}: {next_state.reason}"
            state = next_state
    unplaced = [n for n in open_now if steps.call[n] >= since]
    assert not unplaced, f"no place for the settled steps {unplaced}"
    if since == 0:
        # With every step in its place the state is known exactly, unseen or not.
        exactly = model.initial
        for number in result:
            exactly = _next(model, exactly, number, steps)
    return result, exactly


def _next(model: Model, state: Hashable, number: int, steps: Steps) -> Hashable:
    after = model.step(state, steps.action(number))
    assert not isinstance(after, Illegal), f"step {number}: {after.reason}"
    return after


def _why_not(subject: Subject, number: int, prefix: Sequence[int], state: Hashable) -> str:
    """Say in one sentence why a step cannot come next."""
    model, steps = subject.model, subject.steps
    step = steps[number]
    after = model.step(state, step.action)
    if not isinstance(after, Illegal):
        return f"it can be placed, leaving {model.shown(after)}, but not all the others after it"
    wanted = model.needs(step.action)
    if wanted is None:
        return after.reason
    leaving = {c for c, a in enumerate(steps.classes.actions) if model.leaves(a) == wanted}
    sources = {n for n, of_class in enumerate(steps.of_class) if of_class in leaving}
    if not sources:
        origin = "" if wanted == model.initial else f"; no operation ever leaves {wanted}"
        return after.reason + origin
    first = min(sources, key=steps.call.__getitem__)
    if step.ret is not None and steps.call[first] > step.ret:
        invoke = subject.kept[first].invoke
        when = (
            f"op {invoke.index}, invoked{at(invoke.time)}"
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
                f"{after.reason}; {wanted} was left by op {steps.call[left]} and replaced by "
                f"op {steps.call[over]} ({described(steps.action(over))})"
            )
    return after.reason


def _changes(subject: Subject, number: int, value: str) -> bool:
    left = subject.model.leaves(subject.steps.action(number))
    return left is not None and left != value


def _headline_of_core(core: Core) -> str:
    many = len(core.numbers)
    what = "this operation cannot be" if many == 1 else f"these {many} contradict each other"
    before = "" if core.start is None else f", and whatever happened before op {core.start}"
    # The others are weakened, not gone: each may have happened at any time after its invocation.
    return f"{what}, whatever became of the other operations{before}:"


def _as_json(shown: str) -> Any:
    try:
        return msgspec.json.decode(shown)
    except msgspec.DecodeError:
        return shown
