"""A load generator: keep-alive connections, one request under way on each, every latency kept.

Run as a process of its own, so that it does not share an interpreter with what it measures:

    python -m benchmarks.http_load HOST PORT CONNECTIONS SECONDS < requests.json

The requests are a JSON list of [method, path, body or null]; each connection goes round in it. The
result is one JSON object on stdout. Answers other than 200 are counted, and make it fail.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

Request = tuple[str, str, str | None]


class Load(NamedTuple):
    """What came back: requests per second, and seconds each."""

    per_s: float
    p50_s: float
    p99_s: float
    longest_s: float
    """The longest wait for one answer."""


def measure(port: int, connections: int, seconds: float, requests: Sequence[Request]) -> Load:
    """Run the load in another process; raises RuntimeError if an answer was not 200."""
    argv = [sys.executable, "-m", "benchmarks.http_load", "127.0.0.1", str(port)]
    done = subprocess.run(
        [*argv, str(connections), str(seconds)],
        input=json.dumps(requests), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    return Load(**json.loads(done.stdout))


class _Client:
    def __init__(self, host: str, port: int, turn: int) -> None:
        self.turn = turn
        self.sent_s = 0.0
        self.buffer = b""
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: Sequence[bytes]) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(data[self.turn % len(data)])
        self.turn += 1

    def receive(self) -> bytes | None:
        """The status of a whole answer, None while it is not complete."""
        received = self.socket.recv(1 << 16)
        if not received:
            raise SystemExit("the server closed a connection")
        self.buffer += received
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = self.buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < head_end + 4 + length:
            return None
        status, self.buffer = self.buffer[9:12], b""
        return status


def _run(host: str, port: int, connections: int, seconds: float, data: Sequence[bytes]) -> Load:
    chooser = selectors.EpollSelector()
    clients = [_Client(host, port, turn * 61) for turn in range(connections)]
    latencies: list[float] = []
    begun_s = time.perf_counter()
    end_s = begun_s + seconds
    for client in clients:
        chooser.register(client.socket, selectors.EVENT_READ, client)
        client.send(data)
    waiting = len(clients)
    while waiting:
        for key, _ in chooser.select():
            client = key.data
            status = client.receive()
            if status is None:
                continue
            now_s = time.perf_counter()
            if status != b"200":
                raise SystemExit(f"an answer was {status!r}, after {len(latencies)} good ones")
            latencies.append(now_s - client.sent_s)
            if now_s < end_s:
                client.send(data)
            else:
                waiting -= 1
    elapsed_s = time.perf_counter() - begun_s
    latencies.sort()
    count = len(latencies)
    return Load(
        per_s=count / elapsed_s,
        p50_s=latencies[count // 2],
        p99_s=latencies[min(count - 1, count * 99 // 100)],
        longest_s=latencies[-1],
    )


def _encoded(host: str, request: Request) -> bytes:
    method, path, body = request
    data = (body or "").encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def main() -> None:
    """Read the requests, make the load, print what came back."""
    host, port, connections, seconds = sys.argv[1:]
    data = [_encoded(host, request) for request in json.load(sys.stdin)]
    load = _run(host, int(port), int(connections), float(seconds), data)
    print(json.dumps(load._asdict()))


if __name__ == "__main__":
    main()
