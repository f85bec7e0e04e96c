"""The nodes of a cluster that a test hurts by hand, and the orders that they take.

`StagedNodes` are those of any stage (`labrys.control.stage`). Nodes in network namespaces can be
reached only from inside; `labrys.control.testing.inside` passes orders on to them.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from labrys.control.environments import registry as environments
from labrys.control.environments.base import on_nodes
from labrys.control.errors import ClusterError
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.package import Outcome, Planned
from labrys.control.process import State
from labrys.control.spec import Spec
from labrys.control.stage import make_stage
from labrys.control.store import RunDirectory
from labrys.workloads.kv import KvClient

HEALTHY_TIMEOUT_S: Final = 30.0
"""How long a cluster may take until a write through every node works, at first and healed."""
SIGNAL_TIMEOUT_S: Final = 2.0
"""How long a process may take until a signal shows."""
_POLL_S: Final = 0.02


class Nodes(Protocol):
    """Nodes that can be hurt. Everything raises LabrysError when it cannot be done."""

    started_at: datetime
    """Wall time at time 0 of their clock."""

    def begin(self) -> None:
        """Make the nodes, start the system, and wait until a write through every node works."""

    def kill(self, node: str) -> None:
        """Kill the process of a node."""

    def start(self, node: str) -> None:
        """Start it, unless it is there."""

    def pause(self, node: str) -> None:
        """Stop it in its tracks."""

    def resume(self, node: str) -> None:
        """Let it go on."""

    def cut(self, grudge: dict[str, list[str]]) -> None:
        """Let each node drop what comes from those that it holds a grudge against."""

    def heal(self) -> Outcome:
        """Undo all of this; tells what was seen of a partition. Waits for nothing."""

    def await_healthy(self) -> None:
        """Wait until a write through every node works."""

    def leader(self, among: Sequence[str], timeout_s: float) -> str:
        """Return the node among those that leads, once there is one."""

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """What each node says of itself; None where it does not answer."""

    def end(self) -> None:
        """Stop everything, fetch the logs and remove the nodes. Idempotent."""

    def url(self, node: str) -> str:
        """Where the node's API is found."""

    def client(self, node: str, consistency: str, *, has_session: bool) -> KvClient:
        """A connection to the store at `node`."""

    def clock_ns(self) -> int:
        """Time since the nodes were asked for."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class StagedNodes:
    """The nodes of a stage in this process."""

    def __init__(self, spec: Spec, run: RunDirectory, stop: Callable[[], None]) -> None:
        """`spec` has the one fault kind `partition`; see `make_stage` for `stop`."""
        self._spec = spec
        self._run = run
        self.stage = make_stage(spec, run.path, lambda line: None, stop)
        (self._partition,) = self.stage.packages
        self._entered = ExitStack()
        self._has_nodes = False
        self.started_at = self.stage.started_at
        self.client = self.stage.client
        self.clock_ns = self.stage.clock_ns
        self.sleep = self.stage.sleep

    def begin(self) -> None:
        """See `Nodes`."""
        stage = self.stage
        self._entered.enter_context(stage.entered())
        environments.heal_leftovers(self._spec.env, lambda line: None)
        self._has_nodes = True
        stage.env.provision()
        stage.system.install()
        self._partition.set_up()
        stage.system.start_all()
        self.await_healthy()

    def kill(self, node: str) -> None:
        """See `Nodes`."""
        self.stage.system.kill(node)

    def start(self, node: str) -> None:
        """See `Nodes`."""
        self.stage.system.start(node)

    def pause(self, node: str) -> None:
        """See `Nodes`; returns when the process is seen to stand still."""
        system = self.stage.system
        system.pause(node)
        deadline = system.monotonic_s() + SIGNAL_TIMEOUT_S
        while (state := system.state(node)) is not State.STOPPED:
            if system.monotonic_s() >= deadline:
                raise ClusterError(f"{node}: cannot be paused: the process is {state}")
            system.sleep(_POLL_S)

    def resume(self, node: str) -> None:
        """See `Nodes`."""
        self.stage.system.resume(node)

    def cut(self, grudge: dict[str, list[str]]) -> None:
        """See `Nodes`."""
        targets = grudges.cut_off(self.stage.env.nodes, grudges.from_json(grudge))
        _assert_done(self._partition.apply(Planned(targets=targets, plan={"grudge": grudge})))

    def heal(self) -> Outcome:
        """See `Nodes`."""
        system = self.stage.system
        outcome = self._partition.undo()
        on_nodes(self.stage.env.nodes, system.resume)
        system.start_all()
        _assert_done(outcome)
        return outcome

    def await_healthy(self) -> None:
        """See `Nodes`."""
        self.stage.system.await_healthy(HEALTHY_TIMEOUT_S, give_up=lambda: False)

    def leader(self, among: Sequence[str], timeout_s: float) -> str:
        """See `Nodes`; of several the one of the highest term."""
        system = self.stage.system
        deadline = system.monotonic_s() + timeout_s
        while True:
            for node in system.leaders():
                if node in among:
                    return node
            if system.monotonic_s() >= deadline:
                raise ClusterError(f"none of {', '.join(among)} led within {timeout_s:g} s")
            system.sleep(_POLL_S)

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """See `Nodes`."""
        return self.stage.system.statuses()

    def url(self, node: str) -> str:
        """See `Nodes`."""
        return self.stage.system.url(node)

    def end(self) -> None:
        """See `Nodes`; does every step even if an earlier one fails, and raises that failure."""
        if not self._has_nodes:
            return
        self._has_nodes = False
        stage = self.stage
        with ExitStack() as steps:  # the last one first
            steps.push(self._entered.pop_all())
            steps.callback(stage.env.destroy)
            steps.callback(on_nodes, stage.env.nodes, self._collect)
            steps.callback(self._partition.tear_down)
            steps.callback(stage.system.stop_all)

    def _collect(self, node: str) -> None:
        folder: Path = self._run.node(node)
        folder.mkdir(parents=True, exist_ok=True)
        self.stage.env.collect_logs(node, folder)


def _assert_done(outcome: Outcome) -> None:
    if outcome.errors:
        raise ClusterError("; ".join(f"{node}: {said}" for node, said in outcome.errors.items()))
