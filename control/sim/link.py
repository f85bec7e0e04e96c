"""A link: a connection that one simulated node dialled to another.

What is sent on it arrives in order, or the link breaks: a cut or a lost packet is seen as silence,
then as late arrival, or as a broken link when nothing was acknowledged for `STALL_NS`. That is what
`labrys.node.peers` makes of its sockets (its constants are used).
"""

from typing import TYPE_CHECKING

from labrys.control.sim.network import RESEND_NS, STALL_NS, Network
from labrys.node.messages import Message

if TYPE_CHECKING:
    from labrys.control.sim.process import Process


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
