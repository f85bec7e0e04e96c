"""Flapping links: what peers send to some nodes comes through, and does not, many times a second.

By `flapper`, a process in each node that is hurt: the rig would be too slow, and has other things
to do. Each keeps its own time, so that a link between two of them is up only now and then.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import UsageError
from labrys.control.nemesis import flapper
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.chain import Chain
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.systems.base import System

CHAIN: Final = "LABRYS-FLAP"


class FlapOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {flap: ...}`."""

    flap_ms: tuple[float, ...] = (100.0, 300.0, 1000.0)
    """How long a link is up or down, on average; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for times that cannot be."""
        super().check(nodes)
        if not self.flap_ms or not all(20 <= one <= 60_000 for one in self.flap_ms):
            raise UsageError("flap_ms: name at least one, each from 20 to 60000")


class Flap(AimedFault):
    """Cuts the links from all peers to the targets, for moments. Clients get through always."""

    kind = "flap"
    start_f = "start-flapping"
    stop_f = "stop-flapping"
    undo_order = 0
    shade = "#eab69f"
    mechanism = "iptables DROP by turns, a process in the node"
    evidence = "packets dropped"
    cure_word = "ending the process, emptying the chain"
    options_type = FlapOptions
    nodes_min = 2

    def __init__(self, env: Environment, system: System, options: FlapOptions) -> None:
        super().__init__(env, system, options)
        self._means_ms = options.flap_ms
        self._chain = Chain(env, CHAIN, "flapping links")
        self._flapper = Helper(env, "flapper", flapper.__file__)

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how fast."""
        flap_ms = random.Random(f"{seed}/flap_ms/{turn}").choice(self._means_ms)
        return {**super().plan(turn, seed), "flap_ms": flap_ms, "seed": f"{seed}/{turn}"}

    def apply(self, planned: Planned) -> Outcome:
        """Cut the links of the targets, and start what lets them come and go."""
        plan = planned.plan

        def flap(node: str) -> str:
            self._let_go(node)
            self._chain.set_for_peers(node, "-j DROP")
            words = (self._chain.hook, self._chain.name, str(plan["flap_ms"]))
            self._flapper.start(node, self._chain.iptables, *words, f"{plan['seed']}/{node}")
            return f"hears peers for {plan['flap_ms']:g} ms and not, by turns"

        done, errors = each(planned.targets, flap)
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """End it on all nodes; tells how often links were cut, and how many packets were lost."""
        found, errors = each(self.env.nodes, self._let_go)
        observed = {node: facts for node, facts in found.items() if facts.get("cuts")}
        return Outcome(
            done={node: "hears everybody" for node in found},
            observed=observed,
            bit=any(facts["packets"] for facts in observed.values()),
            errors=errors,
        )

    def set_up(self) -> None:
        """Put the flapper into every node. Raises MachineError where iptables cannot do it."""
        self._chain.prepare()

        def prepare(node: str) -> None:
            self._flapper.install(node)
            self._let_go(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no rule and no flapper behind."""
        on_nodes(self.env.nodes, self._let_go)
        self._chain.remove()

    def _let_go(self, node: str) -> Mapping[str, Any]:
        """End it in one node. The flapper first: it would put a chain back that it did not cut."""
        try:
            facts = self._flapper.stop(node)
        finally:
            packets = self._chain.set(node, {})
        return {**facts, "packets": sum(packets.values())}
