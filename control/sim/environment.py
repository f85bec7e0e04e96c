"""The simulated environment: machines in memory, and a network between them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from labrys.control.environments.base import Environment, Output
from labrys.control.errors import ClusterError, InternalError
from labrys.control.sim.clock import EPOCH_MS
from labrys.control.sim.machine import Machine
from labrys.control.sim.network import Network
from labrys.control.sim.watch import Watch
from labrys.control.sim.world import World
from labrys.node.logline import wall_iso

LOG: Final = "log"
"""The file of a node's log."""


class SimEnvironment:
    """Nodes that exist in a `World` only."""

    name = "sim"

    def __init__(
        self, world: World, nodes: tuple[str, ...], started_at: datetime, watch: Watch
    ) -> None:
        self.world = world
        self.nodes = nodes
        self._started_at = started_at
        self._hosts = {node: f"10.0.0.{place}" for place, node in enumerate(nodes, start=1)}
        self.network = Network(world, {host: node for node, host in self._hosts.items()})
        self.machines = {node: Machine(world, self.network, node, watch) for node in nodes}
        self.by_host = {self._hosts[node]: machine for node, machine in self.machines.items()}

    def awake(self, node: str) -> Machine:
        """The machine of a node; ClusterError if it stands still and nothing can be done there."""
        machine = self.machines[node]
        if machine.is_frozen:
            raise ClusterError(
                f"{node}: stands still; nothing can be done in it until it is thawed"
            )
        return machine

    def require(self, needs: frozenset[str]) -> None:
        """A simulated machine needs nothing beforehand."""

    def provision(self) -> None:
        """Nothing to do: machines in memory are there at once."""

    def address(self, node: str) -> str:
        """See `Environment`."""
        return self._hosts[node]

    def home(self, node: str) -> str:
        """See `Environment`."""
        return "/labrys"

    def log_dir(self, node: str) -> str:
        """See `Environment`."""
        return "/labrys/log"

    def python(self, node: str) -> str:
        """See `Environment`."""
        return "python3"

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        """Nothing runs on a simulated machine but the node: see `labrys.control.sim.faults`."""
        raise InternalError(f"{node}: a script for a simulated machine: {script.strip()[:200]!r}")

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        """Nothing to do: the node's code is labrys' own."""

    def freeze(self, node: str) -> int:
        """See `Freezable`."""
        return self.machines[node].freeze()

    def thaw(self, node: str) -> bool:
        """See `Freezable`."""
        return self.machines[node].thaw()

    def limit_cpu(self, node: str, share: float | None) -> int:
        """See `CpuLimited`."""
        return self.awake(node).limit_cpu(share)

    def limit_memory(self, node: str, room_bytes: int | None) -> int:
        """See `MemoryLimited`."""
        return self.awake(node).limit_memory(room_bytes)

    def collect_logs(self, node: str, into: Path) -> None:
        """Write the log, with the times of day of this run."""
        started_ms = round(
            (self._started_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e3
        )
        lines = [
            f"{wall_iso(at_ms - EPOCH_MS + started_ms)} {text}"
            for at_ms, text in self.machines[node].log
        ]
        (into / LOG).write_text("".join(f"{line}\n" for line in lines))

    def destroy(self) -> None:
        """End the world."""
        self.world.end()


def simulated(env: Environment) -> SimEnvironment:
    """The environment, which must be a simulated one."""
    assert isinstance(env, SimEnvironment), f"{env} is not simulated"
    return env
