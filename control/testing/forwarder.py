"""Forwards a port of this machine's loopback to a node, from where the node can be reached.

A socket belongs to the network namespace in which it was made. One that was made outside listens
outside, even when a process in a private world accepts from it: so a test outside can talk to nodes
that only the process inside can reach.

What a client sees is what the node does, but for one thing: its connection comes about even when
nobody listens at the node, and is reset then. So a client cannot tell for certain that nothing was
sent.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

CONNECT_TIMEOUT_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)
"""As SO_LINGER: closing resets the connection."""


def listen() -> socket.socket:
    """Return a socket that listens at a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def url(listener: socket.socket) -> str:
    """Where clients find `listener`."""
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


def forward(listener: socket.socket, host: str, port: int) -> None:
    """Take every connection to `listener` on to a node, in threads of its own, and return."""
    _background(_accept, listener, (host, port))


def _accept(listener: socket.socket, target: tuple[str, int]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed: this is the end
            return
        _background(_serve, client, target)


def _serve(client: socket.socket, target: tuple[str, int]) -> None:
    try:
        node = socket.create_connection(target, timeout=CONNECT_TIMEOUT_S)
    except OSError:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.close()
        return
    node.settimeout(None)
    for end in (client, node):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, node:
        answers = _background(_copy, node, client)
        _copy(client, node)
        answers.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # whichever end has gone, the other one is to see it
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    for end, how in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
        with suppress(OSError):
            end.shutdown(how)


def _background(work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread
