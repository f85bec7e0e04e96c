"""Whom a simulated node dials and listens to, by the rules of `labrys.node.peers`."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from labrys.control.sim.link import Link
from labrys.control.sim.network import Network
from labrys.control.sim.world import SECOND_NS
from labrys.node.messages import Message, NodeId
from labrys.node.peers import DIAL_TIMEOUT_S, LAST_WORD_S, REDIAL_S, STRANGERS_MAX
from labrys.node.surroundings import Address

if TYPE_CHECKING:
    from labrys.control.sim.process import Process


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
