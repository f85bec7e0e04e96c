"""Delay: packets from peers are held back on their way into some nodes.

By `delayer`, a process in each node that is hurt: it holds packets back by NFQUEUE, which kernels
without netem have as well. Whoever is to be undone is found by its pid file, so an undo needs to
know nothing of the fault; and first the rules go, so that even a delayer that cannot be stopped
holds nothing back any more.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.nemesis import delayer
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.chain import Chain
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.systems.base import System

CHAIN: Final = "LABRYS-DELAY"
QUEUE: Final = 213
_BITES_FROM: Final = 0.5
"""The part of the delay that was asked for from which on it counts as felt."""


class DelayOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {delay: ...}`."""

    delay_ms: tuple[float, ...] = (20.0, 100.0, 400.0)
    """Each fault draws one of them."""
    jitter: float = 0.3
    """So much more or less, as a part of the delay, for each packet."""
    reorder: bool = False
    """Whether jitter may change the order of packets. Otherwise one waits for those before it."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for delays that cannot be."""
        super().check(nodes)
        if not self.delay_ms or not all(0 < one <= 60_000 for one in self.delay_ms):
            raise UsageError("delay_ms: name at least one, each above 0 and at most 60000")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter: a part of the delay, from 0 to 1, not {self.jitter:g}")


class Delay(AimedFault):
    """Holds back what peers send to the targets. Clients are served without delay."""

    kind = "delay"
    start_f = "start-delay"
    stop_f = "stop-delay"
    undo_order = 0
    shade = "#e8dfa0"
    mechanism = "iptables NFQUEUE and a process in the node"
    evidence = "how long packets were held"
    cure_word = "emptying the chain, ending the process"
    options_type = DelayOptions
    nodes_min = 2

    def __init__(self, env: Environment, system: System, options: DelayOptions) -> None:
        super().__init__(env, system, options)
        self._delays_ms, self._jitter = options.delay_ms, options.jitter
        self._order = "reorder" if options.reorder else "keep"
        self._chain = Chain(env, CHAIN, "delayed packets", table="mangle")
        self._delayer = Helper(env, "delayer", delayer.__file__)

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        delay_ms = random.Random(f"{seed}/delay/{turn}").choice(self._delays_ms)
        more = {"delay_ms": delay_ms, "jitter_ms": round(delay_ms * self._jitter, 3)}
        return {**super().plan(turn, seed), **more, "order": self._order, "seed": f"{seed}/{turn}"}

    def apply(self, planned: Planned) -> Outcome:
        """Start the delayers of the targets, and send them the packets of all peers."""
        done, errors = each(planned.targets, lambda node: self._delay(node, planned.plan))
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Take rules and delayers away from all nodes; tells how long packets were held."""
        found, errors = each(self.env.nodes, self._let_go)
        observed = {node: facts for node, facts in found.items() if facts.get("packets")}
        return Outcome(
            done={node: "hears at once" for node in found},
            observed=observed,
            bit=any(
                facts["mean_ms"] >= _BITES_FROM * facts["asked_ms"] for facts in observed.values()
            ),
            errors=errors,
        )

    def set_up(self) -> None:
        """Put the delayer into every node and try it. Raises MachineError where it cannot work."""
        self._chain.prepare()

        def prepare(node: str) -> None:
            self._delayer.install(node)
            self._let_go(node)
            try:
                self._start(node, {"delay_ms": 1, "jitter_ms": 0, "order": "keep", "seed": ""})
            except ClusterError as error:
                raise MachineError(
                    f"{error}. Delays need the kernel's NFQUEUE (modprobe nfnetlink_queue) and the "
                    "capability NET_ADMIN in the node"
                ) from error
            self._let_go(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no rule and no delayer behind."""
        on_nodes(self.env.nodes, self._let_go)
        self._chain.remove()

    def _delay(self, node: str, plan: dict[str, Any]) -> str:
        self._let_go(node)
        self._start(node, plan)
        rule = f"-j NFQUEUE --queue-num {QUEUE} --queue-bypass"
        self._chain.set_for_peers(node, rule)
        return f"hears {plan['delay_ms']:g} ms late"

    def _start(self, node: str, plan: Mapping[str, Any]) -> None:
        numbers = (QUEUE, plan["delay_ms"], plan["jitter_ms"], 0)
        self._delayer.start(node, *map(str, numbers), plan["order"], plan["seed"])

    def _let_go(self, node: str) -> Mapping[str, Any]:
        """Undo it in one node; return how many packets were held, for how long and as was asked."""
        self._chain.set(node, {})
        return self._delayer.stop(node)
