"""Faults at fixed times: a list in a spec or a file, or the faults of an earlier run again."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.history import HEAL, MAIN, PHASE
from labrys.checkers.op import NEMESIS, Op
from labrys.control.errors import UsageError
from labrys.control.nemesis.package import FaultPackage
from labrys.workloads.context import Context
from labrys.workloads.generator import Generator, Pending, Step, assign, template

SECONDS_MAX: Final = 1e6
DRAWS: Final = 60
"""So many plans of a kind show every form that they can have."""


class PlannedFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fault of the list. Times are in seconds since the main phase began."""

    at_s: float
    hold_s: float
    kind: str
    options: dict[str, Any] = {}
    """As in `faults`, e.g. `targets: [leader]`; what they leave open is drawn from the seed."""
    plan: dict[str, Any] | None = None
    """All there is to say, as a history has it; then there is nothing to draw."""

    @property
    def until_s(self) -> float:
        """When it is undone."""
        return round(self.at_s + self.hold_s, 9)


def check_plan(faults: Sequence[PlannedFault], time_limit_s: float) -> None:
    """Raise UsageError for times that cannot be, naming the fault by its place in the list."""
    last: dict[str, tuple[int, PlannedFault]] = {}
    for number, fault in enumerate(faults, start=1):
        where = f"fault_plan: fault {number} ({fault.kind})"
        if not 0 <= fault.at_s <= SECONDS_MAX:
            raise UsageError(f"{where}: at_s {fault.at_s:g}: must be 0 or more seconds")
        if not 0 < fault.hold_s <= SECONDS_MAX:
            raise UsageError(f"{where}: hold_s {fault.hold_s:g}: must be more than 0 seconds")
        if fault.at_s >= time_limit_s:
            raise UsageError(
                f"{where}: at_s {fault.at_s:g} is not before the end of the test, "
                f"{time_limit_s:g} s; set a longer --time-limit"
            )
        if fault.options and fault.plan is not None:
            raise UsageError(f"{where}: give options or a plan, not both: a plan says it all")
    for number, fault in sorted(enumerate(faults, start=1), key=lambda entry: entry[1].at_s):
        if fault.kind in last and fault.at_s < last[fault.kind][1].until_s:
            raise UsageError(
                f"fault_plan: fault {number} ({fault.kind}) begins before fault "
                f"{last[fault.kind][0]} of the same kind ends, at {last[fault.kind][1].until_s:g} s"
            )
        last[fault.kind] = (number, fault)


def faults_of(
    ops: Iterable[Op], starts: dict[str, str], stops: dict[str, str]
) -> list[PlannedFault]:
    """Return the faults that a history shows, as they were planned before anything was settled.

    `starts` and `stops` give the kind by the `f` of the op that begins and ends its faults. What
    was not ended lasts until the heal. Leaders are looked for again: a plan names none.
    """
    main_ns = end_ns = 0
    invocations: list[Op] = []
    is_completion = False
    for op in ops:
        if op.process != NEMESIS:
            end_ns = max(end_ns, op.time)
        elif op.f == PHASE:
            main_ns = op.time if op.value == MAIN else main_ns
            if op.value == HEAL:
                end_ns = op.time
                break
        else:
            # The nemesis does one thing at a time: a line that begins it, a line that ends it.
            if not is_completion:
                invocations.append(op)
            is_completion = not is_completion
    found: list[PlannedFault] = []
    for place, op in enumerate(invocations):
        kind = starts.get(op.f)
        if kind is None:
            continue
        ends = (
            later.time
            for later in invocations[place + 1 :]
            if kind in (starts.get(later.f), stops.get(later.f))
        )
        hold_ns = next(ends, end_ns) - op.time
        at_s, hold_s = round((op.time - main_ns) / 1e9, 9), round(max(hold_ns, 1000) / 1e9, 9)
        found.append(PlannedFault(at_s=at_s, hold_s=hold_s, kind=kind, plan=dict(op.value or {})))
    return found


class FixedSchedule(Generator, frozen=True, kw_only=True):
    """Plays ops at their times, counted from when it is asked for the first time."""

    steps: tuple[tuple[int, Op], ...]
    """(nanoseconds, op), in order of time."""
    place: int = 0
    origin: int | None = None

    def op(self, ctx: Context) -> Step | None:
        """Return the next op when it is due; late rather than never."""
        if self.place == len(self.steps):
            return None
        origin = ctx.time if self.origin is None else self.origin
        here = msgspec.structs.replace(self, origin=origin)
        due_ns, op = self.steps[self.place]
        if ctx.time < origin + due_ns:
            return Pending(origin + due_ns), here
        assigned = assign(ctx, op)
        if isinstance(assigned, Pending):
            return assigned, here
        return assigned, msgspec.structs.replace(here, place=self.place + 1)


def play(faults: Sequence[PlannedFault], plans: Sequence[FaultPackage], seed: str) -> Generator:
    """Return the generator of a list; `plans` are the packages with each fault's own options.

    Raises UsageError for a plan that is none of its kind, or names nodes that there are not.
    """
    steps = []
    for turn, (fault, package) in enumerate(zip(faults, plans, strict=True)):
        if fault.plan is None:
            plan = package.plan(turn, f"{seed}/{fault.kind}")
        else:
            plan = fault.plan
            _check_plan(turn + 1, fault.kind, plan, package)
        steps += [
            (fault.at_s, 1, template(package.start_f, plan)),
            (fault.until_s, 0, template(package.stop_f)),
        ]
    # Of what is due at the same time ends come first, beginnings as they stand in the list.
    steps.sort(key=lambda step: step[:2])
    return FixedSchedule(
        steps=tuple(
            (round(at_s * 1e9), msgspec.structs.replace(op, process=NEMESIS))
            for at_s, _, op in steps
        )
    )


def _check_plan(number: int, kind: str, plan: Mapping[str, Any], package: FaultPackage) -> None:
    where = f"fault_plan: fault {number} ({kind})"
    drawn = [package.plan(turn, "") for turn in range(DRAWS)]
    if set(plan) not in [set(one) for one in drawn]:
        example = msgspec.json.encode(drawn[0]).decode()
        raise UsageError(f"{where}: no plan of this kind; one looks like {example}")
    named = set(re.findall(r'"(n[0-9]+)"', msgspec.json.encode(plan).decode()))
    strangers = sorted(named - {*package.env.nodes})
    if strangers:
        raise UsageError(
            f"{where}: it names {', '.join(strangers)}; the nodes of this test are "
            f"{', '.join(package.env.nodes)}. Use as many nodes as the run that it comes from"
        )
