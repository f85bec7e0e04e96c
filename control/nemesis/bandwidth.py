"""Bandwidth: what peers send to some nodes comes over a slow line.

By the same program as delays, in a queue and a place of its own, so that both can hold at once. The
line takes packets one after the other; what would have to wait for more than a second is dropped,
and TCP slows down. Clients have a fast line to every node.
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

CHAIN: Final = "LABRYS-LINE"
QUEUE: Final = 214


class BandwidthOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {bandwidth: ...}`."""

    kbit_s: tuple[float, ...] = (64.0, 256.0, 1024.0)
    """The rate of the line, for all peers together; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for rates that cannot be."""
        super().check(nodes)
        if not self.kbit_s or not all(1 <= one <= 1e6 for one in self.kbit_s):
            raise UsageError("kbit_s: name at least one, each from 1 to 1000000")


class Bandwidth(AimedFault):
    """Gives the targets a slow line from their peers."""

    kind = "bandwidth"
    start_f = "start-slow-line"
    stop_f = "stop-slow-line"
    undo_order = 0
    shade = "#dcd3a6"
    mechanism = "iptables NFQUEUE and a process in the node"
    evidence = "packets that found the line busy"
    cure_word = "emptying the chain, ending the process"
    options_type = BandwidthOptions
    nodes_min = 2

    def __init__(self, env: Environment, system: System, options: BandwidthOptions) -> None:
        super().__init__(env, system, options)
        self._rates = options.kbit_s
        self._chain = Chain(env, CHAIN, "slow lines", table="mangle", hook="PREROUTING")
        self._line = Helper(env, "line", delayer.__file__)

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        kbit_s = random.Random(f"{seed}/kbit_s/{turn}").choice(self._rates)
        return {**super().plan(turn, seed), "kbit_s": kbit_s}

    def apply(self, planned: Planned) -> Outcome:
        """Start the lines of the targets, and send the packets of all peers over them."""
        kbit_s = planned.plan["kbit_s"]
        rule = f"-j NFQUEUE --queue-num {QUEUE} --queue-bypass"

        def slow_down(node: str) -> str:
            self._let_go(node)
            self._start(node, kbit_s)
            self._chain.set_for_peers(node, rule)
            return f"hears at {kbit_s:g} kbit/s"

        done, errors = each(planned.targets, slow_down)
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Take rules and lines away from all nodes; tells how busy they were."""
        found, errors = each(self.env.nodes, self._let_go)
        observed = {node: facts for node, facts in found.items() if facts.get("packets")}
        return Outcome(
            done={node: "hears at full speed" for node in found},
            observed=observed,
            bit=any(facts["queued"] or facts["dropped"] for facts in observed.values()),
            errors=errors,
        )

    def set_up(self) -> None:
        """Put the line into every node and try it. Raises MachineError where it cannot work."""
        self._chain.prepare()

        def prepare(node: str) -> None:
            self._line.install(node)
            self._let_go(node)
            try:
                self._start(node, 1024)
            except ClusterError as error:
                raise MachineError(
                    f"{error}. Slow lines need the kernel's NFQUEUE (modprobe nfnetlink_queue) and "
                    "the capability NET_ADMIN in the node"
                ) from error
            self._let_go(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no rule and no line behind."""
        on_nodes(self.env.nodes, self._let_go)
        self._chain.remove()

    def _start(self, node: str, kbit_s: float) -> None:
        self._line.start(node, str(QUEUE), "0", "0", str(kbit_s), "keep", "")

    def _let_go(self, node: str) -> Mapping[str, Any]:
        self._chain.set(node, {})
        return self._line.stop(node)
