"""Restart storms: a process is killed and started again several times in a row.

It comes up to be killed while it reads its log, while it asks for votes, while it catches up. The
kills are done by a thread for each target, so that other faults need not wait for the storm to end.
The threads end when the storm is undone; those of a rig that died died with it.
"""

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError, LabrysError, UsageError
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.process import State
from labrys.control.systems.base import System

ENDS_WITHIN_S: Final = 20.0
"""How long the kill or start that is under way may take."""


class StormOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {restart-storm: ...}`."""

    up_ms: tuple[float, ...] = (50.0, 300.0, 1000.0)
    """How long a process lives on average; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for times that cannot be."""
        super().check(nodes)
        if not self.up_ms or not all(5 <= one <= 60_000 for one in self.up_ms):
            raise UsageError("up_ms: name at least one, each from 5 to 60000")


class RestartStorm(AimedFault):
    """Kills and starts some processes again and again, and starts the dead of all at the end."""

    kind = "restart-storm"
    start_f = "start-storm"
    stop_f = "stop-storm"
    undo_order = 1
    """Before kills: what they start must stay alive."""
    shade = "#cbaad6"
    mechanism = "SIGKILL and a new start, many times"
    evidence = "kills of a living process"
    cure_word = "starting it"
    options_type = StormOptions

    def __init__(self, env: Environment, system: System, options: StormOptions) -> None:
        super().__init__(env, system, options)
        self._means_ms = options.up_ms
        self._storms: dict[str, Storm] = {}

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how fast."""
        up_ms = random.Random(f"{seed}/up_ms/{turn}").choice(self._means_ms)
        return {**super().plan(turn, seed), "up_ms": up_ms, "seed": f"{seed}/{turn}"}

    def apply(self, planned: Planned) -> Outcome:
        """Let the storm begin, and leave it alone."""
        plan = planned.plan
        for node in planned.targets:
            storm = self.make(node, plan["up_ms"] / 1e3, f"{plan['seed']}/{node}")
            self._storms[node] = storm
            storm.begin()
        done = f"is killed every {plan['up_ms']:g} ms"
        return Outcome(done=dict.fromkeys(planned.targets, done))

    def undo(self) -> Outcome:
        """End the storm and start the dead of all nodes; tells how many were killed."""
        storms = dict(self._storms)
        for storm in storms.values():
            storm.tell()

        def calm(node: str) -> str:
            if node in storms and not storms[node].has_ended(ENDS_WITHIN_S):
                raise ClusterError(f"{node}: still being killed after {ENDS_WITHIN_S:g} s")
            self.system.start(node)
            return f"is {self.system.state(node)}"

        done, errors = each(self.env.nodes, calm)
        self._storms = {node: storm for node, storm in storms.items() if not storm.has_ended(0)}
        observed = {node: storm.facts() for node, storm in storms.items()}
        return Outcome(
            done=done,
            observed=observed,
            bit=any(storm.kills > 1 for storm in storms.values()) if storms else None,
            errors=errors,
        )

    def set_up(self) -> None:
        """Nothing to prepare: whoever runs the test starts the processes."""

    def tear_down(self) -> None:
        """Kill nobody any more; whoever runs the test stops the processes."""
        for storm in self._storms.values():
            storm.tell()
        for storm in self._storms.values():
            storm.has_ended(ENDS_WITHIN_S)

    def make(self, node: str, up_s: float, seed: str) -> "Storm":
        """Return the storm of one node."""
        return _ThreadStorm(self.system, node, up_s, seed)


class Storm(ABC):
    """Kills and starts the process of one node until it is told to stop."""

    def __init__(self, system: System, node: str, up_s: float, seed: str) -> None:
        self.kills = self.refused = 0
        self._system = system
        self._node = node
        self._up_s = up_s
        self._rng = random.Random(seed)

    @abstractmethod
    def begin(self) -> None:
        """Rage beside whatever else is done."""

    @abstractmethod
    def tell(self) -> None:
        """Let it end."""

    @abstractmethod
    def has_ended(self, timeout_s: float) -> bool:
        """Wait until it has, for so long at most; whether it has."""

    def rage(self, is_told: Callable[[float], bool]) -> None:
        """Kill and start; `is_told` waits for so many seconds, or until it has to end."""
        while not is_told(0):
            try:
                was = self._system.state(self._node)
                self._system.kill(self._node)
                self.kills += was is not State.DEAD
                self._system.start(self._node)
            except LabrysError:
                # The node is being hurt otherwise, too. The undo starts it and tells what is wrong.
                self.refused += 1
            is_told(self._rng.uniform(0.5, 1.5) * self._up_s)

    def facts(self) -> dict[str, int]:
        """How often it was killed, and how often that or the start was not possible."""
        return {"kills": self.kills, "refused": self.refused}


class _ThreadStorm(Storm):
    def __init__(self, system: System, node: str, up_s: float, seed: str) -> None:
        super().__init__(system, node, up_s, seed)
        self._told = threading.Event()
        self._thread = threading.Thread(
            target=self.rage, args=(self._told.wait,), name=f"storm-{node}", daemon=True
        )

    def begin(self) -> None:
        self._thread.start()

    def tell(self) -> None:
        self._told.set()

    def has_ended(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
