"""What a node's disk holds, as far as it was told, and whether it contradicts what the node said.

A vote that was given, an entry that was acknowledged and the term that they were given in must be
on the node's disk at the moment they are told (Raft paper, figure 2: "updated on stable storage
before responding"), stay there while the term lasts, and be there after a restart.
"""

from collections.abc import Sequence

from labrys.control.sim.violation import Violation
from labrys.node.configuration import Configuration, decode_configuration
from labrys.node.effects import Persist, Restored, SnapshotMeta
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    InstallReply,
    NodeId,
    RaftMessage,
    VoteReply,
    VoteRequest,
)


class Kept:
    """What a node has told of as being on its disk."""

    def __init__(self, base: SnapshotMeta, hard_state: HardState) -> None:
        self.hard_state = hard_state
        self.base = base
        """Where the log begins."""
        self.snapshot = base
        self.entries: list[Entry] = []
        self._configurations = [(base.index, base.configuration)]
        self._vouched = (0, 0)
        """The term and index up to which the node has vouched for its log, the newest of all."""

    @classmethod
    def found(cls, restored: Restored) -> "Kept":
        """What a node has found when it started."""
        kept = cls(restored.snapshot, restored.hard_state)
        kept.entries = list(restored.entries)
        kept.reread()
        return kept

    def reread(self) -> None:
        """Find the configurations in the log again, after `base` and `entries` were set."""
        self._configurations = [(self.base.index, self.base.configuration)]
        self._note(self.base.index + 1, self.entries)

    @property
    def newest(self) -> tuple[int, int]:
        """Term and index of the newest entry, by which logs are compared (section 5.4.1)."""
        last = self.entries[-1].term if self.entries else self.base.term
        return max(
            (last, self.base.index + len(self.entries)), (self.snapshot.term, self.snapshot.index)
        )

    @property
    def configuration(self) -> Configuration:
        """The newest in the log, or in a snapshot that goes beyond it."""
        if self.snapshot.index > self.base.index + len(self.entries):
            return self.snapshot.configuration
        return self._configurations[-1][1]

    def at(self, index: int) -> Entry | None:
        """The entry that is stored at the index."""
        place = index - self.base.index - 1
        return self.entries[place] if 0 <= place < len(self.entries) else None

    def term_at(self, index: int) -> int | None:
        """The term of the entry that is stored at the index, as far as it is known."""
        for meta in (self.base, self.snapshot):
            if meta.index == index:
                return meta.term
        entry = self.at(index)
        return None if entry is None else entry.term

    def write(self, node: NodeId, batch: Persist) -> None:
        """Store one batch, but for its pieces of a snapshot."""
        if batch.hard_state is not None:
            self.hard_state = batch.hard_state
        term, vouched = self._vouched
        held = self.term_at(vouched)
        if batch.base is not None:
            self.base = batch.base
            self.entries.clear()
            self.reread()
        if not batch.entries:
            return
        del self.entries[batch.first_index - self.base.index - 1 :]
        while len(self._configurations) > 1 and self._configurations[-1][0] >= batch.first_index:
            self._configurations.pop()
        self.entries.extend(batch.entries)
        self._note(batch.first_index, batch.entries)
        is_there = vouched < batch.first_index or self.term_at(vouched) == held
        if term == self.hard_state.term and not is_there and vouched > self.base.index:
            raise Violation(
                f"persisted state: {node} vouched for {vouched} in term {term}, and took it back"
            )

    def vouch(self, term: int, index: int) -> None:
        """The node has told that its log is on disk up to the index, in a term."""
        self._vouched = max(self._vouched, (term, index))

    def say(self, node: NodeId, peer: NodeId, message: RaftMessage) -> None:
        """The node is about to send a message: look whether the disk knows what it says."""
        if isinstance(message, AppendRequest):  # the most frequent ones first
            self._knows(node, self.hard_state.term >= message.term, message)
        elif isinstance(message, AppendReply):
            if message.success:
                self._knows(node, self._holds(message.term, message.index), message)
                self.vouch(message.term, message.index)
        elif isinstance(message, VoteReply):
            if message.granted and not message.pre:
                self._knows(node, self._has_voted(message.term, peer), message)
        elif isinstance(message, VoteRequest):
            if not message.pre:
                self._knows(node, self._has_voted(message.term, node), message)
        elif isinstance(message, InstallReply) and message.offset is None:
            self._knows(node, self._holds(message.term, message.index), message)
            self.vouch(message.term, message.index)

    def follows(self, node: NodeId, before: "Kept") -> None:
        """The node has restarted, and this is what it found: look whether it lacks what it said."""
        old, new = before.hard_state, self.hard_state
        if new.term < old.term or (new.term == old.term and old.vote not in (None, new.vote)):
            raise Violation(f"persisted state: {node} had told {old}, and came back with {new}")
        term, vouched = before._vouched
        if term == new.term and vouched > self.base.index:
            held, found = before.term_at(vouched), self.term_at(vouched)
            if found is None or (held is not None and found != held):
                raise Violation(
                    f"persisted state: {node} vouched for {vouched} in term {term}, and came back "
                    f"with a log up to {self.newest[1]}"
                )
        self._vouched = before._vouched

    def take_part(self, node: NodeId, to_regain: int) -> None:
        """The node, which lost its data, votes and counts again; so much was committed before."""
        if self.newest[1] < to_regain:
            raise Violation(
                f"persisted state: {node} lost its data and takes part again with a log up to "
                f"{self.newest[1]}, where {to_regain} was committed before"
            )

    def _has_voted(self, term: int, candidate: NodeId) -> bool:
        state = self.hard_state
        return state.term > term or (state.term == term and state.vote == candidate)

    def _holds(self, term: int, index: int) -> bool:
        # In a newer term the log may have been cut since.
        state = self.hard_state
        if state.term != term:
            return state.term > term
        return self.base.index + len(self.entries) >= index or self.newest[1] >= index

    def _knows(self, node: NodeId, is_known: bool, message: RaftMessage) -> None:
        if not is_known:
            raise Violation(
                f"persisted state: {node} says {message}, and its disk holds {self.hard_state} and "
                f"a log up to {self.newest[1]}"
            )

    def _note(self, first: int, entries: Sequence[Entry]) -> None:
        for index, entry in enumerate(entries, first):
            if entry.is_configuration:
                self._configurations.append((index, decode_configuration(entry.command)))
