"""Out of memory: the kernel kills the database, since there is not enough for everything.

The node gets a little more memory than it has in use, and `hog`, a process in it, takes that. The
database is the first to be killed. Unlike a plain kill it comes when the node is out of memory:
its caches have been dropped, and what is started before the fault is undone may be killed as well.

It takes an environment that can limit a node's memory (`MemoryLimited`). Without a limit the whole
machine would have to run out; and a limit on the process's address space only makes allocations
fail that do not fit into what the process has already, which is nearly none.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control import process
from labrys.control.environments.base import Environment, MemoryLimited, on_nodes
from labrys.control.errors import MachineError, UsageError
from labrys.control.nemesis import hog
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.process import State
from labrys.control.systems.base import System

DIES_WITHIN_S: Final = 2.0
"""How long the next fault waits for this one; a process may also be killed later."""
_POLL_S: Final = 0.02
_HOG_MORE_MIB: Final = 64
"""How much the hog takes beyond the room, if nobody stops it: its share and what was reclaimed."""


class OomOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {oom: ...}`."""

    room_mib: tuple[float, ...] = (4.0, 16.0, 64.0)
    """How much memory the node has beyond what it uses; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for room that cannot be."""
        super().check(nodes)
        if not self.room_mib or not all(1 <= one <= 1024 for one in self.room_mib):
            raise UsageError("room_mib: name at least one, each from 1 to 1024")


class Oom(AimedFault):
    """Lets the kernel kill the database of the targets, and starts the dead of all."""

    kind = "oom"
    start_f = "run-out-of-memory"
    stop_f = "lift-memory-limit"
    undo_order = 1
    """Before kills, which start processes in need of memory."""
    shade = "#d4a9b8"
    mechanism = "cgroup limit and a process that takes the rest"
    evidence = "processes killed by the kernel"
    cure_word = "lifting the limit, starting it"
    options_type = OomOptions
    capability = MemoryLimited
    without = (
        "it cannot limit a node's memory, which takes control groups; use --env docker, or kill"
    )

    def __init__(self, env: Environment, system: System, options: OomOptions) -> None:
        super().__init__(env, system, options)
        self._rooms_mib = options.room_mib
        self._hog = Helper(env, "hog", hog.__file__)
        self._killed: dict[str, int] = {}
        """By node that is limited: how many processes had been killed there before."""

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much room to leave."""
        room_mib = random.Random(f"{seed}/room_mib/{turn}").choice(self._rooms_mib)
        return {**super().plan(turn, seed), "room_mib": room_mib}

    def apply(self, planned: Planned) -> Outcome:
        """Limit the targets and fill them up, in parallel."""
        room_mib = planned.plan["room_mib"]
        found, errors = each(planned.targets, lambda node: self._fill(node, room_mib))
        done = {node: f"has {room_mib:g} MiB to spare, is {now}" for node, now in found.items()}
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Lift the limit of all nodes and start the dead; tells how many were killed."""

        def cure(node: str) -> Mapping[str, Any]:
            facts = self._let_go(node)
            self.system.start(node)
            return facts

        found, errors = each(self.env.nodes, cure)
        observed = {node: facts for node, facts in found.items() if facts}
        return Outcome(
            done={node: "has all the memory" for node in found},
            observed=observed,
            bit=any(facts["oom_kills"] > 0 for facts in observed.values()) if observed else None,
            errors=errors,
        )

    def set_up(self) -> None:
        """Undo what an earlier run may have left, and put the hog into every node."""

        def prepare(node: str) -> None:
            self._let_go(node)
            self._hog.install(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no limit and no hog behind."""
        on_nodes(self.env.nodes, self._let_go)

    def _fill(self, node: str, room_mib: float) -> State:
        """Do it to one node; return the state of the database after it, or after a while."""
        name = self.system.process_name
        if self.system.state(node) is not State.DEAD:
            mib_max = str(round(room_mib) + _HOG_MORE_MIB)
            self._hog.start(node, process.pid_file(self.env, node, name), mib_max)
        self._killed[node] = self._limit(node, round(room_mib * (1 << 20)))
        deadline = self.system.monotonic_s() + DIES_WITHIN_S
        while (
            state := self.system.state(node)
        ) is not State.DEAD and self.system.monotonic_s() < deadline:
            self.system.sleep(_POLL_S)
        return state

    def _let_go(self, node: str) -> Mapping[str, Any]:
        """Undo it in one node; return how many were killed there, if it was limited."""
        killed = self._limit(node, None)
        facts = self._hog.stop(node)
        before = self._killed.pop(node, None)
        return {} if before is None else {**facts, "oom_kills": killed - before}

    def _limit(self, node: str, room_bytes: int | None) -> int:
        if not isinstance(self.env, MemoryLimited):
            raise MachineError(f"oom: not with --env {self.env.name}: {self.without}")
        return self.env.limit_memory(node, room_bytes)
