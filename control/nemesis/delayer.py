"""Holds packets back in a node: the other end of an iptables NFQUEUE rule.

The standard library only, and nothing of ours: this very file is put into the node and run there.
The packets stay in the kernel; what comes here is their numbers, and what goes back is a verdict
for each when its time has come (linux/netfilter/nfnetlink_queue.h). It works where the kernel has
no netem, and as root of a user namespace.

    python3 delayer.py QUEUE DELAY_MS JITTER_MS KBIT_S keep|reorder SEED STATS

With KBIT_S above 0 packets also pass one after the other, as fast as a line of that rate takes
them; those that would have to wait for more than a second are dropped, as a router's buffer does.

On SIGTERM it lets go of all it holds, writes to STATS how many packets it held for how long, and
ends. Should it die, `--queue-bypass` lets packets pass.
"""

import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NO_ENOBUFS = 270, 5
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 16 << 20
_QUEUE = 3 << 8
_PACKET, _VERDICT, _CONFIG = _QUEUE | 0, _QUEUE | 1, _QUEUE | 2
_ERROR = 2
_REQUEST, _ACK = 1, 4
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_BIND = 1
_COPY_META, _COPY_PACKET = 1, 2
_COPY_BYTES = 4
"""What is copied of a packet whose length is wanted: the kernel tells it only then."""
_FAIL_OPEN, _GSO = 1, 4
_PACKET_HDR, _VERDICT_HDR, _CAP_LEN = 1, 2, 13
_DROP, _ACCEPT = 0, 1
_MAXLEN = 65_000
_BUFFER_S = 1.0


