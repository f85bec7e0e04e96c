"""Faults of disks in the simulation: see `labrys.control.nemesis.disk` and `power`."""

from typing import Any

from labrys.control.disks import volume
from labrys.control.disks.layer import Layer
from labrys.control.environments.base import Environment
from labrys.control.nemesis.disk import Disk, DiskOptions
from labrys.control.nemesis.power import Power, PowerOptions
from labrys.control.sim.environment import simulated
from labrys.control.systems.base import System


class SimLayer(Layer):
    """The disks of simulated machines."""

    def __init__(self, env: Environment, system: System) -> None:
        super().__init__(env, system)
        self._machines = simulated(env)

    def mount(self, node: str) -> None:
        """Nothing to do: every disk is ours."""

    def leave(self, node: str) -> None:
        """Mend it."""
        self.restore(node)
        self.lift(node)

    def tell(self, node: str, do: str, **more: Any) -> dict[str, Any]:
        """Give the disk a command."""
        machine = self._machines.awake(node)
        match do:
            case "fail":
                machine.spoil(more)
            case "cut":
                machine.cut_power()
            case "lie":
                machine.lie(more["writeback_s"])
            case _:
                raise ValueError(f"there is no command {do!r}")
        return {}

    def lift(self, node: str) -> dict[str, Any]:
        """Mend the disk; what waited goes on. Tells what came of the fault, if there was one."""
        return self._machines.awake(node).mend()

    def restore(self, node: str, unsynced: str = volume.LOSE, seed: str = "") -> dict[str, Any]:
        """Give the disk its power back if it has none; tells what was lost then."""
        return self._machines.awake(node).restore_power(unsynced, seed)


class SimDiskFault(Disk):
    """Spoils the disks of the targets."""

    mechanism = "operations on files that fail or wait"

    def __init__(self, env: Environment, system: System, options: DiskOptions) -> None:
        super().__init__(env, system, options)
        self._layer = SimLayer(env, system)

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Nothing is in the way."""
        return None


class SimPower(Power):
    """Lets machines lose their power, and with it what they did not flush."""

    mechanism = "the process and what it did not flush are gone"

    def __init__(self, env: Environment, system: System, options: PowerOptions) -> None:
        super().__init__(env, system, options)
        self._layer = SimLayer(env, system)

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Nothing is in the way."""
        return None
