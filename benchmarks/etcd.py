"""Three members of Debian's etcd on loopback, spoken to through its HTTP gateway.

apt-get install etcd-server
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.http_load import Request

INSTALL = "apt-get install etcd-server"
_DEADLINE_S = 30.0


def is_installed() -> bool:
    """Whether there is an etcd to compare with."""
    return shutil.which("etcd") is not None


def version() -> str:
    """The first line of what it says of itself."""
    done = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[int]:
    """Run three members; the client port of their leader."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(6)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    peers, clients = ports[:3], ports[3:]
    members = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(peers))
    processes = []
    try:
        for number in range(3):
            peer, client = (f"http://127.0.0.1:{p[number]}" for p in (peers, clients))
            with (directory / f"m{number}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [
                            *("etcd", "--name", f"m{number}"),
                            *("--data-dir", str(directory / f"m{number}")),
                            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                            *("--listen-client-urls", client, "--advertise-client-urls", client),
                            *("--initial-cluster", members, "--initial-cluster-state", "new"),
                        ],
                        stdout=log,
                        stderr=log,
                    )
                )
        yield _leader(clients)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def put(key: str, value: str) -> Request:
    """A request that puts one key."""
    return "POST", "/v3/kv/put", json.dumps({"key": _b64(key), "value": _b64(value)})


def get(key: str) -> Request:
    """A request that reads one key, linearizably."""
    return "POST", "/v3/kv/range", json.dumps({"key": _b64(key)})


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _leader(ports: list[int]) -> int:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        for port in ports:
            with contextlib.suppress(OSError, ValueError, KeyError):
                said = _ask(port, "/v3/maintenance/status")
                if said["leader"] == said["header"]["member_id"]:
                    return port
        time.sleep(0.1)
    raise RuntimeError(f"etcd has no leader after {_DEADLINE_S:g} s")


def _ask(port: int, path: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(url, data=b"{}", timeout=1) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
