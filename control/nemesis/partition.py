"""Partitions by iptables: each node drops what arrives from the peers it holds a grudge against.

The rules stand in a chain of our own, LABRYS, that INPUT jumps to. The chain is always set as a
whole by one `iptables-restore`, which is atomic within a node, so a change is either there or not,
doing it twice is the same as doing it once, and a heal is simply the empty grudge. Nobody else's
rules are touched (Docker's name server lives in the nat table of every container).

- DROP and not REJECT: a real partition answers nothing.
- By source address, and only those of peers: clients and the controller reach every node through
  any partition. A stale read on an isolated node could not be seen otherwise.
- INPUT comes before any connection tracking of ours: established connections are cut too.

The evidence is the rules' packet counters. They are read by the same script that replaces the
rules, just before it does.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment, check, on_nodes
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.names import known
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis import targets
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
_LOCK_WAIT_S: Final = 5
"""How long iptables waits while another program holds its lock."""

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
    options_type = PartitionOptions
    choices = "shapes"

    def __init__(self, env: Environment, system: System, options: PartitionOptions) -> None:
        super().__init__(env, system, options)
        if len(env.nodes) < 2:
            raise UsageError(f"a partition needs at least 2 nodes, not {len(env.nodes)}")
        self._groups = only(GROUPS, options.shapes)
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
        dropped, errors = each(self.env.nodes, lambda node: self._set_chain(node, {}))
        observed = {
            node: {"packets": sum(by_peer.values()), "from": by_peer}
            for node, by_peer in dropped.items()
            if by_peer
        }
        return Outcome(
            done={node: "hears everybody" for node in dropped},
            observed=observed,
            bit=any(sum(by_peer.values()) > 0 for by_peer in dropped.values()),
            errors=errors,
        )

    def set_up(self) -> None:
        """Make the empty chain in every node. Raises MachineError where iptables cannot do it."""

        def prepare(node: str) -> str:
            version = self.env.run(node, "iptables -V")
            if version.code != 0:
                said = version.err.strip()
                raise MachineError(f"{node}: partitions need iptables in the node: {said}")
            try:
                self._set_chain(node, {})
            except ClusterError as error:
                raise MachineError(
                    f"{error}. Partitions need root and the capability NET_ADMIN in the node"
                ) from error
            return version.out.strip()

        self.backends = on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Remove the chain from every node."""
        on_nodes(self.env.nodes, lambda node: check(node, _REMOVING, self.env.run(node, _REMOVE)))

    def _set_chain(self, node: str, grudge: Grudge) -> dict[str, int]:
        """Make `node` drop what `grudge` says; return the packets dropped so far by peer."""
        peers = {self.env.address(peer): peer for peer in self.env.nodes}
        addresses = [address for address, peer in peers.items() if peer in grudge.get(node, ())]
        output = self.env.run(node, _script(addresses))
        if output.code == 4 and "lock" in output.err:
            raise ClusterError(
                f"{node}: another program holds the iptables lock; waited {_LOCK_WAIT_S} s. "
                "Is another rig running?"
            )
        return _dropped(check(node, f"setting the iptables chain {CHAIN}", output), peers)


_IPTABLES: Final = f"iptables -w {_LOCK_WAIT_S}"

_REMOVING: Final = f"removing the iptables chain {CHAIN}"
_REMOVE: Final = f"""\
{_IPTABLES} -n -L {CHAIN} >/dev/null
case $? in
    0) ;;
    1 | 127) exit 0 ;; # no such chain, no such program
    *) exit 1 ;;
esac
while {_IPTABLES} -D INPUT -j {CHAIN} 2>/dev/null; do :; done
{_IPTABLES} -F {CHAIN} && {_IPTABLES} -X {CHAIN}
"""

_RULE: Final = re.compile(rf"^-A {CHAIN} -s ([0-9.]+)(?:/32)? .*?-c (\d+) \d+", re.MULTILINE)


def _script(addresses: Sequence[str]) -> str:
    """The script that prints the chain with its counters and then makes it drop `addresses`.

    With --noflush, naming the chain makes it if it is missing and empties it if it is there. A
    chain that nobody jumps to would drop nothing, so the jump is looked after each time.
    """
    rules = "".join(f"-A {CHAIN} -s {address} -j DROP\n" for address in addresses)
    return f"""\
{_IPTABLES} -v -S {CHAIN} 2>/dev/null
iptables-restore -w {_LOCK_WAIT_S} --noflush <<'END' || exit
*filter
:{CHAIN} - [0:0]
{rules}COMMIT
END
{_IPTABLES} -C INPUT -j {CHAIN} 2>/dev/null || {_IPTABLES} -I INPUT -j {CHAIN}
"""


def _dropped(listing: str, peers: Mapping[str, str]) -> dict[str, int]:
    """Return the packets by peer in what `iptables -v -S` printed."""
    return {
        peers[address]: int(packets)
        for address, packets in _RULE.findall(listing)
        if address in peers
    }
