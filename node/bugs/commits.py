"""Faults in what a leader takes for committed."""

from collections.abc import Sequence

from labrys.node.bugs.careless import Careless
from labrys.node.bugs.variant import variant
from labrys.node.messages import Entry


class EarlyAck(Careless):
    """Takes an entry for committed as soon as it is in the leader's own log.

    A leader that acknowledges alone does not ask whether it still has a majority, either.

    Seen in: every store with asynchronous replication that is taken for more, such as Redis with
    Sentinel.
    Seen by: raft (durability), linearizable
    """

    def _append(self, entries: Sequence[Entry]) -> None:
        super()._append(entries)
        self._commit_to(self.log.last_index)

    def _has_lost_quorum(self) -> bool:
        return False


class CommitOldTerm(Careless):
    """Commits whatever a majority holds, of any term, and opens its term without an entry.

    A later leader may still lack it, and cut it: figure 8 of the Raft paper.

    Seen in: goraft, which does not compare the entry's term.
    Seen by: raft (leader completeness)
    """

    def _may_commit(self, index: int) -> bool:
        return True

    def _open_term(self) -> None:
        self._term_start = self.log.last_index


class OwnCopyAtOnce(Careless):
    """Counts the leader's own copy before it is on disk.

    Seen in: etcd #14370, where a single member answered while its log was still being saved.
    Seen by: raft (durability)
    """

    def _append(self, entries: Sequence[Entry]) -> None:
        super()._append(entries)
        self._durable_index = self.log.last_index
        self._advance_commit()


BUGS = {
    "early-ack": variant("writes are acknowledged before they are replicated", EarlyAck),
    "commit-old-term": variant("entries of older terms are committed by counting", CommitOldTerm),
    "own-copy-at-once": variant("the leader's copy counts before it is on disk", OwnCopyAtOnce),
}
