"""What a run goes on in: nodes, clients and time, real ones or simulated ones.

The steps of a run are the same for both; all that differs is here and in `labrys.control.sim`.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from labrys.control.environments import registry as environments
from labrys.control.environments.base import Environment
from labrys.control.nemesis.nemesis import build_packages, needs_of
from labrys.control.nemesis.package import FaultPackage
from labrys.control.spec import Spec
from labrys.control.systems.raftkv import RaftKv
from labrys.control.systems.registry import SYSTEMS
from labrys.control.worker import Crew, ThreadCrew
from labrys.workloads.kv import KvClient
from labrys.workloads.sessions import SessionClient


class Stage(Protocol):
    """One run's nodes, and the means to work with them."""

    env: Environment
    system: RaftKv
    packages: tuple[FaultPackage, ...]
    started_at: datetime
    is_real: bool
    """Whether anything outlives labrys, should it die."""

    def entered(self) -> AbstractContextManager[None]:
        """Around all that is done with the nodes."""

    def clock_ns(self) -> int:
        """Time since the run began."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def crew(self) -> Crew:
        """Workers for clients and nemesis."""

    def client(self, node: str, consistency: str, *, has_session: bool) -> KvClient:
        """A connection to the store at `node`, and how consistent its reads are.

        With a session writes are sent again until their outcome is known.
        """

    def has_not_recovered(self) -> None:
        """The cluster is not healthy, although nothing hurts it any more."""

    def probes(self) -> dict[str, int]:
        """How often nodes got into rare states (`labrys.node.probes`), if seen."""


class RealStage:
    """Nodes in an environment, threads, and the machine's clock."""

    is_real = True

    def __init__(self, spec: Spec, run_dir: Path, say: Callable[[str], None]) -> None:
        assert spec.seed is not None, "only a resolved spec can be run"
        self.started_at = datetime.now(UTC)
        self._began_ns = time.monotonic_ns()
        self._op_timeout_s = spec.op_timeout
        self.env: Environment = environments.make(
            spec.env, spec.node_names, run_dir, say, spec.hosts
        )
        self.system = SYSTEMS[spec.system](
            self.env, seed=spec.seed, bug=spec.bug, options=spec.system_options
        )
        self.env.require(needs_of(spec.fault_kinds))
        self.packages = build_packages(spec.fault_options, self.env, self.system)

    def entered(self) -> AbstractContextManager[None]:
        """See `Stage`."""
        return nullcontext()

    def clock_ns(self) -> int:
        """See `Stage`."""
        return time.monotonic_ns() - self._began_ns

    def sleep(self, seconds: float) -> None:
        """See `Stage`."""
        time.sleep(seconds)

    def crew(self) -> Crew:
        """See `Stage`."""
        return ThreadCrew()

    def client(self, node: str, consistency: str, *, has_session: bool) -> KvClient:
        """See `Stage`."""
        kind = SessionClient if has_session else KvClient
        return kind(self.system.url(node), timeout_s=self._op_timeout_s, consistency=consistency)

    def has_not_recovered(self) -> None:
        """See `Stage`: a real machine may be too slow, so nothing is concluded from it."""

    def probes(self) -> dict[str, int]:
        """See `Stage`: nobody looks into a real node."""
        return {}


def make_stage(
    spec: Spec, run_dir: Path, say: Callable[[str], None], stop: Callable[[], None]
) -> Stage:
    """Return the stage for a resolved spec; nothing is provisioned yet.

    It calls `stop` when it sees that there is nothing more to find out.
    """
    if spec.env == "sim":
        from labrys.control.sim.stage import SimStage

        return SimStage(spec, say, stop)
    return RealStage(spec, run_dir, say)
