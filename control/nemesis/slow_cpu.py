"""Slow CPU: a node has a small share of a core, and takes ten times as long for everything.

Where the environment can limit a whole node (`CpuLimited`), it does. Elsewhere `slower`, a process
in the node, stops the database and lets it go on, ten times a second.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control import process
from labrys.control.environments.base import CpuLimited, Environment, on_nodes
from labrys.control.errors import UsageError
from labrys.control.nemesis import slower
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.systems.base import System

PERIOD_MS: Final = 100
"""As the kernel's own quota: long enough for work to be done in a twentieth of it."""


class SlowCpuOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {slow-cpu: ...}`."""

    share: tuple[float, ...] = (0.02, 0.05, 0.2)
    """Of one core; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for what is no part of a core."""
        super().check(nodes)
        if not self.share or not all(0.01 <= one <= 0.99 for one in self.share):
            raise UsageError("share: name at least one, each from 0.01 to 0.99 of a core")


class SlowCpu(AimedFault):
    """Gives the targets less of the CPU."""

    kind = "slow-cpu"
    start_f = "slow-down"
    stop_f = "speed-up"
    undo_order = -1
    """Early: what is undone in a slow node takes its time."""
    strike_order = 4
    """Late, for the same reason."""
    shade = "#c9d6a8"
    mechanism = "cgroup quota, or SIGSTOP and SIGCONT by turns"
    evidence = "how often it had to wait"
    cure_word = "lifting the quota, ending the process"
    options_type = SlowCpuOptions

    def __init__(self, env: Environment, system: System, options: SlowCpuOptions) -> None:
        super().__init__(env, system, options)
        self._shares = options.share
        self._limited: CpuLimited | None = env if isinstance(env, CpuLimited) else None
        self._slower = Helper(env, "slower", slower.__file__)
        self._waits: dict[str, int] = {}
        """By node that is limited: how often it had had to wait before."""

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        share = random.Random(f"{seed}/share/{turn}").choice(self._shares)
        return {**super().plan(turn, seed), "share": share}

    def apply(self, planned: Planned) -> Outcome:
        """Slow the targets down, in parallel."""
        share = planned.plan["share"]

        def slow_down(node: str) -> str:
            if self._limited is not None:
                self._waits[node] = self._limited.limit_cpu(node, share)
            else:
                self._let_go(node)
                pid_file = process.pid_file(self.env, node, self.system.process_name)
                self._slower.start(node, pid_file, str(share), str(PERIOD_MS))
            return f"has {share:g} of a core"

        done, errors = each(planned.targets, slow_down)
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Give all nodes all they want; tells how often they had to wait."""
        found, errors = each(self.env.nodes, self._let_go)
        observed = {node: facts for node, facts in found.items() if facts}
        return Outcome(
            done={node: "has all of a core" for node in found},
            observed=observed,
            bit=any(facts["stops"] > 0 for facts in observed.values()),
            errors=errors,
        )

    def set_up(self) -> None:
        """Undo what an earlier run may have left, and put the program into every node."""

        def prepare(node: str) -> None:
            self._let_go(node)
            if self._limited is None:
                self._slower.install(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no limit and no program behind."""
        on_nodes(self.env.nodes, self._let_go)

    def _let_go(self, node: str) -> Mapping[str, Any]:
        """Undo it in one node; return how often it had to wait, if it was slow."""
        if self._limited is not None:
            waits = self._limited.limit_cpu(node, None)
            before = self._waits.pop(node, None)
            return {} if before is None else {"stops": waits - before}
        try:
            return self._slower.stop(node)
        finally:
            process.go_on(self.env, node, self.system.process_name)
