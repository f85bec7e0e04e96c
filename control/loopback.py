"""A cluster of `labrys-node` processes on this machine's loopback, for stress and measurements.

Unlike an environment it has no network to cut: only processes that can be started, stopped and
killed, and their data directories. They are ended by their own process objects, whatever happens.
"""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from labrys.control.errors import ClusterError, MachineError

HOST = "127.0.0.1"
_POLL_S = 0.01
_STOP_S = 10.0
T = TypeVar("T")


class Server:
    """One node process, its ports and its data."""

    def __init__(self, name: str, http_port: int, directory: Path) -> None:
        self.name = name
        self.http_port = http_port
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def connect(self, timeout_s: float = 10.0) -> http.client.HTTPConnection:
        """A connection of its own; raises OSError."""
        link = http.client.HTTPConnection(HOST, self.http_port, timeout=timeout_s)
        link.connect()
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request: status and decoded body; raises OSError or http.client.HTTPException."""
        with contextlib.closing(self.connect()) as link:
            data = None if body is None else json.dumps(body)
            link.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            response = link.getresponse()
            return response.status, json.loads(response.read())

    def status(self) -> dict[str, Any] | None:
        """What the node says of itself, None when it does not answer."""
        try:
            found: dict[str, Any] = self.call("GET", "/v1/status")[1]
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return found

    def is_ready(self) -> bool:
        """Whether it answers that it serves clients."""
        try:
            return self.call("GET", "/healthz")[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False


class Loopback:
    """That many nodes; ended and, unless told otherwise, left where they are by `close`."""

    def __init__(self, directory: Path, size: int, flags: Sequence[str] = ()) -> None:
        """Nothing is started yet; `directory` holds data and logs."""
        ports = _free_ports(2 * size)
        names = [f"n{number + 1}" for number in range(size)]
        peers = dict(zip(names, ports[:size], strict=True))
        self._peers = ",".join(f"{name}={HOST}:{port}" for name, port in peers.items())
        self._flags = tuple(flags)
        self.servers = [
            Server(name, port, directory) for name, port in zip(names, ports[size:], strict=True)
        ]

    def start(self, server: Server) -> None:
        """Start its process; raises MachineError."""
        argv = [
            sys.executable, "-m", "labrys.node.cli", "--id", server.name, "--peers", self._peers,
            "--http", f"{HOST}:{server.http_port}", "--data", str(server.data), *self._flags,
        ]  # fmt: skip
        try:
            with server.log.open("ab") as log:
                # A session of its own: Ctrl-C is for labrys, which ends its nodes in order.
                server.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise MachineError(f"cannot start {server.name}: {error}") from error

    def start_all(self) -> None:
        """Start every node and wait until all serve clients; raises ClusterError."""
        for server in self.servers:
            self.start(server)
        for server in self.servers:
            self.await_ready(server)

    def await_ready(self, server: Server, timeout_s: float = 30.0) -> None:
        """Wait until it serves clients; raises ClusterError with the end of its log."""

        def attempt() -> bool:
            process = server.process
            if process is not None and process.poll() is not None:
                raise ClusterError(
                    f"{server.name} ended with {process.returncode}: {last_line(server)}"
                )
            return server.is_ready()

        if not wait_for(attempt, timeout_s):
            raise ClusterError(
                f"{server.name} does not serve after {timeout_s:g} s: {last_line(server)}"
            )

    def leader(self, timeout_s: float = 30.0) -> Server:
        """The running node that all running nodes call their leader; raises ClusterError."""

        def find() -> Server | None:
            running = [server for server in self.servers if server.process is not None]
            said = {(status := server.status()) and status["leader"] for server in running}
            return next((s for s in running if {s.name} == said and s.is_ready()), None)

        found = wait_for(find, timeout_s)
        if found is None:
            raise ClusterError(f"no leader that all agree on after {timeout_s:g} s")
        return found

    def kill(self, server: Server) -> None:
        """SIGKILL, and wait until it is gone."""
        process, server.process = server.process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, server: Server) -> None:
        """SIGTERM, and wait for the orderly end; raises ClusterError if there is none."""
        process, server.process = server.process, None
        if process is None:
            return
        process.terminate()
        try:
            code = process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise ClusterError(f"{server.name} did not stop within {_STOP_S:g} s") from error
        if code != 0:
            raise ClusterError(f"{server.name} stopped with {code}: {last_line(server)}")

    def wipe(self, server: Server) -> None:
        """Delete its data; it must not run."""
        assert server.process is None, f"{server.name} runs"
        shutil.rmtree(server.data)

    def close(self) -> None:
        """Kill what runs."""
        for server in self.servers:
            self.kill(server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for(attempt: Callable[[], T], timeout_s: float) -> T | None:
    """Poll until `attempt` returns something true; None when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (found := attempt()):
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_S)
    return found


def last_line(server: Server) -> str:
    """The end of its log."""
    try:
        lines = server.log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"its log cannot be read ({error})"
    return lines[-1] if lines else "it logged nothing"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        found = []
        for _ in range(count):
            each = sockets.enter_context(socket.socket())
            each.bind((HOST, 0))
            found.append(int(each.getsockname()[1]))
        return found
