"""Loss: some nodes lose a part of the packets that their peers send them."""

import random
from collections.abc import Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import UsageError
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.chain import Chain
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.systems.base import System

CHAIN: Final = "LABRYS-LOSS"


class LossOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {loss: ...}`."""

    percent: tuple[float, ...] = (5.0, 20.0, 50.0)
    """Of the packets; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for what is no part of a whole."""
        super().check(nodes)
        if not self.percent or not all(0 < one <= 100 for one in self.percent):
            raise UsageError("percent: name at least one, each above 0 and at most 100")


class Loss(AimedFault):
    """Drops packets at random where they arrive, before any connection tracking.

    Only packets of peers: clients reach every node. TCP sends again what was lost, after 200 ms or
    more: what is seen above it are stalls, not gaps.
    """

    kind = "loss"
    start_f = "start-loss"
    stop_f = "stop-loss"
    undo_order = 0
    shade = "#e8c9a0"
    mechanism = "iptables statistic DROP, chain LABRYS-LOSS"
    evidence = "packets dropped"
    cure_word = "emptying the chain"
    options_type = LossOptions
    nodes_min = 2

    def __init__(self, env: Environment, system: System, options: LossOptions) -> None:
        super().__init__(env, system, options)
        self._percent = options.percent
        self._chain = Chain(env, CHAIN, "lost packets")

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        percent = random.Random(f"{seed}/percent/{turn}").choice(self._percent)
        return {**super().plan(turn, seed), "percent": percent}

    def apply(self, planned: Planned) -> Outcome:
        """Give the targets their rules."""
        percent = planned.plan["percent"]
        rule = f"-m statistic --mode random --probability {percent / 100:.8f} -j DROP"
        done, errors = each(planned.targets, lambda node: self._chain.set_for_peers(node, rule))
        return Outcome(done=dict.fromkeys(done, f"loses {percent:g} %"), errors=errors)

    def undo(self) -> Outcome:
        """Take the rules away from all nodes; tells how many packets were dropped until then."""
        return self._chain.heal("loses nothing")

    def set_up(self) -> None:
        """Make the empty chain in every node. Raises MachineError where iptables cannot do it."""
        self._chain.prepare()

    def tear_down(self) -> None:
        """Remove the chain from every node."""
        self._chain.remove()
