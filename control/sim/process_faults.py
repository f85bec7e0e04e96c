"""Faults of processes and of what they need, in the simulation: see the kinds of the same names."""

from collections.abc import Mapping
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.nemesis.freeze import Freeze
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.kill import Kill
from labrys.control.nemesis.oom import Oom, OomOptions
from labrys.control.nemesis.pause import Pause
from labrys.control.nemesis.slow_cpu import SlowCpu
from labrys.control.nemesis.storm import RestartStorm, Storm
from labrys.control.sim.environment import simulated
from labrys.control.sim.world import SECOND_NS, Signal, World
from labrys.control.systems.base import System

MECHANISM: Final = "the process and what it did not flush are gone"


class SimKill(Kill):
    """Ends the process, and with it what it had not flushed: as harsh as a power cut."""

    mechanism = MECHANISM


class SimPause(Pause):
    """Lets nothing happen in the process."""

    mechanism = "nothing in the process happens"
    cure_word = "letting it go on"


class SimFreeze(Freeze):
    """Lets nothing happen in the machine, and nothing be done in it."""

    mechanism = "nothing in the machine happens"
    cure_word = "letting it go on"

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Nothing is in the way."""
        return None


class SimSlowCpu(SlowCpu):
    """Lets computing take time, more than there is."""

    mechanism = "turns that take time, and a quota"
    cure_word = "lifting the quota"


class _SimStorm(Storm):
    def __init__(self, world: World, system: System, node: str, up_s: float, seed: str) -> None:
        super().__init__(system, node, up_s, seed)
        self._world = world
        self._told, self._ended = Signal(), Signal()

    def begin(self) -> None:
        self._world.spawn(self._run)

    def tell(self) -> None:
        self._world.set(self._told)

    def has_ended(self, timeout_s: float) -> bool:
        return self._world.wait(self._ended, timeout_s * SECOND_NS)

    def _run(self) -> None:
        self.rage(lambda seconds: self._world.wait(self._told, seconds * SECOND_NS))
        self._world.set(self._ended)


class SimStorm(RestartStorm):
    """Kills and starts processes many times."""

    mechanism = f"{MECHANISM}, many times"

    def make(self, node: str, up_s: float, seed: str) -> Storm:
        """See `RestartStorm`."""
        return _SimStorm(simulated(self.env).world, self.system, node, up_s, seed)


class _SimHog(Helper):
    """Takes the memory of a simulated machine once there is a limit."""

    def install(self, node: str) -> None:
        """Nothing to put there."""

    def start(self, node: str, *words: str) -> None:
        """Begin to wait for a limit."""
        simulated(self._env).awake(node).hog_mib = 0

    def stop(self, node: str) -> Mapping[str, Any]:
        """End it."""
        machine = simulated(self._env).awake(node)
        taken_mib, machine.hog_mib = machine.hog_mib, None
        return {} if taken_mib is None else {"hog_mib": taken_mib}


class SimOom(Oom):
    """Lets the kernel kill the process when another one has taken the memory."""

    mechanism = "a process that takes the rest of the memory"

    def __init__(self, env: Environment, system: System, options: OomOptions) -> None:
        super().__init__(env, system, options)
        self._hog = _SimHog(env, "hog", "")

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Nothing is in the way."""
        return None
