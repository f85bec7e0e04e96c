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
from labrys.node.messages import Hello, Message, NodeId, decode_message, encode_message

Address = tuple[str, int]

STALL_MS = 1000
DIAL_TIMEOUT_S = 0.5
REDIAL_S = 0.1
QUEUE_BYTES_MAX = 8 << 20
FRAME_BYTES_MAX = 32 << 20
_LENGTH = struct.Struct(">I")


class PeerNetwork:
    """All links of a node. `on_message` gets (peer, message), `on_lost` a peer it lost."""

    def __init__(
        self,
        node: NodeId,
        peers: Mapping[NodeId, Address],
        on_message: Callable[[NodeId, Message], None],
        on_lost: Callable[[NodeId], None],
        say: Say,
    ) -> None:
        self.node = node
        self.on_message = on_message
        self.on_lost = on_lost
        self.say = say
        self._peers = dict(peers)
        self._outgoing: dict[NodeId, asyncio.WriteTransport] = {}
        self._incoming: dict[NodeId, asyncio.Transport] = {}

    def send(self, peer: NodeId, message: Message) -> bool:
        """Queue a message; False if it was dropped at once and certainly not sent."""
        transport = self._outgoing.get(peer)
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > QUEUE_BYTES_MAX:
            return False
        data = encode_message(message)
        transport.write(_LENGTH.pack(len(data)) + data)
        return True

    async def listen(self, address: Address) -> asyncio.Server:
        """Accept the links of other nodes; raises MachineError if the port cannot be had."""
        host, port = address
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(lambda: _Incoming(self), host or None, port)
        except OSError as error:
            raise MachineError(
                f"cannot listen for peers on {host}:{port}: {error.strerror or error}. Is another "
                "node running there? Choose another --listen"
            ) from error

    async def keep_dialling(self, peer: NodeId) -> None:
        """Keep the outgoing link to one peer; ends only by cancellation."""
        loop = asyncio.get_running_loop()
        host, port = self._peers[peer]
        complaint: str | None = None
        while True:
            transport = None
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    # goraft's ":3030" means this machine.
                    transport, link = await loop.create_connection(
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
                hello = encode_message(Hello(self.node, peer))
                transport.write(_LENGTH.pack(len(hello)) + hello)
                self._outgoing[peer] = transport
                self.say(link=peer, state="up")
                try:
                    await link.lost
                finally:
                    del self._outgoing[peer]
                    transport.abort()
                self.say(link=peer, state="down")
                self.on_lost(peer)
            await asyncio.sleep(REDIAL_S)

    def accept(self, hello: Hello, transport: asyncio.Transport) -> bool:
        """Whether an incoming link may speak; it replaces an older one of the same peer."""
        if hello.target != self.node or hello.sender not in self._peers:
            self.say(warning="refused a link", sender=hello.sender, target=hello.target)
            return False
        older = self._incoming.get(hello.sender)
        self._incoming[hello.sender] = transport
        if older is not None:
            older.abort()
        return True

    def forget(self, peer: NodeId, transport: asyncio.Transport) -> None:
        """An incoming link is gone; answers that were under way on it will not come."""
        if self._incoming.get(peer) is transport:
            del self._incoming[peer]
            self.on_lost(peer)

    def abort(self) -> None:
        """Drop all incoming links; the outgoing ones end with their dialling tasks."""
        for transport in list(self._incoming.values()):
            transport.abort()


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
