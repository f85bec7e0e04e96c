"""Clocks: those of a node jump, run fast or slow, or flicker; the machine's are never touched.

By a library that is preloaded into the database (`clock_shim.c`) and obeys a page of memory in the
node, which `clock_page` writes. So the database has to be started with it (`environ`), and whatever
is started there later finds the page as it is. Only runs with this fault pay for that.

The monotonic clock never steps back, not even in an undo: that one sets the wall clock right, and
lets the monotonic clock go on at the true rate from where it is.
"""

import json
import platform
import random
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from labrys.control.environments.base import Environment, check, on_nodes
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.nemesis import clock_page, shim
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.package import Outcome, Planned, deal, each
from labrys.control.systems.base import System

_TRY_NS: Final = -1_000_000_000
"""What a clock has to obey before there is a database."""
_NEAR_NS: Final = 5_000_000
"""How close to what was asked for a clock has to be."""
_NEAR: Final = 0.2
"""The same for the strength of a drift, as a part of it."""
_LEAST_DRIFT: Final = 0.001
"""A weaker one is not seen in the time that a rate is measured."""
_RIGHT: Final[Mapping[str, float]] = {}
_SAYS = {"wall": "wall_rate", "monotonic": "monotonic_rate"}


class Mode(StrEnum):
    """What becomes of a clock."""

    JUMP = "jump"
    """The wall clock is wrong from one moment to the next, and stays so."""
    DRIFT = "drift"
    """Clocks run at another rate."""
    STROBE = "strobe"
    """The wall clock steps to and fro."""
    SKIP = "skip"
    """The monotonic clock is further on all at once, as after a machine that was suspended."""


class WhichClock(StrEnum):
    """A clock of a machine."""

    WALL = "wall"
    MONOTONIC = "monotonic"


_NEEDS = {
    Mode.JUMP: WhichClock.WALL,
    Mode.STROBE: WhichClock.WALL,
    Mode.SKIP: WhichClock.MONOTONIC,
}


class ClockOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {clock: ...}`.

    By default no clock runs so fast or so slow that a lease read of our node could be stale, and
    no monotonic clock skips, which no lease survives.
    """

    modes: tuple[Mode, ...] = (Mode.JUMP, Mode.DRIFT, Mode.STROBE)
    """Each has its turn; jump and strobe are of the wall clock, skip is of the monotonic one."""
    clocks: tuple[WhichClock, ...] = (WhichClock.WALL, WhichClock.MONOTONIC)
    """Which of them drift, together."""
    jump_ms: tuple[float, ...] = (-60_000.0, -1_000.0, 1_000.0, 60_000.0)
    """How far it jumps, once; each fault draws one of them, as of the others."""
    rates: tuple[float, ...] = (0.9, 1.1)
    """Seconds that a drifting clock counts in one."""
    strobe_ms: tuple[float, ...] = (200.0, 4_000.0)
    """How far it steps forth, and back again."""
    strobe_period_ms: tuple[float, ...] = (20.0, 200.0)
    """How long a step forth and one back take together."""
    skip_ms: tuple[float, ...] = (1_000.0, 10_000.0)
    """How far a monotonic clock skips ahead."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for clocks that cannot be."""
        super().check(nodes)
        if not self.modes:
            raise UsageError(f"modes: name at least one of {', '.join(Mode)}")
        if not self.clocks:
            raise UsageError(f"clocks: name at least one of {', '.join(WhichClock)}")
        for mode in self.modes:
            needed = _NEEDS.get(mode)
            if needed is not None and needed not in self.clocks:
                raise UsageError(
                    f"modes: {mode} is of the {needed} clock, and clocks names only "
                    f"{', '.join(self.clocks)}; name the modes: [{_fitting(self.clocks)}]"
                )
        day_ms = 86_400_000.0
        for name, least, most in (
            ("jump_ms", -3650 * day_ms, 3650 * day_ms),
            ("rates", 0.01, 100.0),
            ("strobe_ms", -3650 * day_ms, 3650 * day_ms),
            ("strobe_period_ms", 2.0, 2_000.0),
            ("skip_ms", 1.0, 3650 * day_ms),
        ):
            values = getattr(self, name)
            # Asked this way round, NaN is refused too.
            if not values or not all(least <= value <= most for value in values):
                raise UsageError(f"{name}: name at least one, each from {least:g} to {most:g}")
        for name in ("jump_ms", "strobe_ms"):
            if any(abs(value) < 1 for value in getattr(self, name)):
                raise UsageError(f"{name}: less than a millisecond is no change to be seen")
        if any(abs(rate - 1) < _LEAST_DRIFT for rate in self.rates):
            raise UsageError(f"rates: each at least {_LEAST_DRIFT:g} off 1, the true rate")


class Clock(AimedFault):
    """Gives the databases of the targets wrong clocks."""

    kind = "clock"
    start_f = "start-clock"
    stop_f = "stop-clock"
    undo_order = 3
    """Last of all: what was paused wakes, and what was killed starts, in the time that it knew."""
    shade = "#b5d6a7"
    mechanism = "preloaded library and a page of settings"
    evidence = "the clocks as a process in the node reads them"
    cure_word = "setting the page"
    options_type = ClockOptions

    def __init__(self, env: Environment, system: System, options: ClockOptions) -> None:
        super().__init__(env, system, options)
        self._options = options

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Without a compiler there is no shim."""
        try:
            shim.build()
        except MachineError as error:
            return str(error)
        return None

    def environ(self, node: str) -> Mapping[str, str]:
        """Return what makes the database's clocks obey the page of its node."""
        library, page, _ = self._files(node)
        return {"LD_PRELOAD": library, "LABRYS_CLOCK_PAGE": page}

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whose clocks do what."""
        options = self._options
        mode = deal([[mode] for mode in options.modes], turn, f"{seed}/mode")
        rng = random.Random(f"{seed}/how/{turn}")
        how: dict[str, Any] = {"mode": mode.value}
        match mode:
            case Mode.JUMP:
                how["jump_ms"] = rng.choice(options.jump_ms)
            case Mode.DRIFT:
                how["rate"] = rng.choice(options.rates)
                how["clocks"] = [clock.value for clock in options.clocks]
            case Mode.STROBE:
                how["strobe_ms"] = rng.choice(options.strobe_ms)
                how["period_ms"] = rng.choice(options.strobe_period_ms)
            case Mode.SKIP:
                how["skip_ms"] = rng.choice(options.skip_ms)
        return {**super().plan(turn, seed), **how}

    def apply(self, planned: Planned) -> Outcome:
        """Set the pages of the targets, and look at the clocks there."""
        settings = settings_of(planned.plan)
        found, errors = each(planned.targets, lambda node: self._set(node, settings))
        bitten = {node: has_bitten(planned.plan, seen) for node, seen in found.items()}
        word = in_words(planned.plan)
        return Outcome(
            done={node: word if bitten[node] else f"not seen: {word}" for node in found},
            observed={node: _facts(seen) for node, seen in found.items()},
            bit=any(bitten.values()),
            errors=errors,
        )

    def undo(self) -> Outcome:
        """Set the wall clocks of all nodes right; the monotonic ones go on from where they are."""
        done, errors = each(self.env.nodes, self._put_right)
        return Outcome(done=done, errors=errors)

    def set_up(self) -> None:
        """Put shim and page into every node, and see that clocks obey. Raises MachineError."""
        files = {
            "clock_shim.so.new": shim.build(),
            "clock_page.py": Path(clock_page.__file__).read_bytes(),
        }
        on_nodes(self.env.nodes, lambda node: self._prepare(node, files))

    def tear_down(self) -> None:
        """Let all clocks go right, and leave no file behind."""
        on_nodes(self.env.nodes, self._remove)

    def _prepare(self, node: str, files: Mapping[str, bytes]) -> None:
        machine = check(node, "asking for its machine", self.env.run(node, "uname -m")).strip()
        if machine != platform.machine():
            raise MachineError(
                f"{node}: its processor is {machine} and the clock shim was compiled for "
                f"{platform.machine()}; run labrys on a machine like the nodes"
            )
        self.env.upload(node, files)
        library, page, tool = self._files(node)
        # A process that an earlier run left may have mapped the old one.
        move = shlex.join(["mv", f"{library}.new", library])
        make = shlex.join([self.env.python(node), "-IS", tool, "make", page])
        check(node, "making its page of clocks", self.env.run(node, f"{move} && {make}"))
        try:
            ahead_ns = self._set(node, {"wall_ns": _TRY_NS})["after"]["wall_ns"]
            if abs(ahead_ns - _TRY_NS) > _NEAR_NS:
                raise ClusterError(f"{node}: the clock does not obey: {ahead_ns / 1e6:+.1f} ms off")
            self._put_right(node)
        except ClusterError as error:
            raise MachineError(
                f"{error}. The preloaded library must load in the node: its C library must not be "
                f"older than the controller's, and {self.env.home(node)} not be mounted noexec"
            ) from error

    def _put_right(self, node: str) -> str:
        _, page, _ = self._files(node)
        if not check(
            node, "looking for its page", self.env.run(node, f"ls {shlex.quote(page)}; :")
        ):
            return "never had another clock"
        ahead_ns = self._set(node, _RIGHT)["after"]["wall_ns"]
        if abs(ahead_ns) > _NEAR_NS:
            raise ClusterError(f"{node}: the wall clock is still {ahead_ns / 1e6:+.1f} ms off")
        return "has the right time"

    def _remove(self, node: str) -> None:
        self._put_right(node)
        check(
            node, "removing the shim", self.env.run(node, f"rm -f {shlex.join(self._files(node))}")
        )

    def _set(self, node: str, settings: Mapping[str, float]) -> dict[str, Any]:
        """Set the page of one node; return what the clocks said there, before and after."""
        _, page, tool = self._files(node)
        variables = [f"{name}={value}" for name, value in self.environ(node).items()]
        argv = ["env", *variables, self.env.python(node), "-IS", tool, "set", page]
        script = shlex.join([*argv, json.dumps(settings)])
        said = check(node, "setting its clocks", self.env.run(node, script, timeout_s=30))
        seen: dict[str, Any] = json.loads(said)
        return seen

    def _files(self, node: str) -> tuple[str, str, str]:
        """The library, the page and the program that writes it."""
        home = self.env.home(node)
        return f"{home}/clock_shim.so", f"{home}/clock.page", f"{home}/clock_page.py"


def settings_of(plan: Mapping[str, Any]) -> dict[str, float]:
    """Return what the page has to say for a plan; see `clock_page.change`."""
    match Mode(plan["mode"]):
        case Mode.JUMP:
            return {"wall_ns": _ns(plan["jump_ms"])}
        case Mode.DRIFT:
            names = {WhichClock.WALL: "wall_drift", WhichClock.MONOTONIC: "mono_drift"}
            return {names[clock]: plan["rate"] - 1 for clock in map(WhichClock, plan["clocks"])}
        case Mode.STROBE:
            half_ns = _ns(plan["period_ms"]) // 2
            return {"strobe_ns": _ns(plan["strobe_ms"]), "strobe_half_ns": half_ns}
        case Mode.SKIP:
            return {"skip_ns": _ns(plan["skip_ms"])}


def has_bitten(plan: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Whether the clocks did as was planned, and a process lives by them."""
    before, after = seen["before"], seen["after"]
    if not seen["processes"]:
        return False
    match Mode(plan["mode"]):
        case Mode.JUMP:
            return bool(abs(after["wall_ns"] - _ns(plan["jump_ms"])) <= _NEAR_NS)
        case Mode.DRIFT:
            drift = plan["rate"] - 1
            rates = [seen[_SAYS[clock]] for clock in plan["clocks"]]
            return all(abs((rate - 1) / drift - 1) <= _NEAR for rate in rates)
        case Mode.STROBE:
            return bool(seen["strobe_ns"] >= (1 - _NEAR) * abs(_ns(plan["strobe_ms"])))
        case Mode.SKIP:
            skipped_ns = after["monotonic_ns"] - before["monotonic_ns"]
            return bool(skipped_ns >= (1 - _NEAR) * _ns(plan["skip_ms"]))


def in_words(plan: Mapping[str, Any]) -> str:
    """Say what becomes of a clock."""
    match Mode(plan["mode"]):
        case Mode.JUMP:
            return f"wall clock {plan['jump_ms'] / 1000:+g} s"
        case Mode.DRIFT:
            return f"{' and '.join(plan['clocks'])} clock at rate {plan['rate']:g}"
        case Mode.STROBE:
            every = f"every {plan['period_ms'] / 2:g} ms"
            return f"wall clock {plan['strobe_ms'] / 1000:+g} s and back {every}"
        case Mode.SKIP:
            return f"monotonic clock skips {plan['skip_ms'] / 1000:g} s"


def _facts(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is worth a place in the ledger."""
    gained_ns = seen["after"]["monotonic_ns"] - seen["before"]["monotonic_ns"]
    return {
        "wall_ms": round(seen["after"]["wall_ns"] / 1e6, 3),
        "wall_rate": seen["wall_rate"],
        "wall_strobe_ms": round(seen["strobe_ns"] / 1e6, 3),
        "monotonic_skip_ms": round(gained_ns / 1e6, 3),
        "monotonic_rate": seen["monotonic_rate"],
        "processes": seen["processes"],
    }


def _ns(ms: float) -> int:
    return round(ms * 1e6)


def _fitting(clocks: Sequence[WhichClock]) -> str:
    return ", ".join(mode for mode in Mode if _NEEDS.get(mode) in (None, *clocks))
