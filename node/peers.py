"""Links between nodes: length-prefixed MessagePack over TCP, one outgoing link per peer.

Every node dials every other and speaks only on the links it dialled, so two nodes share two
connections and each knows whose word it hears. Nothing here waits: a message to a peer that is not
connected, or whose queue is full, is dropped, which Raft takes for loss and a forwarded request
for a definite failure.

After a partition TCP would go on with its backed-off timers for many seconds after the network has
healed. Instead the kernel drops a connection whose data stays unacknowledged for `STALL_MS`
(TCP_USER_TIMEOUT), a dial gives up after `DIAL_TIMEOUT_S`, and a lost link is dialled again after
`REDIAL_S`, so a healed link is back in about a second at most.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import cast

import msgspec

from labrys.node.errors import MachineError
from labrys.node.logline import Say
from labrys.node.messages import (
    AppendRequest,
    Hello,
    Message,
    NodeId,
    decode_message,
    encode_message,
)
from labrys.node.surroundings import Address

STALL_MS = 1000
DIAL_TIMEOUT_S = 0.5
REDIAL_S = 0.1
LAST_WORD_S = 1.0
"""How long a link outlives the membership of the peer it leads to."""
QUEUE_BYTES_MAX = 8 << 20
STRANGERS_MAX = 16
REFUSED_TOLD_MAX = 100
"""Refusals that are told, each once."""
FRAME_BYTES_MAX = 32 << 20
_LENGTH = struct.Struct(">I")


class PeerNetwork:
    """All links of a node. `on_message` gets (peer, message), `on_lost` a peer it lost.

    `update` says who the peers are. Others may speak as well, if they know the cluster's name: a
    newer configuration may name them, or this node is new and knows nobody yet. They are answered
    as long as their own link stands.
    """

    def __init__(
        self,
        node: NodeId,
        on_message: Callable[[NodeId, Message], None],
        on_lost: Callable[[NodeId], None],
        say: Say,
        *,
        cluster: str,
        address: Address,
    ) -> None:
        """`address` is where this node listens, as it tells others."""
        self.node = node
        self.on_message = on_message
        self.on_lost = on_lost
        self.say = say
        self._cluster = cluster
        self._address = f"{address[0]}:{address[1]}"
        self._peers: dict[NodeId, Address] = {}
        self._strangers: dict[NodeId, Address] = {}
        self._dialling: dict[NodeId, asyncio.Task[None]] = {}
        self._outgoing: dict[NodeId, asyncio.WriteTransport] = {}
        self._incoming: dict[NodeId, asyncio.Transport] = {}
        self._queues: dict[NodeId, list[bytes]] = {}
        self._queued_bytes: dict[NodeId, int] = {}
        self._encoded: dict[int, tuple[Message, bytes]] = {}
        """This turn's large messages by identity: several followers get the same."""
        self._refused: set[tuple[NodeId, str]] = set()
        self._loop = asyncio.get_running_loop()

    def update(self, addresses: Mapping[NodeId, Address]) -> None:
        """These are the peers from now on; needs a running loop."""
        for node, address in addresses.items():
            if node != self.node and self._known(node) != address:
                self._drop_dialling(node)
                self._dialling[node] = self._loop.create_task(self._keep_dialling(node, address))
            self._strangers.pop(node, None)
        gone = {n: address for n, address in self._peers.items() if n not in addresses}
        self._peers = {n: address for n, address in addresses.items() if n != self.node}
        for node, address in gone.items():
            if node in self._incoming and len(self._strangers) < STRANGERS_MAX:
                # Who catches up reads of times when its leader was no member, and must answer it.
                self._strangers[node] = address
            # A little later, so that it still hears that it is gone.
            self._loop.call_later(LAST_WORD_S, self._part_from, node)

    def send(self, peer: NodeId, message: Message) -> bool:
        """Queue a message; False if it was dropped at once and certainly not sent.

        What is queued in one turn of the loop leaves in one write.
        """
        transport = self._outgoing.get(peer)
        if transport is None or transport.is_closing():
            return False
        queued_bytes = self._queued_bytes.get(peer, 0)
        if transport.get_write_buffer_size() + queued_bytes > QUEUE_BYTES_MAX:
            return False
        if not self._queues:
            self._loop.call_soon(self._flush)
        frame = self._frame(message)
        self._queues.setdefault(peer, []).append(frame)
        self._queued_bytes[peer] = queued_bytes + len(frame)
        return True

    def _frame(self, message: Message) -> bytes:
        if not (isinstance(message, AppendRequest) and message.entries):
            return _framed(message)
        held = self._encoded.get(id(message))
        if held is None:
            held = self._encoded[id(message)] = (message, _framed(message))
        return held[1]

    def _flush(self) -> None:
        queues, self._queues = self._queues, {}
        self._queued_bytes.clear()
        self._encoded.clear()
        for peer, queue in queues.items():
            transport = self._outgoing.get(peer)
            if transport is not None and not transport.is_closing():
                transport.write(queue[0] if len(queue) == 1 else b"".join(queue))

    async def listen(self, address: Address) -> asyncio.Server:
        """Accept the links of other nodes; raises MachineError if the port cannot be had."""
        host, port = address
        try:
            return await self._loop.create_server(lambda: _Incoming(self), host or None, port)
        except OSError as error:
            raise MachineError(
                f"cannot listen for peers on {host}:{port}: {error.strerror or error}. Is another "
                "node running there? Choose another --listen"
            ) from error

    async def close(self) -> None:
        """End all links."""
        dialling = list(self._dialling.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        self.abort()

    def abort(self) -> None:
        """Drop all incoming links."""
        for transport in list(self._incoming.values()):
            transport.abort()

    # ---- outgoing links -----------------------------------------------------------------------

    async def _keep_dialling(self, peer: NodeId, address: Address) -> None:
        """Keep the outgoing link to one peer; ends only by cancellation."""
        host, port = address
        complaint: str | None = None
        while True:
            transport = None
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    # goraft's ":3030" means this machine.
                    transport, link = await self._loop.create_connection(
                        _Outgoing, host or "127.0.0.1", port
                    )
            except OSError as error:
                # A peer that is down or cut off is the normal case here: told once, tried on.
                kind = type(error).__name__
                if kind != complaint:
                    complaint = kind
                    self.say(link=peer, state="unreachable", reason=str(error) or kind)
            if transport is not None:
                complaint = None
                _tune(transport)
                transport.write(_framed(Hello(self.node, peer, self._cluster, self._address)))
                self._outgoing[peer] = transport
                self.say(link=peer, state="up")
                try:
                    await link.lost
                finally:
                    if self._outgoing.get(peer) is transport:
                        del self._outgoing[peer]
                    transport.close()
                self.say(link=peer, state="down")
                self.on_lost(peer)
            await asyncio.sleep(REDIAL_S)

    def _known(self, node: NodeId) -> Address | None:
        return self._peers.get(node) or self._strangers.get(node)

    def _part_from(self, node: NodeId) -> None:
        if self._known(node) is None:
            self._drop_dialling(node)

    def _drop_dialling(self, node: NodeId) -> None:
        task = self._dialling.pop(node, None)
        if task is not None:
            task.cancel()

    # ---- incoming links -----------------------------------------------------------------------

    def accept(self, hello: Hello, transport: asyncio.Transport) -> bool:
        """Whether an incoming link may speak; it replaces an older one of the same peer."""
        if not self._is_welcome(hello, transport):
            return False
        older = self._incoming.get(hello.sender)
        self._incoming[hello.sender] = transport
        if older is not None:
            older.abort()
        return True

    def _is_welcome(self, hello: Hello, transport: asyncio.Transport) -> bool:
        if hello.target != self.node or hello.sender == self.node:
            return self._refuse(hello, "it is meant for another node")
        if hello.cluster != self._cluster:
            return self._refuse(hello, "it belongs to another cluster")
        if hello.sender in self._peers:
            return True
        address = _reachable(hello.address, transport)
        if address is None:
            return self._refuse(hello, "it does not say where it listens")
        if hello.sender not in self._strangers and len(self._strangers) >= STRANGERS_MAX:
            return self._refuse(hello, "too many that are no members speak already")
        if self._strangers.get(hello.sender) != address:
            self._strangers[hello.sender] = address
            self._drop_dialling(hello.sender)
            task = self._loop.create_task(self._keep_dialling(hello.sender, address))
            self._dialling[hello.sender] = task
        return True

    def _refuse(self, hello: Hello, reason: str) -> bool:
        told = (hello.sender, reason)
        if told not in self._refused and len(self._refused) < REFUSED_TOLD_MAX:
            self._refused.add(told)
            self.say(
                warning="refused a link", sender=hello.sender, target=hello.target,
                cluster=hello.cluster, reason=reason,
            )  # fmt: skip
        return False

    def forget(self, peer: NodeId, transport: asyncio.Transport) -> None:
        """An incoming link is gone; answers that were under way on it will not come."""
        if self._incoming.get(peer) is transport:
            del self._incoming[peer]
            if self._strangers.pop(peer, None) is not None:
                self._drop_dialling(peer)
            self.on_lost(peer)


def _framed(message: Message) -> bytes:
    data = encode_message(message)
    return _LENGTH.pack(len(data)) + data


def _reachable(told: str, transport: asyncio.Transport) -> Address | None:
    """Where a node listens that says `told`, which may be an address for any interface."""
    host, _, port = told.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    if host in ("", "0.0.0.0", "::"):
        name = transport.get_extra_info("peername")
        host = name[0] if name else ""
    return host, int(port)


def _tune(transport: asyncio.BaseTransport) -> None:
    connection = cast(socket.socket, transport.get_extra_info("socket"))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MS)


