"""What nodes in network namespaces see of each other, tried with real packets.

To be used inside a private world. A thread that has joined a node's network namespace makes
sockets that stay there, so one process holds the ends of all connections and no server is needed.
"""

import ctypes
import fcntl
import os
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from labrys.control import process
from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError
from labrys.control.process import State
from labrys.control.systems.base import DataFiles

T = TypeVar("T")

UDP_PORT = 9001
TCP_PORT = 9002
DEADLINE_S = 20.0

Link = tuple[str, str]
"""From a node to a node."""


class Sleepers:
    """A system whose database does nothing but be there."""

    process_name = "db"
    monotonic_s = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def __init__(self, env: Environment, leader: str) -> None:
        self.env = env
        self.leader = leader
        self.environ: Mapping[str, Mapping[str, str]] = {}

    def data_dir(self, node: str) -> str:
        return f"{self.env.home(node)}/data"

    def start(self, node: str) -> None:
        log = f"{self.env.log_dir(node)}/log"
        variables = [f"{name}={value}" for name, value in self.environ.get(node, {}).items()]
        process.start(self.env, node, "db", ["env", *variables, "sleep", "1000"], log)

    def kill(self, node: str) -> None:
        process.kill(self.env, node, "db")

    def pause(self, node: str) -> None:
        process.signal(self.env, node, "db", "STOP")

    def resume(self, node: str) -> None:
        process.signal(self.env, node, "db", "CONT")

    def state(self, node: str) -> State:
        return process.state(self.env, node, "db")

    def leaders(self) -> tuple[str, ...]:
        return (self.leader,)

    def transfer_leadership(self, target: str, timeout_s: float) -> None:
        raise ClusterError("a sleeping process leads nobody")

    def members(self) -> tuple[str, ...] | None:
        return self.env.nodes

    def change_members(
        self, timeout_s: float, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        raise ClusterError("a sleeping process has no members")

    def data_files(self, node: str) -> Mapping[str, DataFiles]:
        return {}

    def lose_data(self, node: str) -> int:
        return 0

    def make_newcomer(self, node: str) -> None:
        raise ClusterError("a sleeping process has no members")

    def knows_removal(self, node: str, removed: Sequence[str]) -> bool:
        return False

    def is_whole(self, node: str) -> bool | None:
        return True if self.state(node) is State.RUNNING else None

    def tolerated_losses(self) -> int:
        return 0

    def log_end(self, node: str) -> int:
        return 0

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        return ()


def within(node: str, make: Callable[[], T]) -> T:
    """Return what `make` returns in a thread that has joined the network namespace of `node`."""
    made: list[T] = []

    def join_and_make() -> None:
        namespace = os.open(f"/run/netns/{node}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            clone_newnet = 0x40000000
            assert ctypes.CDLL(None).setns(namespace, clone_newnet) == 0
        finally:
            os.close(namespace)
        made.append(make())

    thread = threading.Thread(target=join_and_make)
    thread.start()
    thread.join()
    return made[0]


class Mesh:
    """Sockets in all nodes: one for datagrams each, and a TCP connection for each two."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.links = [(a, b) for a in env.nodes for b in env.nodes if a != b]
        self.udp = {node: within(node, partial(self._udp_socket, node)) for node in env.nodes}
        self.listeners = {node: within(node, partial(self._listener, node)) for node in env.nodes}
        self.ends: dict[Link, socket.socket] = {}
        """(a, b): the end in `a` of the connection between the two."""
        for a, b in self.links:
            if a < b:
                connect = partial(socket.create_connection, self.tcp_address(b))
                self.ends[a, b] = within(a, connect)
                self.ends[b, a] = self.listeners[b].accept()[0]
        for end in self.ends.values():
            end.setblocking(False)

    def tcp_address(self, node: str) -> tuple[str, int]:
        return self.env.address(node), TCP_PORT

    def send_datagrams(self) -> None:
        """Send one over each link."""
        for a, b in self.links:
            self.udp[a].sendto(a.encode(), (self.env.address(b), UDP_PORT))

    def datagrams(self, expected: set[Link]) -> set[Link]:
        """Return the links over which one has come by the time that all of `expected` have."""
        came: set[Link] = set()
        for _ in until_deadline(f"datagrams over {expected}"):
            for node, receiver in self.udp.items():
                with suppress(BlockingIOError):
                    while True:
                        came.add((receiver.recv(99).decode(), node))
            if came >= expected:
                return came
        raise AssertionError("unreachable")

    def send_over_established(self) -> None:
        """Send a byte over each established connection, in both directions."""
        for end in self.ends.values():
            assert end.send(b"x") == 1

    def received(self, expected: set[Link]) -> set[Link]:
        """Return the links whose byte has come by the time that all of `expected` have."""
        came: set[Link] = set()
        for _ in until_deadline(f"bytes over {expected}"):
            for (b, a), end in self.ends.items():
                with suppress(BlockingIOError):
                    if end.recv(1):
                        came.add((a, b))
            if came >= expected:
                return came
        raise AssertionError("unreachable")

    def settle(self) -> None:
        """Wait until every byte is acknowledged.

        One that is not, since only the way back was cut, holds back those that are sent after it.
        """
        for _ in until_deadline("acknowledgements over the established connections"):
            if not any(map(_unacknowledged_bytes, self.ends.values())):
                return

    def connects(self, expected: set[Link]) -> set[Link]:
        """Try a new connection over each link; return those made once `expected` are."""
        trying = {(a, b): within(a, partial(self._connecting, b)) for a, b in self.links}
        made: set[Link] = set()
        try:
            for _ in until_deadline(f"connections over {expected}"):
                _, writable, _ = select.select([], list(trying.values()), [], 0)
                made = {
                    link
                    for link, end in trying.items()
                    if end in writable and end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                }
                if made >= expected:
                    return made
        finally:
            for end in trying.values():
                end.close()
        raise AssertionError("unreachable")

    def is_reached_by_the_controller(self) -> bool:
        """Whether a client outside the nodes gets through to all of them."""
        for node in self.env.nodes:
            socket.create_connection(self.tcp_address(node), timeout=5).close()
        return True

    def _udp_socket(self, node: str) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.env.address(node), UDP_PORT))
        made.setblocking(False)
        return made

    def _listener(self, node: str) -> socket.socket:
        return socket.create_server(self.tcp_address(node), backlog=1000)

    def _connecting(self, node: str) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex(self.tcp_address(node))
        return made


def _unacknowledged_bytes(end: socket.socket) -> int:
    answer = fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def until_deadline(what: str) -> Iterator[None]:
    """Yield again and again; raise when it has been too long."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        yield
        time.sleep(0.002)
    raise TimeoutError(f"waited {DEADLINE_S} s for {what}")
