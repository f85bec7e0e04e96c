"""Linearizable reads without a log entry: ReadIndex (dissertation 6.4).

A read may be answered from the state of any node that has applied up to the read's index. The
leader may name its commit index as that index when two things hold: it has committed an entry of
its own term (else it may not know the newest commit index), and a quorum has acknowledged it in a
broadcast that *began after* the read arrived (else a newer leader may exist already).

`ReadQueue` is the leader's side. Its tickets stand for a read of its own or for a follower's batch
of reads. `FollowerReads` is the side of the one who asks: all reads that arrive while a batch is
asked for share the next one.
"""

from collections import deque

from labrys.node.messages import NodeId

Ticket = int | tuple[NodeId, int]
"""A read id of the leader's own clients, or a follower and the number of its batch."""


class ReadQueue:
    """The reads of one term of office, oldest first."""

    def __init__(self) -> None:
        self._early: list[Ticket] = []
        self._unconfirmed: deque[tuple[int, int, Ticket]] = deque()

    def add(self, ticket: Ticket) -> None:
        """Take in a read that just arrived."""
        self._early.append(ticket)

    def admit(self, next_round: int, commit: int) -> bool:
        """Bind all new reads to the round about to begin; whether there were any."""
        admitted = bool(self._early)
        self._unconfirmed.extend((next_round, commit, ticket) for ticket in self._early)
        self._early.clear()
        return admitted

    def confirm(self, acknowledged_round: int) -> list[tuple[int, Ticket]]:
        """A quorum answered this round: the reads bound to it or before, each with its index."""
        confirmed = []
        while self._unconfirmed and self._unconfirmed[0][0] <= acknowledged_round:
            _, index, ticket = self._unconfirmed.popleft()
            confirmed.append((index, ticket))
        return confirmed

    def take_all(self) -> list[Ticket]:
        """All reads, which wait here no more: the office that could have confirmed them is lost."""
        tickets = [*(ticket for _, _, ticket in self._unconfirmed), *self._early]
        self._early.clear()
        self._unconfirmed.clear()
        return tickets


class FollowerReads:
    """Reads that wait for an index from the leader. `first_batch` must differ between lives."""

    def __init__(self, first_batch: int) -> None:
        self._batch = first_batch
        self._new: list[int] = []
        self._asked: dict[int, list[int]] = {}
        self._asked_ms = 0

    def add(self, read_id: int) -> None:
        """Take in a read that just arrived."""
        self._new.append(read_id)

    def ask(self, now_ms: int) -> int | None:
        """The number of a batch to ask for, None when nothing new waits."""
        if not self._new:
            return None
        self._batch += 1
        self._asked[self._batch] = self._new
        self._new = []
        self._asked_ms = now_ms
        return self._batch

    def answered(self, batch: int) -> list[int]:
        """The reads of a batch whose index came; none when it came before."""
        return self._asked.pop(batch, [])

    def ask_again(self, asked_before_ms: int) -> None:
        """What was asked before the given moment is taken for lost and joins the next batch."""
        if self._asked and self._asked_ms < asked_before_ms:
            for read_ids in self._asked.values():
                self._new.extend(read_ids)
            self._asked.clear()

    def take_all(self) -> list[int]:
        """Everything that waits, which waits here no more."""
        self.ask_again(self._asked_ms + 1)
        new, self._new = self._new, []
        return new
