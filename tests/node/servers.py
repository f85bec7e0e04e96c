"""Real nodes as processes on loopback, and a small HTTP client for them."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from labrys.node.storage import Storage

DEADLINE_S = 20.0
T = TypeVar("T")


_reserved: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports that are ours until the tests end.

    A socket that is bound and does not listen lets a server with SO_REUSEADDR have its port (they
    all set it) and keeps the kernel from giving it to anybody else in the meantime.
    """
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    _reserved.extend(sockets)
    return [int(each.getsockname()[1]) for each in sockets]


def wait_for(what: str, attempt: Callable[[], T | None]) -> T:
    """Poll until `attempt` returns something true; fails with `what` at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = attempt()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


class Server:
    """One node: how to start it, and whether it runs."""

    def __init__(self, name: str, peers: str, http_port: int, directory: Path) -> None:
        self.name = name
        self.http_port = http_port
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.argv = [
            sys.executable, "-m", "labrys.node.cli", "--id", name, "--peers", peers,
            "--http", f"127.0.0.1:{http_port}", "--data", str(self.data),
        ]  # fmt: skip
        self.place = ""
        """Where it listens for peers, if it is to join."""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str, program: str | None = None) -> None:
        """Start the process; it logs into a file that is appended to.

        `program` is Python that runs in the place of the node's, to break something in it.
        """
        argv = [*self.argv, *flags]
        if program is not None:
            argv = [sys.executable, "-c", program, *argv[3:], "--data", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def wipe(self) -> None:
        """Lose all its data."""
        shutil.rmtree(self.data)

    def fetch(self, path: str) -> tuple[int, str, str]:
        """Status, text and content type of what is there."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)) as link:
            link.request("GET", path)
            response = link.getresponse()
            return response.status, response.read().decode(), response.headers["Content-Type"]

    def begin_as_old_member(self) -> None:
        """Make the data of a node that need not ask the others what it promised before."""
        Storage(self.data, self.name).close()

    def argv_with_file_limit(self, size_bytes: int) -> list[str]:
        """The command of this node where no file may grow beyond `size_bytes`."""
        limited = (
            "import resource, runpy\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))\n"
            "runpy.run_module('labrys.node.cli', run_name='__main__')\n"
        )
        return [sys.executable, "-c", limited, *self.argv[3:]]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own: status and decoded JSON body."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)) as link:
            data = None if body is None else json.dumps(body)
            link.request(method, path, data)
            response = link.getresponse()
            return response.status, json.loads(response.read())

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Like `call`, but again while the cluster has no leader: a busy machine may cause an
        election at any time. Only for what may happen twice."""

        def attempt() -> tuple[int, Any] | None:
            answer = self.call(method, path, body)
            return None if answer[0] in (502, 503, 504) else answer

        return wait_for(f"{self.name} serves {method} {path}", attempt)

    def is_ready(self) -> bool:
        """Whether it answers that it serves clients."""
        try:
            return self.call("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def status(self) -> dict[str, Any]:
        """What it says about itself."""
        found: dict[str, Any] = self.call("GET", "/v1/status")[1]
        return found


@contextmanager
def cluster(
    directory: Path, size: int, *flags: str, program: str | None = None
) -> Iterator[list[Server]]:
    """That many nodes, ready to serve; killed at the end."""
    ports = free_ports(2 * size)
    names = [f"n{i + 1}" for i in range(size)]
    peers = ",".join(f"{n}=127.0.0.1:{p}" for n, p in zip(names, ports[:size], strict=True))
    servers = [Server(n, peers, p, directory) for n, p in zip(names, ports[size:], strict=True)]
    try:
        for server in servers:
            server.start(*flags, program=program)
        for server in servers:
            wait_for(f"{server.name} is ready", server.is_ready)
        yield servers
    finally:
        for server in servers:
            server.kill()


def leader_of(servers: list[Server]) -> Server:
    """The running node that the running nodes call their leader."""

    def find() -> Server | None:
        running = [server for server in servers if server.process is not None]
        try:
            said = {server.status()["leader"] for server in running}
        except OSError:
            return None
        return next((s for s in running if {s.name} == said and s.is_ready()), None)

    return wait_for("one leader that all agree on", find)
