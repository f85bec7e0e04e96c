"""The stage of a simulated run: see `labrys.control.stage`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

import requests

from labrys.control.environments.base import Environment, side_by_side
from labrys.control.nemesis.nemesis import build_packages
from labrys.control.sim.crew import GreenletCrew
from labrys.control.sim.environment import SimEnvironment
from labrys.control.sim.faults import SIM_PACKAGES
from labrys.control.sim.guard import guarded
from labrys.control.sim.http import SimSession
from labrys.control.sim.system import SimRaftKv
from labrys.control.sim.violation import Violation
from labrys.control.sim.watch import Watch
from labrys.control.sim.world import SECOND_NS, World
from labrys.control.spec import Spec
from labrys.control.systems.raftkv import RaftKv
from labrys.control.worker import Crew
from labrys.workloads.kv import KvClient
from labrys.workloads.sessions import SessionClient

LIVENESS_S: Final = 20.0
"""How long a cluster that did not recover is given on top, with nothing wrong around it."""


class SimStage:
    """Simulated nodes, greenlets, and virtual time."""

    is_real = False

    def __init__(
        self,
        spec: Spec,
        say: Callable[[str], None],
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """To be made and entered in one and the same greenlet.

        `stop` is called when a promise of Raft was broken: there is nothing more to find out.
        """
        assert spec.seed is not None, "only a resolved spec can be run"
        now = datetime.now(UTC)
        # Logs tell milliseconds: so their times are exact in terms of the run's clock.
        self.started_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self.world = World(spec.seed)
        self._say = say
        self._stop = stop
        self._op_timeout_s = spec.op_timeout
        self._watch = Watch(
            self._break_off,
            lambda: all(machine.clock.is_even for machine in self._sim.machines.values()),
        )
        self._sim = SimEnvironment(self.world, spec.node_names, self.started_at, self._watch)
        self.env: Environment = self._sim
        self.system: RaftKv = SimRaftKv(
            self._sim,
            self._session,
            seed=spec.seed,
            bug=spec.bug,
            options=spec.system_options,
        )
        self.packages = build_packages(
            spec.fault_options, self.env, self.system, packages=SIM_PACKAGES
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See `Stage`."""
        began_s = time.perf_counter()
        token = side_by_side.set(self.world.all_of)
        try:
            with guarded():
                yield
        finally:
            side_by_side.reset(token)
        taken_s = time.perf_counter() - began_s
        simulated_s = self.world.now_ns / SECOND_NS
        self._say(
            f"simulated {simulated_s:.1f} s in {taken_s:.1f} s: {self.world.events} events, "
            f"{simulated_s / taken_s:.0f} times as fast as time"
        )

    def clock_ns(self) -> int:
        """See `Stage`."""
        return self.world.now_ns

    def sleep(self, seconds: float) -> None:
        """See `Stage`."""
        self.world.sleep(seconds)

    def crew(self) -> Crew:
        """See `Stage`."""
        return GreenletCrew(self.world)

    def client(self, node: str, consistency: str, *, has_session: bool) -> KvClient:
        """See `Stage`."""
        kind = partial(SessionClient, sleep=self.sleep) if has_session else KvClient
        return kind(
            self.system.url(node),
            timeout_s=self._op_timeout_s,
            consistency=consistency,
            session=self._session,
            clock=lambda: self.world.now_ns / SECOND_NS,
        )

    def has_not_recovered(self) -> None:
        """See `Stage`: who cannot write at all now, with every process up, never will."""
        machines = self._sim.machines
        for node in machines:
            self.system.start(node)
        self.world.sleep(LIVENESS_S)
        if all(self.system.write_error(node) is not None for node in machines):
            told = "; ".join(machine.told() for machine in machines.values())
            what = Violation(f"liveness: no write succeeds {LIVENESS_S:g} s later: {told}")
            next(iter(machines.values())).break_promise(what)

    def probes(self) -> dict[str, int]:
        """See `Stage`."""
        return self._watch.probes.by_label()

    def _break_off(self, broken: str) -> None:
        self._say(f"at {self.world.now_ns / SECOND_NS:.6f} s a promise of Raft is broken: {broken}")
        self._stop()

    def _session(self) -> requests.Session:
        return SimSession(self.world, self._sim.by_host)
