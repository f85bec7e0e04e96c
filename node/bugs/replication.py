"""Faults in how a follower takes over the leader's log."""

from collections.abc import Sequence

import msgspec

from labrys.node.bugs.careless import Careless
from labrys.node.bugs.elections import sent_early
from labrys.node.bugs.variant import variant
from labrys.node.effects import Effects
from labrys.node.messages import AppendReply, AppendRequest, Entry, NodeId


class NeverCut(Careless):
    """Keeps a conflicting end of its log: an entry that has its index is taken for the right one.

    Seen in: a class of bugs of the willemt and RedisLabs family of Raft libraries.
    Seen by: raft (log matching, state machine safety)
    """

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        beyond = max(0, self.log.last_index - prev_index)
        super()._take_over(prev_index + beyond, entries[beyond:])


class CutOnEveryAppend(Careless):
    """Drops all that follows the previous index of any request, also of one that comes late.

    Entries that were acknowledged are gone until they are sent again.

    Seen in: PySyncObj, which always cuts behind the previous index.
    Seen by: raft (persisted state)
    """

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        if entries and self.log.last_index > prev_index >= self.log.base_index:
            self._cut_from(prev_index + 1)
        super()._take_over(prev_index, entries)


class IgnorePreviousTerm(Careless):
    """Appends wherever the index before is there, of whatever term it is.

    Seen in: a class of bugs, against the consistency check of section 5.3 of the Raft paper.
    Seen by: raft (log matching)
    """

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        held = self.log.term_at(request.prev_index)
        if held is not None:
            request = msgspec.structs.replace(request, prev_term=held)
        super()._on_append_request(sender, request)


class AckBeforeDisk(Careless):
    """Acknowledges entries when it has received them, and writes them down afterwards.

    Seen in: a class of bugs of stores with a thread for the disk, against which etcd's note on
    asynchronous storage writes warns.
    Seen by: raft (persisted state, durability)
    """

    def effects(self) -> Effects:
        return sent_early(super().effects(), AppendReply)


class CommitBeyondVouched(Careless):
    """Commits up to the end of its log, where the leader's message vouched for less.

    What lies beyond the entries of the message may be an old leader's.

    Seen in: goraft, which takes the smaller of the leader's commit index and its own last index.
    Seen by: raft (state machine safety, leader completeness)
    """

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        super()._on_append_request(sender, request)
        if self.leader == sender and request.term == self.term:
            self._commit_to(min(request.commit, self.log.last_index))


class ApplyOnAppend(Careless):
    """A follower applies entries as it receives them, committed or not.

    Seen in: a class of bugs; aborted reads of this kind were in Redis-Raft of 2020.
    Seen by: raft (durability, state machine safety)
    """

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        super()._take_over(prev_index, entries)
        self._commit_to(self.log.last_index)


BUGS = {
    "never-cut": variant("a conflicting end of the log stays", NeverCut),
    "cut-on-every-append": variant("each request cuts what follows it", CutOnEveryAppend),
    "ignore-previous-term": variant(
        "entries are appended behind one of another term", IgnorePreviousTerm
    ),
    "ack-before-disk": variant("a follower acknowledges before its disk", AckBeforeDisk),
    "commit-beyond-vouched": variant(
        "a follower commits what nobody vouched for", CommitBeyondVouched
    ),
    "apply-on-append": variant("a follower applies what is not committed", ApplyOnAppend),
}
