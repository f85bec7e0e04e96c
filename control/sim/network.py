"""The network between nodes, as a program sees it through TCP.

A link is a connection that one node dialled to another. What is sent on it arrives in order, or the
link breaks: a cut or a lost packet is seen as silence, then as late arrival, or as a broken link
when nothing was acknowledged for `STALL_NS`. That is what `labrys.node.peers` makes of its sockets
(its constants are used here); whom a node dials and listens to follows the rules of that module.

Messages are values and travel as they are. Clients are not here: no fault of the network is between
them and the nodes.
"""

from collections.abc import Mapping
from functools import partial
from math import log
from typing import TYPE_CHECKING, Final

from labrys.control.nemesis.grudge import Grudge
from labrys.control.sim.world import MS_NS, SECOND_NS, World
from labrys.node.messages import Message, NodeId, encode_message
from labrys.node.peers import DIAL_TIMEOUT_S, LAST_WORD_S, REDIAL_S, STALL_MS, STRANGERS_MAX
from labrys.node.surroundings import Address

if TYPE_CHECKING:
    from labrys.control.sim.process import Process

STALL_NS: Final = STALL_MS * MS_NS
RESEND_NS: Final = (200 * MS_NS, 600 * MS_NS)
"""When TCP sends again what was not acknowledged; the next time would be after `STALL_NS`."""
BASE_NS: Final = (100_000, 500_000)
"""The least that a packet takes on a link: drawn once for each, from this range."""
TAIL_NS: Final = 150_000
"""What it takes on top, on average; exponential."""
HEADERS_BYTES: Final = 70
"""What Ethernet, IP, TCP and the length in front of it add to a message."""
LINE_WAIT_NS: Final = SECOND_NS
"""What would have to wait longer for a slow line is dropped."""

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


class Line:
    """A slow line: it takes packets one after the other, and drops those for which it is too busy.

    What a real one does is said in `labrys.control.nemesis.bandwidth`.
    """

    def __init__(self, bits_s: float) -> None:
        self._bits_s = bits_s
        self._free_ns = 0
        """When it will have sent all that it took."""
        self._busy_ns = self._bytes = 0
        self.packets = self.queued = self.dropped = 0

    def take(self, now_ns: int, size_bytes: int) -> int | None:
        """Take a packet; when it is at the other end, or None if it is dropped."""
        if self._free_ns - now_ns > LINE_WAIT_NS:
            self.dropped += 1
            return None
        self.packets += 1
        self.queued += self._free_ns > now_ns
        taken_ns = round(size_bytes * 8 / self._bits_s * SECOND_NS)
        self._free_ns = max(now_ns, self._free_ns) + taken_ns
        self._busy_ns += taken_ns
        self._bytes += size_bytes
        return self._free_ns

    def facts(self) -> dict[str, float]:
        """What became of the packets."""
        return {
            "packets": self.packets,
            "queued": self.queued,
            "dropped": self.dropped,
            "kbit_s": round(8e6 * self._bytes / self._busy_ns, 1),
            "asked_kbit_s": round(self._bits_s / 1e3, 3),
        }


def _count(counts: Counts, sender: NodeId, target: NodeId) -> None:
    by_sender = counts.setdefault(target, {})
    by_sender[sender] = by_sender.get(sender, 0) + 1


class Link:
    """A connection from one process to another, from the first dial to its end."""

    def __init__(self, network: Network, source: "Process", target: "Process") -> None:
        self.source, self.target = source, target
        self._network = network
        self._world = network.world
        self._ends = source.name, target.name
        self._back = target.name, source.name
        self._last_ns = 0
        """When the newest packet arrives: none overtakes it."""
        self._unsent: list[Message] = []
        self._stalled_since: int | None = None
        self._is_choked = False
        """Whether a message was lost so often that the link will break."""
        self.is_broken = False

    def send(self, message: Message) -> None:
        """Let a message arrive after all that were sent before."""
        world, network = self._world, self._network
        due_ns = world.now_ns + network.latency_ns(*self._ends)
        if network.loss or network.lines:
            late_ns = network.resent_ns(*self._ends)
            late_ns += network.queued_ns(self.target.name, message)
            if late_ns > STALL_NS and not self._is_choked:
                self._is_choked = True
                world.call_at(world.now_ns + STALL_NS, self._break)
            due_ns += late_ns
        if self._is_choked:
            return  # Nothing overtakes what does not arrive.
        if due_ns < self._last_ns:
            due_ns = self._last_ns
        self._last_ns = due_ns
        world.call_at(due_ns, self._arrive, message)

    def has_lost(self, process: "Process") -> None:
        """One of the processes is gone: its kernel tells the other, if it gets through."""
        other = self.target if process is self.source else self.source
        if not self.is_broken and not self._network.drops(process.name, other.name):
            due_ns = self._world.now_ns + self._network.latency_ns(process.name, other.name)
            if process is self.source:
                due_ns = max(due_ns, self._last_ns)  # What it had sent arrives all the same.
            self._world.call_at(due_ns, self.end_at, other)

    def end_at(self, process: "Process") -> None:
        """Let one end know that the link is no more."""
        self.is_broken = True
        if process is self.source:
            process.deliver(process.links.lose, self)
        else:
            process.deliver(process.links.forget, self)

    def _arrive(self, message: Message) -> None:
        if self.is_broken:
            return
        if self._unsent:
            self._unsent.append(message)
        elif self._network.drops(*self._ends):
            self._unsent.append(message)
            self._stall()
        else:
            self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        if not self.target.is_alive:
            self.has_lost(self.target)
            return
        self.target.deliver(self.target.links.hear, self, message)
        if self._network.drops(*self._back):
            self._stall()  # It arrived, but nobody says so.

    def _stall(self) -> None:
        if self._stalled_since is None:
            now_ns = self._world.now_ns
            self._stalled_since = now_ns
            for later_ns in RESEND_NS:
                self._world.call_at(now_ns + later_ns, self._resend, now_ns)
            self._world.call_at(now_ns + STALL_NS, self._give_up, now_ns)

    def _resend(self, since_ns: int) -> None:
        if self.is_broken or self._stalled_since != since_ns:
            return
        if self._network.drops(*self._ends):
            return
        unsent, self._unsent = self._unsent, []
        if not self._network.drops(*self._back):
            self._stalled_since = None
        for message in unsent:
            self._hand_over(message)

    def _give_up(self, since_ns: int) -> None:
        if self._stalled_since == since_ns:
            self._break()

    def _break(self) -> None:
        if not self.is_broken:
            self.end_at(self.source)


