"""Faults of clocks in the simulation: see `labrys.control.nemesis.clock`.

Every machine has its own, so nothing has to be preloaded, and whatever asks is told the same.
"""

from collections.abc import Mapping
from typing import Any, Final

from labrys.control.nemesis import clock as real
from labrys.control.sim.clock import Clock
from labrys.control.sim.environment import simulated
from labrys.control.sim.world import SECOND_NS, World

_WATCH_NS: Final = SECOND_NS // 20
"""How long rates are measured."""


class SimClock(real.Clock):
    """Gives the targets wrong clocks."""

    mechanism = "another time in the machine"
    evidence = "the clocks as the process reads them"
    cure_word = "setting them right"

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Nothing is in the way."""
        return None

    def environ(self, node: str) -> Mapping[str, str]:
        """Nothing to preload."""
        return {}

    def set_up(self) -> None:
        """Nothing to prepare."""

    def tear_down(self) -> None:
        """Let all clocks go right."""
        for machine in simulated(self.env).machines.values():
            machine.clock.set({})

    def _put_right(self, node: str) -> str:
        simulated(self.env).awake(node).clock.set({})
        return "has the right time"

    def _set(self, node: str, settings: Mapping[str, float]) -> dict[str, Any]:
        env = simulated(self.env)
        machine = env.awake(node)
        clock, world = machine.clock, env.world
        before = _offsets(clock, world)
        clock.set(settings)
        after = _offsets(clock, world)
        strobe_ns, rates = 0, {"wall_ns": 1.0, "monotonic_ns": 1.0}
        if settings.get("strobe_ns"):
            world.sleep(settings["strobe_half_ns"] / SECOND_NS)
            strobe_ns = abs(clock.wall_ahead_ns() - after["wall_ns"])
        if settings.get("wall_drift") or settings.get("mono_drift"):
            world.sleep(_WATCH_NS / SECOND_NS)
            last = _offsets(clock, world)
            passed_ns = last["true_ns"] - after["true_ns"]
            rates = {name: 1 + (last[name] - after[name]) / passed_ns for name in rates}
        return {
            "before": before,
            "after": after,
            "wall_rate": round(rates["wall_ns"], 5),
            "monotonic_rate": round(rates["monotonic_ns"], 5),
            "strobe_ns": strobe_ns,
            "processes": int(machine.process is not None),
        }


def _offsets(clock: Clock, world: World) -> dict[str, int]:
    """How far the clocks are ahead of what they would be, and when that was."""
    return {
        "true_ns": world.now_ns,
        "wall_ns": clock.wall_ahead_ns(),
        "monotonic_ns": clock.monotonic_ahead_ns(),
    }