class _Outgoing(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class _Incoming(asyncio.Protocol):
    """Cuts the stream into messages; whatever is not one ends the link."""

    def __init__(self, network: PeerNetwork) -> None:
        self._network = network
        self._buffer = bytearray()
        self._peer: NodeId | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _tune(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._consume()
        except (msgspec.MsgspecError, UnicodeDecodeError, _BadFrame) as error:
            self._network.say(warning="dropped a link", peer=self._peer, reason=error)
            self._transport.abort()

    def _consume(self) -> None:
        position = 0
        with memoryview(self._buffer) as view:
            while len(view) - position >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(view, position)
                if size > FRAME_BYTES_MAX:
                    raise _BadFrame(f"a message of {size} bytes, more than {FRAME_BYTES_MAX}")
                start = position + _LENGTH.size
                if len(view) - start < size:
                    break
                self._take(decode_message(view[start : start + size]))
                position = start + size
        del self._buffer[:position]

    def _take(self, message: Message) -> None:
        if self._transport.is_closing():
            return
        if self._peer is not None:
            self._network.on_message(self._peer, message)
        elif isinstance(message, Hello) and self._network.accept(message, self._transport):
            self._peer = message.sender
        else:
            raise _BadFrame("the first message is not a hello from a peer to this node")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._peer is not None:
            self._network.forget(self._peer, self._transport)


class _BadFrame(Exception):
    pass
