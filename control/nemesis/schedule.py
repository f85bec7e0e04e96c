"""When which kind of fault strikes: rounds of faults and quiet, as generators.

A round is a fault of each kind that takes part, and the quiet after it. The kinds of a round strike
one after the other within its first quarter, overlap, and then rest together. Striking all at once,
only the first would find a leader to aim at. Spread over the whole round, there would be no quiet
in which the cluster recovers and makes progress.

With many kinds a round of all of them is no test any more: nothing can succeed. Then some take part
in each round, drawn so that all have their turns, and those of more weight more of them.

All of it is a function of the seed: plans and times do not depend on what the cluster does.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from labrys.checkers.op import NEMESIS, Op
from labrys.control.errors import UsageError
from labrys.control.nemesis.package import FaultPackage, Options
from labrys.workloads.context import Context
from labrys.workloads.generator import DONE, Generator, Pending, Step, assign, template

JITTER: Final = 0.15
"""Each beginning and end is early or late by up to this part of the interval."""

STRIKES_WITHIN: Final = 0.25
"""The part of a round in which all its kinds begin."""

ALL_AT_ONCE_MAX: Final = 4
"""So many kinds strike in every round, if nothing else is said; of more, some."""


class Timetable(msgspec.Struct, frozen=True):
    """The rhythm of a test. Times are in seconds."""

    interval_s: float
    """How long a fault holds."""
    quiet_s: float | None = None
    """How long the quiet after it is; None: as long as the fault. 0: one strikes as others heal."""
    at_once: int | None = None
    """How many kinds take part in a round; None: see `kinds_at_once`."""
    time_limit_s: float = 60.0

    def round_s(self, interval_s: float | None) -> float:
        """How long a round takes, for a kind that may have an interval of its own."""
        holds_s = self.interval_s if interval_s is None else interval_s
        return holds_s + (holds_s if self.quiet_s is None else self.quiet_s)

    def check(self, options: Mapping[str, Options]) -> None:
        """Raise UsageError if a fault would outlast its round, or a weight would mean nothing."""
        if self.at_once is not None and self.at_once < 1:
            raise UsageError(f"--faults-at-once {self.at_once}: must be at least 1")
        if self.quiet_s is not None and not 0 <= self.quiet_s < math.inf:
            raise UsageError(f"--fault-quiet {self.quiet_s:g}: must be 0 or more seconds")
        for kind, given in options.items():
            round_s = self.round_s(given.interval_s)
            if given.hold_s is not None and given.hold_s >= round_s:
                raise UsageError(
                    f"faults: {kind}: hold_s: {given.hold_s:g} s do not fit into a round, which is "
                    f"the fault and the quiet after it, {round_s:g} s; hold shorter or rest longer"
                )
            if given.weight != 1 and self.kinds_at_once(len(options)) == len(options):
                raise UsageError(
                    f"faults: {kind}: weight: means nothing while all kinds strike in every round; "
                    f"set --faults-at-once below {len(options)}"
                )

    def kinds_at_once(self, kind_count: int) -> int:
        """How many of the kinds take part in a round.

        If nothing else is said: all of a few, and of many so many that each has its turn in time,
        better three of them, since one may find nobody to hurt.
        """
        if self.at_once is not None:
            return min(self.at_once, kind_count)
        if kind_count <= ALL_AT_ONCE_MAX:
            return kind_count
        rounds = max(1, int(self.time_limit_s / self.round_s(None)))
        once, thrice = -(-kind_count // rounds), -(-3 * kind_count // rounds)
        return min(kind_count, max(2, once, min(thrice, ALL_AT_ONCE_MAX)))


class Rounds:
    """Who takes part in which round: drawn by weight, as fairly as can be.

    Of equal weights nobody has a second turn before all have had their first. The draws are made
    when they are asked for, and always the same.
    """

    def __init__(self, weights: Mapping[str, int], at_once: int, seed: str) -> None:
        assert 1 <= at_once <= len(weights), f"{at_once} of {len(weights)} kinds at once"
        self._weights = weights
        self._at_once = at_once
        self._rng = random.Random(f"{seed}/rounds")
        self._rounds: dict[str, list[int]] = {kind: [] for kind in weights}
        self._due = {kind: self._rng.random() / weight for kind, weight in weights.items()}
        self._count = 0

    def of_turn(self, kind: str, turn: int) -> int:
        """Return the number of the round in which `kind` has its turn number `turn`."""
        rounds = self._rounds[kind]
        while len(rounds) <= turn:
            for chosen in sorted(self._due, key=self._due.__getitem__)[: self._at_once]:
                self._rounds[chosen].append(self._count)
                turns = len(self._rounds[chosen])
                self._due[chosen] = (turns + self._rng.random()) / self._weights[chosen]
            self._count += 1
        return rounds[turn]


class Schedule(Generator, frozen=True, kw_only=True):
    """The faults of one kind: one in each round in which it takes part.

    The first round begins after half an interval. `phase` puts the fault off by a part of the
    round, from 0 to 1. If the nemesis was late, because it was busy with another kind, the next
    step waits until this one has held for half of its time.
    """

    package: FaultPackage
    rounds: Rounds
    seed: str
    round_ns: int
    hold_ns: int
    interval_ns: int
    phase: float = 0.0
    step: int = 0
    origin: int | None = None
    """When the first round begins for this kind, jitter aside; None until the schedule is asked for
    the first time. All is counted from here, so that jitter does not add up and kinds keep their
    phases."""
    due: int = 0
    """When the next step is due, once it has `begun`. Kept, since it is asked for very often."""

    def begun(self, ctx: Context) -> "Schedule":
        """Return the schedule with its beginning, which is now if it had none."""
        if self.origin is not None:
            return self
        wait_ns = self.interval_ns // 2 + round(self.phase * self.round_ns)
        return msgspec.structs.replace(self, origin=ctx.time + wait_ns)._at(self.step, 0)

    def op(self, ctx: Context) -> "tuple[Op | Pending, Schedule]":
        """Return the next op when it is due. Never exhausted: wrap it in a time limit."""
        if self.origin is None:
            return self.begun(ctx).op(ctx)
        if ctx.time < self.due:
            return Pending(self.due), self
        op = assign(ctx, self._next())
        if isinstance(op, Pending):
            return op, self
        return op, self._at(self.step + 1, ctx.time + self._length_ns() // 2)

    def _at(self, step: int, not_before: int) -> "Schedule":
        assert self.origin is not None, "not begun"
        there = msgspec.structs.replace(self, step=step)
        due = max(not_before, self.origin + there._offset_ns())
        return msgspec.structs.replace(there, due=due)

    def _next(self) -> Op:
        turn, is_stop = divmod(self.step, 2)
        if is_stop:
            op = template(self.package.stop_f)
        else:
            op = template(self.package.start_f, self.package.plan(turn, self.seed))
        return msgspec.structs.replace(op, process=NEMESIS)

    def _length_ns(self) -> int:
        """How long what begins at this step lasts: the fault, or the quiet after it."""
        return self.round_ns - self.hold_ns if self.step % 2 else self.hold_ns

    def _offset_ns(self) -> int:
        """When this step is due, counted from the origin."""
        turn, is_stop = divmod(self.step, 2)
        rng = random.Random(f"{self.seed}/jitter/{self.step}")
        # A short fault must not be jittered away.
        jitter_ns = min(self.interval_ns, self.hold_ns) * rng.uniform(-JITTER, JITTER)
        number = self.rounds.of_turn(self.package.kind, turn)
        return number * self.round_ns + is_stop * self.hold_ns + round(jitter_ns)


class Together(Generator, frozen=True, kw_only=True):
    """Several schedules in order of time, also where the nemesis is late: it does one at a time.

    Out of order, a fault would strike before another one ends that was to be over.
    """

    schedules: tuple[Schedule, ...]

    def op(self, ctx: Context) -> Step:
        """Return the op that is due first, as soon as it is."""
        if self.schedules[0].origin is None:
            return Together(schedules=tuple(each.begun(ctx) for each in self.schedules)).op(ctx)
        schedules = list(self.schedules)
        place = min(range(len(schedules)), key=lambda place: schedules[place].due)
        op, schedules[place] = schedules[place].op(ctx)
        if isinstance(op, Pending):
            return op, self
        return op, Together(schedules=tuple(schedules))


def compose(packages: Sequence[FaultPackage], timetable: Timetable, seed: str) -> Generator:
    """Return the endless schedule of all packages."""
    if not packages:
        return DONE
    weights = {package.kind: package.weight for package in packages}
    rounds = Rounds(weights, timetable.kinds_at_once(len(weights)), seed)
    last = max(1, len(packages) - 1)
    return Together(
        schedules=tuple(
            schedule_of(package, timetable, rounds, seed, phase=STRIKES_WITHIN * place / last)
            for place, package in enumerate(
                sorted(packages, key=lambda package: package.strike_order)
            )
        )
    )


def schedule_of(
    package: FaultPackage, timetable: Timetable, rounds: Rounds, seed: str, *, phase: float = 0.0
) -> Schedule:
    """Return the schedule of one kind among others."""
    interval_s = package.interval_s or timetable.interval_s
    hold_s = package.holds * interval_s if package.hold_s is None else package.hold_s
    return Schedule(
        package=package,
        rounds=rounds,
        seed=f"{seed}/{package.kind}",
        round_ns=round(timetable.round_s(package.interval_s) * 1e9),
        hold_ns=round(hold_s * 1e9),
        interval_ns=round(interval_s * 1e9),
        phase=phase,
    )
