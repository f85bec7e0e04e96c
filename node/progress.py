"""What a leader knows about one follower, and how much it may send it now.

A follower is in one of three states. While the leader does not know where the logs part it
*probes*: one request at a time. Once a request was accepted it *replicates*: batches follow each
other without waiting, up to a window in number and bytes, so a slow follower bounds what is under
way to it. When the log no longer reaches back far enough it receives the *snapshot*, piece by
piece; the follower says which offset it wants next, so a broken connection costs one piece.

Only `match_index` carries safety: it is the highest index the follower has confirmed to be on its
disk in this term of office. `next_index` is a guess and may be wrong in either direction.
"""

from collections import deque
from enum import StrEnum


class State(StrEnum):
    """How a leader treats a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower, seen from the leader of one term."""

    __slots__ = ("_flight_bytes", "_flights", "_stirred_ms", "acked_round", "heard_ms",
                 "match_index", "next_index", "offset", "snapshot_index", "state")  # fmt: skip

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.state = State.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.heard_ms = now_ms
        self.acked_round = 0
        self.snapshot_index = 0
        self.offset = 0
        """Where the next piece of the snapshot begins."""
        self._flights: deque[tuple[int, int]] = deque()
        """Last index and bytes of each request with entries under way, oldest first."""
        self._flight_bytes = 0
        self._stirred_ms = now_ms
        """When the oldest flight left or the newest confirmation came."""

    @property
    def is_in_flight(self) -> bool:
        """Whether anything is under way that will be confirmed."""
        return bool(self._flights)

    def needs_care(self, stirred_before_ms: int) -> bool:
        """Whether a snapshot is to be sent, or what is under way is lost; see `give_up_flights`."""
        return self.state is State.SNAPSHOT or (
            bool(self._flights) and self._stirred_ms < stirred_before_ms
        )

    def may_send(self, count_max: int, bytes_max: int) -> bool:
        """Whether one more request with entries, or one more piece, may leave."""
        if self.state is not State.REPLICATE:
            return not self._flights
        return len(self._flights) < count_max and self._flight_bytes < bytes_max

    def sent(self, last_index: int, size_bytes: int, now_ms: int) -> None:
        """A request whose entries end at `last_index` has left."""
        if not self._flights:
            self._stirred_ms = now_ms
        self._flights.append((last_index, size_bytes))
        self._flight_bytes += size_bytes
        if self.state is State.REPLICATE:
            self.next_index = last_index + 1

    def accepted(self, index: int, now_ms: int) -> bool:
        """The follower confirmed everything up to `index`; whether that is news."""
        is_news = index > self.match_index
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        if self.state is State.PROBE or (self.state is State.SNAPSHOT and is_news):
            self._enter(State.REPLICATE)
            self.next_index = self.match_index + 1
        while self._flights and self._flights[0][0] <= index:
            self._flight_bytes -= self._flights.popleft()[1]
            self._stirred_ms = now_ms
        return is_news

    def rejected(self, index: int, next_index: int) -> None:
        """The follower does not agree at `index`: go back to `next_index`, at least one step."""
        if self.match_index < index < self.next_index and self.state is not State.SNAPSHOT:
            self._enter(State.PROBE)
            self.next_index = max(self.match_index + 1, min(next_index, index))

    def lost(self) -> None:
        """Take whatever is under way for lost and send it again, one request at a time."""
        if self.state is State.REPLICATE:
            self.next_index = self.match_index + 1
            self._enter(State.PROBE)
        self._clear_flights()

    def give_up_flights(self, stirred_before_ms: int) -> None:
        """Take what is under way for lost when nothing was confirmed since the given moment."""
        if self._flights and self._stirred_ms < stirred_before_ms:
            self.lost()

    def needs_snapshot(self, index: int) -> None:
        """The log does not reach back: send the snapshot at `index`, from its beginning if new."""
        if self.state is not State.SNAPSHOT or self.snapshot_index != index:
            self._enter(State.SNAPSHOT)
            self.snapshot_index = index
            self.offset = 0

    def wants(self, offset: int) -> None:
        """The follower asks for this offset of the snapshot next."""
        self.offset = offset
        self._clear_flights()

    def _enter(self, state: State) -> None:
        self.state = state
        self._clear_flights()

    def _clear_flights(self) -> None:
        self._flights.clear()
        self._flight_bytes = 0
