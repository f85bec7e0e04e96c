"""The network between nodes, as a program sees it through TCP, and what is wrong with it.

How long packets take and which arrive is decided here; what that does to a connection is said in
`link`, and whom a node is connected with in `links`. Messages are values and travel as they are.
Clients are not here: no fault of the network is between them and the nodes.
"""

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING, Final

from labrys.control.nemesis.grudge import Grudge
from labrys.control.sim.line import HEADERS_BYTES, Line
from labrys.control.sim.world import MS_NS, World
from labrys.node.messages import Message, NodeId, encode_message
from labrys.node.peers import STALL_MS

if TYPE_CHECKING:
    from labrys.control.sim.process import Process

STALL_NS: Final = STALL_MS * MS_NS
RESEND_NS: Final = (200 * MS_NS, 600 * MS_NS)
"""When TCP sends again what was not acknowledged; the next time would be after `STALL_NS`."""
BASE_NS: Final = (100_000, 500_000)
"""The least that a packet takes on a link: drawn once for each, from this range."""
TAIL_NS: Final = 150_000
"""What it takes on top, on average; exponential."""

Counts = dict[NodeId, dict[NodeId, int]]
"""Packets by the node that they were for and by sender."""


class Network:
    """All links, and what is wrong with them."""

    def __init__(self, world: World, nodes: Mapping[str, str]) -> None:
        """`nodes` by the host under which they are reached."""
        self.world = world
        self.nodes = nodes
        self.processes: dict[NodeId, Process] = {}
        """Who listens for peers."""
        self.grudge: Grudge = {}
        self.flapped: set[NodeId] = set()
        """Who hears nobody at this moment, because its links flap."""
        self.lines: dict[NodeId, Line] = {}
        """Over what peers send to a node, if that is slow."""
        self.delay: dict[NodeId, tuple[int, int]] = {}
        """By node: how long what peers send to it is held back, and by how much that varies."""
        self.loss: dict[NodeId, float] = {}
        """By node: the part of what peers send to it that is lost on the way."""
        self.cut_counts: Counts = {}
        """Packets that did not arrive for a grudge."""
        self.flap_counts: Counts = {}
        """The same for links that flap."""
        self.loss_counts: Counts = {}
        """Packets that were lost."""
        self.held: dict[NodeId, tuple[int, int]] = {}
        """Packets that were held back, by node: how many, and for how long in all."""
        self._rng = world.stream("network")
        self._base_ns = {
            (a, b): world.stream(f"network/{a}-{b}").randrange(*BASE_NS)
            for a in nodes.values()
            for b in nodes.values()
        }

    def drops(self, sender: NodeId, target: NodeId) -> bool:
        """Whether nothing gets through that way; whoever asks has sent a packet."""
        if target in self.grudge and sender in self.grudge[target]:
            _count(self.cut_counts, sender, target)
            return True
        if target in self.flapped:
            _count(self.flap_counts, sender, target)
            return True
        return False

    def latency_ns(self, sender: NodeId, target: NodeId) -> int:
        """How long a packet takes that gets through at once, were it the only one."""
        rng = self._rng
        taken_ns = self._base_ns[sender, target] + int(-log(1.0 - rng.random()) * TAIL_NS)
        if target in self.delay:
            delay_ns, jitter_ns = self.delay[target]
            held_ns = delay_ns + int(rng.uniform(-1.0, 1.0) * jitter_ns)
            count, all_ns = self.held.get(target, (0, 0))
            self.held[target] = count + 1, all_ns + held_ns
            taken_ns += held_ns
        return taken_ns

    def resent_ns(self, sender: NodeId, target: NodeId) -> int:
        """How much later a packet comes because it was lost, perhaps more than once."""
        if target not in self.loss:
            return 0
        late_ns, next_ns = 0, RESEND_NS[0]
        while late_ns <= STALL_NS and self._rng.random() < self.loss[target]:
            _count(self.loss_counts, sender, target)
            late_ns += next_ns
            next_ns *= 2
        return late_ns

    def queued_ns(self, target: NodeId, message: Message) -> int:
        """How much later a message comes because of the line that it has to take."""
        if target not in self.lines:
            return 0
        line, now_ns = self.lines[target], self.world.now_ns
        size_bytes = len(encode_message(message)) + HEADERS_BYTES
        late_ns, next_ns = 0, RESEND_NS[0]
        while late_ns <= STALL_NS:
            due_ns = line.take(now_ns + late_ns, size_bytes)
            if due_ns is not None:
                return due_ns - now_ns
            late_ns += next_ns
            next_ns *= 2
        return late_ns

    def has_ended(self, process: "Process") -> None:
        """Tell all who are connected with a process that it is gone, as its kernel would."""
        for link in (*process.links.outgoing(), *process.links.incoming()):
            link.has_lost(process)

    def reset(self, node: NodeId) -> dict[NodeId, int]:
        """Break all links of a node's process, at both ends; how many, by peer."""
        process = self.processes.get(node)
        if process is None:
            return {}
        died: dict[NodeId, int] = {}
        for link in (*process.links.outgoing(), *process.links.incoming()):
            if not link.is_broken:
                peer = link.target.name if link.source is process else link.source.name
                died[peer] = died.get(peer, 0) + 1
                link.end_at(link.source)
                link.end_at(link.target)
        return died


def _count(counts: Counts, sender: NodeId, target: NodeId) -> None:
    by_sender = counts.setdefault(target, {})
    by_sender[sender] = by_sender.get(sender, 0) + 1
