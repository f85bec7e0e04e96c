"""Partitions by iptables: each node drops what arrives from the peers it holds a grudge against.

The rules stand in a chain of our own, LABRYS, which is set as a whole: a heal is simply the empty
grudge.

- DROP and not REJECT: a real partition answers nothing.
- By source address, and only those of peers: clients and the controller reach every node through
  any partition. A stale read on an isolated node could not be seen otherwise.
- INPUT comes before any connection tracking of ours: established connections are cut too.

The evidence is the rules' packet counters. They are read by the same script that replaces the
rules, just before it does.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis import targets
from labrys.control.nemesis.chain import Chain
from labrys.control.nemesis.grudge import Grudge
from labrys.control.nemesis.package import (
    FaultPackage,
    Options,
    Outcome,
    Planned,
    deal,
    each,
    only,
)
from labrys.control.systems.base import System

CHAIN: Final = "LABRYS"

RANDOM_SHAPES: Final[Mapping[str, Callable[[Sequence[str], random.Random], Grudge]]] = {
    "halves": lambda nodes, rng: grudges.halves(nodes),
    "random-halves": grudges.random_halves,
    "minority": grudges.minority,
    "isolate-one": grudges.isolate_one,
    "majorities-ring": grudges.majorities_ring,
    "bridge": grudges.bridge,
    "one-way": grudges.one_way,
}
"""Shapes that are drawn from the random stream alone."""

LEADER_SHAPES: Final[Mapping[str, Callable[[Sequence[str], str], Grudge]]] = {
    "isolate-leader": grudges.isolate,
    "leader-deaf": grudges.deaf,
    "leader-mute": grudges.mute,
}
"""Shapes around whoever leads at the moment."""

GROUPS: Final = (
    ("isolate-leader",),
    ("halves", "random-halves", "minority"),
    ("isolate-one",),
    ("majorities-ring",),
    ("bridge",),
    ("one-way", "leader-deaf", "leader-mute"),
)
"""Each group has its turn once per round: six faults, a minute at the default interval."""

SHAPES: Final = tuple(shape for group in GROUPS for shape in group)


class PartitionOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {partition: ...}`."""

    shapes: tuple[str, ...] = SHAPES
    """How the nodes are cut; each group of them has its turn."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for a shape that does not exist."""
        super().check(nodes)
        if not self.shapes:
            raise UsageError(f"shapes: name at least one of {', '.join(SHAPES)}")
        for shape in self.shapes:
            known("partition shape", shape, SHAPES)


class Partition(FaultPackage):
    """Cuts the network between nodes."""

    kind = "partition"
    start_f = "start-partition"
    stop_f = "stop-partition"
    undo_order = 0
    shade = "#e9a0a0"
    mechanism = "iptables DROP by source, chain LABRYS"
    evidence = "packets dropped"
    cure_word = "emptying the chain"
    options_type = PartitionOptions
    choices = "shapes"
    nodes_min = 2

    def __init__(self, env: Environment, system: System, options: PartitionOptions) -> None:
        super().__init__(env, system, options)
        self._groups = only(GROUPS, options.shapes)
        self._chain = Chain(env, CHAIN, "partitions")
        self.backends: dict[str, str] = {}
        """What `iptables -V` says in each node, known after `set_up`."""

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return `{"shape":..., "grudge":...}`, or with a `fallback` for shapes around a leader."""
        shape = deal(self._groups, turn, seed)
        rng = random.Random(f"{seed}/{turn}")
        if shape in LEADER_SHAPES:
            return {"shape": shape, **targets.choose(targets.LEADER, self.env.nodes, rng)}
        return {
            "shape": shape,
            "grudge": grudges.to_json(RANDOM_SHAPES[shape](self.env.nodes, rng)),
        }

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find the leader if the shape is around it, and write down the grudge."""
        settled = dict(plan)
        if targets.needs_leader(plan):
            settled = targets.settle(plan, self.leaders())
            grudge = LEADER_SHAPES[plan["shape"]](self.env.nodes, settled["nodes"][0])
            settled["grudge"] = grudges.to_json(grudge)
        settled["mechanism"] = ", ".join(sorted(set(self.backends.values())))
        cut_off = grudges.cut_off(self.env.nodes, grudges.from_json(settled["grudge"]))
        return Planned(targets=cut_off, plan=settled)

    def apply(self, planned: Planned) -> Outcome:
        """Set the chain of every node, also of those without a grudge, which get an empty one."""
        grudge = grudges.from_json(planned.plan["grudge"])
        _, errors = each(self.env.nodes, lambda node: self._set_chain(node, grudge))
        done = {
            node: f"drops {', '.join(sorted(drops))}"
            for node, drops in grudge.items()
            if node not in errors
        }
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Empty the chain of every node; tells how many packets were dropped until then."""
        return self._chain.heal("hears everybody")

    def set_up(self) -> None:
        """Make the empty chain in every node. Raises MachineError where iptables cannot do it."""
        self.backends = self._chain.prepare()

    def tear_down(self) -> None:
        """Remove the chain from every node."""
        self._chain.remove()

    def _set_chain(self, node: str, grudge: Grudge) -> dict[str, int]:
        """Make `node` drop what `grudge` says; return the packets dropped so far by peer."""
        return self._chain.set(node, dict.fromkeys(grudge.get(node, ()), "-j DROP"))
