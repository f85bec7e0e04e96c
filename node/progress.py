"""What a leader knows about one follower, and what it sends next.

One batch of entries is under way to a follower at a time. Whatever is proposed meanwhile travels
in the next batch, which is how one disk write at the follower comes to hold many commands. Only
`match_index` carries safety: it is the highest index the follower has confirmed to be on its disk
in this term of office. `next_index` is a guess and may be wrong in either direction.
"""


class Progress:
    """One follower, seen from the leader of one term."""

    __slots__ = ("acked_round", "flight_end", "flight_sent_ms", "heard_ms", "match_index",
                 "next_index")  # fmt: skip

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.heard_ms = now_ms
        self.acked_round = 0
        self.flight_end: int | None = None
        """Last index of the batch under way, None when nothing is."""
        self.flight_sent_ms = 0

    def sent(self, last_index: int, now_ms: int) -> None:
        """A batch that ends at `last_index` has left."""
        self.flight_end = last_index
        self.flight_sent_ms = now_ms

    def give_up_flight(self, sent_before_ms: int) -> None:
        """Treat a batch that left before the given moment as lost, so that it is sent again."""
        if self.flight_end is not None and self.flight_sent_ms < sent_before_ms:
            self.flight_end = None

    def accepted(self, index: int) -> None:
        """The follower confirmed everything up to `index`; late confirmations change nothing."""
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        if self.flight_end is not None and index >= self.flight_end:
            self.flight_end = None

    def rejected(self, index: int, next_index: int) -> None:
        """The follower does not agree at `index`: go back to `next_index`, at least one step."""
        self.next_index = max(1, min(next_index, index))
        self.flight_end = None