class Links:
    """The links of one process: implements `labrys.node.surroundings.Peers`."""

    def __init__(self, network: Network, process: "Process", address: Address) -> None:
        """`address` is where the process listens."""
        self._network = network
        self._process = process
        self._world = network.world
        self._address = address
        self._peers: dict[NodeId, Address] = {}
        self._strangers: dict[NodeId, Address] = {}
        self._dialling: dict[NodeId, object] = {}
        """By peer, what stands for the present attempt to reach it; another one ends it."""
        self._outgoing: dict[NodeId, Link] = {}
        self._incoming: dict[NodeId, Link] = {}
        self._complaints: dict[NodeId, str] = {}

    def outgoing(self) -> tuple[Link, ...]:
        """The links that this process dialled and that stand."""
        return tuple(self._outgoing.values())

    def incoming(self) -> tuple[Link, ...]:
        """The links of others to this process."""
        return tuple(self._incoming.values())

    # ---- labrys.node.surroundings.Peers -------------------------------------------------------

    def send(self, peer: NodeId, message: Message) -> bool:
        """See `Peers`."""
        link = self._outgoing.get(peer)
        if link is None:
            return False
        link.send(message)
        return True

    def update(self, addresses: Mapping[NodeId, Address]) -> None:
        """See `Peers`."""
        me = self._process.name
        for node, address in addresses.items():
            if node != me and self._known(node) != address:
                self._dial_anew(node, address)
            self._strangers.pop(node, None)
        gone = {n: address for n, address in self._peers.items() if n not in addresses}
        self._peers = {node: address for node, address in addresses.items() if node != me}
        for node, address in gone.items():
            if node in self._incoming and len(self._strangers) < STRANGERS_MAX:
                self._strangers[node] = address
            # A little later, so that it still hears that it is gone.
            self._process.call_later(LAST_WORD_S, partial(self._part_from, node))

    def _known(self, node: NodeId) -> Address | None:
        return self._peers.get(node) or self._strangers.get(node)

    def _part_from(self, node: NodeId) -> None:
        if self._known(node) is None:
            self._drop(node)

    def _drop(self, node: NodeId) -> None:
        self._dialling.pop(node, None)
        link = self._outgoing.pop(node, None)
        if link is not None:
            link.is_broken = True
            self._world.call_soon(link.end_at, link.target)

    # ---- outgoing links -----------------------------------------------------------------------

    def _dial_anew(self, node: NodeId, address: Address) -> None:
        self._drop(node)
        attempt = self._dialling[node] = object()
        self._world.call_soon(self._process.deliver, self._dial, node, address, attempt)

    def _dial(self, node: NodeId, address: Address, attempt: object) -> None:
        """Try to connect; whatever comes of it, try again as long as the attempt is wanted."""
        if self._dialling.get(node) is not attempt:
            return
        network, here = self._network, self._process.name
        there = network.nodes.get(address[0])
        now_ns = self._world.now_ns
        fail = partial(self._fail, node, address, attempt)
        if there is None or network.drops(here, there) or network.drops(there, here):
            # Silence: neither an answer nor a refusal comes back.
            due_ns = now_ns + int(DIAL_TIMEOUT_S * SECOND_NS)
            self._world.call_at(due_ns, self._process.deliver, fail, "TimeoutError", "TimeoutError")
            return
        due_ns = now_ns + network.latency_ns(here, there) + network.latency_ns(there, here)
        due_ns += network.resent_ns(here, there) + network.resent_ns(there, here)
        if due_ns - now_ns > DIAL_TIMEOUT_S * SECOND_NS:
            due_ns = now_ns + int(DIAL_TIMEOUT_S * SECOND_NS)
            self._world.call_at(due_ns, self._process.deliver, fail, "TimeoutError", "TimeoutError")
            return
        self._world.call_at(
            due_ns, self._process.deliver, self._connect, node, there, address, attempt
        )

    def _connect(self, node: NodeId, there: str, address: Address, attempt: object) -> None:
        if self._dialling.get(node) is not attempt:
            return
        target = self._network.processes.get(there)
        if target is None or not target.is_alive:
            self._fail(node, address, attempt, "ConnectionRefusedError", "nobody listens there")
            return
        self._complaints.pop(node, None)
        link = self._outgoing[node] = Link(self._network, self._process, target)
        self._process.say(link=node, state="up")
        target.deliver(target.links.accept, link, node, self._process.name, self._address)

    def _fail(
        self, node: NodeId, address: Address, attempt: object, kind: str, reason: str
    ) -> None:
        if self._dialling.get(node) is not attempt:
            return
        if self._complaints.get(node) != kind:
            self._complaints[node] = kind
            self._process.say(link=node, state="unreachable", reason=reason)
        self._process.call_later(REDIAL_S, partial(self._dial, node, address, attempt))

    def lose(self, link: Link) -> None:
        """An outgoing link is broken."""
        node = next((n for n, each in self._outgoing.items() if each is link), None)
        if node is None:
            return
        del self._outgoing[node]
        self._process.say(link=node, state="down")
        self._process.on_lost(node)
        attempt, address = self._dialling.get(node), self._known(node)
        if attempt is not None and address is not None:
            self._process.call_later(REDIAL_S, partial(self._dial, node, address, attempt))

    # ---- incoming links -----------------------------------------------------------------------

    def accept(self, link: Link, target: NodeId, sender: NodeId, address: Address) -> None:
        """Somebody has connected and says who it is; it replaces an older link of the same."""
        if link.is_broken:
            return
        if not self._is_welcome(target, sender, address):
            link.is_broken = True
            self._world.call_soon(link.end_at, link.source)
            return
        older = self._incoming.get(sender)
        self._incoming[sender] = link
        if older is not None and not older.is_broken:
            self._world.call_soon(older.end_at, older.source)

    def _is_welcome(self, target: NodeId, sender: NodeId, address: Address) -> bool:
        if target != self._process.name or sender == target:
            return False
        if sender in self._peers:
            return True
        if sender not in self._strangers and len(self._strangers) >= STRANGERS_MAX:
            return False
        if self._strangers.get(sender) != address:
            self._strangers[sender] = address
            self._dial_anew(sender, address)
        return True

    def hear(self, link: Link, message: Message) -> None:
        """A message has come in."""
        sender = link.source.name
        if self._incoming.get(sender) is link:
            self._process.on_message(sender, message)

    def forget(self, link: Link) -> None:
        """An incoming link is gone; answers that were under way on it will not come."""
        sender = link.source.name
        if self._incoming.get(sender) is link:
            del self._incoming[sender]
            if self._strangers.pop(sender, None) is not None:
                self._drop(sender)
            self._process.on_lost(sender)
