"""A slow line to a simulated node."""

from typing import Final

from labrys.control.sim.world import SECOND_NS

HEADERS_BYTES: Final = 70
"""What Ethernet, IP, TCP and the length in front of it add to a message."""
WAIT_NS: Final = SECOND_NS
"""What would have to wait longer is dropped."""


class Line:
    """A slow line: it takes packets one after the other, and drops those for which it is too busy.

    What a real one does is said in `labrys.control.nemesis.bandwidth`.
    """

    def __init__(self, bits_s: float) -> None:
        self._bits_s = bits_s
        self._free_ns = 0
        """When it will have sent all that it took."""
        self._busy_ns = self._bytes = 0
        self.packets = self.queued = self.dropped = 0

    def take(self, now_ns: int, size_bytes: int) -> int | None:
        """Take a packet; when it is at the other end, or None if it is dropped."""
        if self._free_ns - now_ns > WAIT_NS:
            self.dropped += 1
            return None
        self.packets += 1
        self.queued += self._free_ns > now_ns
        taken_ns = round(size_bytes * 8 / self._bits_s * SECOND_NS)
        self._free_ns = max(now_ns, self._free_ns) + taken_ns
        self._busy_ns += taken_ns
        self._bytes += size_bytes
        return self._free_ns

    def facts(self) -> dict[str, float]:
        """What became of the packets."""
        return {
            "packets": self.packets,
            "queued": self.queued,
            "dropped": self.dropped,
            "kbit_s": round(8e6 * self._bytes / self._busy_ns, 1),
            "asked_kbit_s": round(self._bits_s / 1e3, 3),
        }
