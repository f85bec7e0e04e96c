"""The Raft key-value store on simulated machines."""

from collections.abc import Callable, Mapping
from typing import Any

import requests

from labrys.control.process import State
from labrys.control.sim.environment import SimEnvironment
from labrys.control.sim.world import SECOND_NS
from labrys.control.systems.raftkv import TOLD_LINES, RaftKv
from labrys.node import cli


class SimRaftKv(RaftKv):
    """The same as `RaftKv`, by other means: it waits in virtual time and signals no processes."""

    def __init__(
        self,
        env: SimEnvironment,
        session: Callable[[], requests.Session],
        *,
        seed: int,
        bug: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """`session` makes one that ends in the simulated machines."""
        super().__init__(env, seed=seed, bug=bug, options=options)
        self._sim = env
        self._make_session = session

    def install(self) -> None:
        """Nothing to install."""

    def start(self, node: str) -> None:
        """See `RaftKv`."""
        self._sim.awake(node).start(cli.parse(self.node_flags(node)))

    def kill(self, node: str) -> None:
        """See `RaftKv`."""
        self._sim.awake(node).kill()

    def pause(self, node: str) -> None:
        """See `RaftKv`."""
        self._sim.awake(node).pause()

    def resume(self, node: str) -> None:
        """See `RaftKv`."""
        self._sim.awake(node).resume()

    def state(self, node: str) -> State:
        """See `RaftKv`."""
        return self._sim.machines[node].state

    def lose_data(self, node: str) -> int:
        """See `RaftKv`."""
        return self._sim.awake(node).lose_data()

    def log_end(self, node: str) -> int:
        """See `RaftKv`; here it counts lines."""
        return len(self._sim.machines[node].log)

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        """See `RaftKv`: without the times of day."""
        lines = self._sim.machines[node].log[end : end + TOLD_LINES]
        return tuple(text for _, text in lines)

    def monotonic_s(self) -> float:
        """See `RaftKv`."""
        return self._sim.world.now_ns / SECOND_NS

    def sleep(self, seconds: float) -> None:
        """See `RaftKv`."""
        self._sim.world.sleep(seconds)

    def session(self) -> requests.Session:
        """See `RaftKv`."""
        return self._make_session()
