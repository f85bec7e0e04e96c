"""Linearizable reads without a log entry: ReadIndex (dissertation 6.4).

A read may be answered from the leader's state when three things hold: the leader has committed an
entry of its own term (else it may not know the newest commit index), a quorum has acknowledged it
in a broadcast that *began after* the read arrived (else a newer leader may exist already), and
everything committed up to that moment is applied.

A read therefore passes through three queues. `_early` waits for the first commit of the term.
`_unconfirmed` holds (round, commit index) and waits for a quorum to acknowledge that round.
`_confirmed` waits until the index is applied.
"""

from collections import deque


class ReadQueue:
    """The reads of one term of office, oldest first. Read ids are the caller's."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._unconfirmed: deque[tuple[int, int, int]] = deque()
        self._confirmed: deque[tuple[int, int]] = deque()

    def add(self, read_id: int) -> None:
        """Take in a read that just arrived."""
        self._early.append(read_id)

    def admit(self, next_round: int, commit: int) -> bool:
        """Bind all new reads to the round about to begin; whether there were any."""
        admitted = bool(self._early)
        self._unconfirmed.extend((next_round, commit, read_id) for read_id in self._early)
        self._early.clear()
        return admitted

    def confirm(self, acknowledged_round: int) -> None:
        """A quorum answered `acknowledged_round`: the reads bound to it or before are safe."""
        while self._unconfirmed and self._unconfirmed[0][0] <= acknowledged_round:
            _, index, read_id = self._unconfirmed.popleft()
            self._confirmed.append((index, read_id))

    def take(self, applied: int) -> tuple[int, ...]:
        """The confirmed reads whose index is applied; they are handed out once."""
        ready = []
        while self._confirmed and self._confirmed[0][0] <= applied:
            ready.append(self._confirmed.popleft()[1])
        return tuple(ready)

    def clear(self) -> None:
        """Forget all reads: the office that could have answered them is lost."""
        self._early.clear()
        self._unconfirmed.clear()
        self._confirmed.clear()