class Delayer:
    """One queue of this network namespace."""

    def __init__(
        self,
        queue: int,
        delay_s: float,
        jitter_s: float,
        *,
        bits_s: float,
        reorder: bool,
        seed: str,
    ) -> None:
        """`bits_s` is the rate of the line; 0: any.

        Raises OSError where the kernel has no such queue, or somebody else holds it.
        """
        self._queue = queue
        self._delay_s, self._jitter_s, self._reorder = delay_s, jitter_s, reorder
        self._bits_s = bits_s
        self._rng = random.Random(seed)
        self._held: list[tuple[float, int, float, int]] = []
        """(when it is due, the packet's number, when it came, its length)."""
        self._last_due = 0.0
        self._count = self._queued = self._dropped = self._bytes = 0
        self._held_s = 0.0
        self._line_free = 0.0
        """When the line will have sent all that it took."""
        self._last_release = 0.0
        self._busy_s = 0.0
        """How long packets were on the line or waited for it."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._configure()
        self._socket.setblocking(False)

    def run(self, until: int) -> None:
        """Serve until there is something to read from the descriptor `until`."""
        while True:
            now = time.monotonic()
            while self._held and self._held[0][0] <= now:
                self._release(now)
            wait = self._held[0][0] - now if self._held else None
            ready, _, _ = select.select([self._socket.fileno(), until], [], [], wait)
            if until in ready:
                return
            if ready:
                self._take_in()

    def let_go(self) -> dict[str, float]:
        """Let go of everything; return what `held` does."""
        line = self._line()  # what is let go early was not sent at the line's rate
        self._take_in()
        while self._held:
            self._release(time.monotonic())
        return self._waits() | line

    def held(self) -> dict[str, float]:
        """Return how many packets were held, how long on average, and what was asked for.

        Of a line also how many found it busy, were dropped, and at what rate it really sent.
        """
        return self._waits() | self._line()

    def _waits(self) -> dict[str, float]:
        mean_ms = 1e3 * self._held_s / self._count if self._count else 0.0
        facts = {"packets": self._count, "mean_ms": round(mean_ms, 3)}
        if self._delay_s:
            facts["asked_ms"] = round(1e3 * self._delay_s, 3)
        return facts

    def _line(self) -> dict[str, float]:
        if not self._bits_s:
            return {}
        kbit_s = 8e-3 * self._bytes / self._busy_s if self._busy_s else 0.0
        return {
            "queued": self._queued,
            "dropped": self._dropped,
            "kbit_s": round(kbit_s, 1),
            "asked_kbit_s": round(self._bits_s / 1e3, 3),
        }

    def _configure(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:  # in a user namespace
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        if self._bits_s:
            # Without GSO the kernel cuts what TCP sends in one piece into packets, as a line does.
            flags, copied = struct.pack(">I", _FAIL_OPEN), (_COPY_BYTES, _COPY_PACKET)
        else:
            flags, copied = struct.pack(">I", _FAIL_OPEN | _GSO), (0, _COPY_META)
        mask = struct.pack(">I", _FAIL_OPEN | _GSO)
        for attributes in (
            _attribute(_CFG_CMD, struct.pack(">BxH", _BIND, socket.AF_INET)),
            _attribute(_CFG_PARAMS, struct.pack(">IB", *copied)),
            _attribute(_CFG_MAXLEN, struct.pack(">I", _MAXLEN)),
            _attribute(_CFG_MASK, mask) + _attribute(_CFG_FLAGS, flags),
        ):
            self._send(_CONFIG, _REQUEST | _ACK, attributes)
            for kind, body in _messages(self._socket.recv(1 << 16)):
                (code,) = struct.unpack_from("=i", body)
                if kind == _ERROR and code:
                    raise OSError(-code, f"queue {self._queue}: {os.strerror(-code)}")

    def _send(self, kind: int, flags: int, attributes: bytes) -> None:
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, self._queue) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body)

    def _take_in(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            now = time.monotonic()
            for kind, body in _messages(data):
                if kind != _PACKET:
                    continue
                number, size_bytes = _number_and_size(body)
                due = now + self._delay_s + self._rng.uniform(-1, 1) * self._jitter_s
                if self._bits_s:
                    if self._line_free - now > _BUFFER_S:
                        self._dropped += 1
                        self._judge(number, _DROP)
                        continue
                    self._queued += self._line_free > now
                    self._line_free = max(now, self._line_free) + 8 * size_bytes / self._bits_s
                    due = max(due, self._line_free)
                if not self._reorder:
                    due = self._last_due = max(due, self._last_due)
                heapq.heappush(self._held, (due, number, now, size_bytes))

    def _release(self, now: float) -> None:
        _, number, came, size_bytes = heapq.heappop(self._held)
        self._count += 1
        self._held_s += now - came
        self._bytes += size_bytes
        self._busy_s += now - max(came, self._last_release)
        self._last_release = now
        self._judge(number, _ACCEPT)

    def _judge(self, number: int, verdict: int) -> None:
        attribute = _attribute(_VERDICT_HDR, struct.pack(">II", verdict, number))
        self._send(_VERDICT, _REQUEST, attribute)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of the netlink messages in a datagram."""
    place = 0
    while place + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, place)
        yield kind, data[place + 16 : place + length]
        place += length + (-length % 4)


def _number_and_size(body: bytes) -> tuple[int, int]:
    """Return a packet's number, and its length where that was asked for, else 0."""
    number, size_bytes = -1, 0
    place = 4  # behind family, version and queue
    while place + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, place)
        if kind & 0x3FFF == _PACKET_HDR:
            (number,) = struct.unpack_from(">I", body, place + 4)
        elif kind & 0x3FFF == _CAP_LEN:
            (size_bytes,) = struct.unpack_from(">I", body, place + 4)
        place += length + (-length % 4)
    if number < 0:
        raise ValueError("a packet without a header")
    return number, size_bytes


def main(argv: list[str]) -> None:
    """Hold packets back until SIGTERM."""
    queue, delay_ms, jitter_ms, kbit_s, order, seed, stats = argv
    told, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGTERM, lambda *_: None)
    delayer = Delayer(
        int(queue),
        float(delay_ms) / 1e3,
        float(jitter_ms) / 1e3,
        bits_s=float(kbit_s) * 1e3,
        reorder=order == "reorder",
        seed=seed,
    )
    _write(stats, delayer.held())
    delayer.run(told)
    _write(stats, delayer.let_go())


def _write(path: str, facts: dict[str, float]) -> None:
    with open(f"{path}.new", "w") as file:
        json.dump(facts, file)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main(sys.argv[1:])
