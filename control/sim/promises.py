"""What Raft promises (figure 3 of the paper), looked after by somebody who sees all nodes at once.

- election safety: one leader per term;
- log matching: an entry's index and term determine its command and its predecessor's term, hence,
  by induction, the whole log before it;
- leader completeness: a new leader holds every entry committed in earlier terms;
- state machine safety: no two nodes apply different entries at one index;
- monotone commit: a node applies one index after the other;
- durability: at the moment an entry first counts as committed, a majority of *disks* hold it.

The simulation and the model tests of the node tell it what happens, and it raises at the very step
that breaks a promise.
"""

from collections.abc import Iterable, Sequence

from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, SnapshotMeta
from labrys.node.messages import Entry, HardState, NodeId
from labrys.node.raft import Raft, Role


class Violation(AssertionError):
    """A promise of Raft was broken."""


class Kept:
    """What a node has told of as being on its disk."""

    def __init__(self, base: SnapshotMeta, hard_state: HardState) -> None:
        self.hard_state = hard_state
        self.base = base
        """Where the log begins."""
        self.snapshot = base
        self.entries: list[Entry] = []

    def write(self, batch: Persist) -> None:
        """Store one batch, but for its pieces of a snapshot."""
        if batch.hard_state is not None:
            self.hard_state = batch.hard_state
        if batch.base is not None:
            self.base = batch.base
            self.entries.clear()
        if batch.entries:
            del self.entries[batch.first_index - self.base.index - 1 :]
            self.entries.extend(batch.entries)

    def at(self, index: int) -> Entry | None:
        """The entry that is stored at the index."""
        place = index - self.base.index - 1
        return self.entries[place] if 0 <= place < len(self.entries) else None


class Promises:
    """All that the nodes of one cluster have said and done so far."""

    def __init__(self) -> None:
        self.leaders: dict[int, NodeId] = {}
        """By term."""
        self.committed: list[tuple[Entry, int]] = []
        """Entry and the term in which its commitment was first seen, by index - 1."""
        self._born: dict[tuple[int, int], tuple[int, bytes]] = {}
        """By index and term: the term of the entry before, and the command."""

    def see(self, raft: Raft) -> None:
        """Look at a node that may have come to lead."""
        if raft.role is not Role.LEADER:
            return
        known = self.leaders.get(raft.term)
        if known == raft.id:
            return
        if known is not None:
            raise Violation(f"election safety: {known} and {raft.id} both lead term {raft.term}")
        self.leaders[raft.term] = raft.id
        for index, (entry, term) in enumerate(self.committed, 1):
            if index <= raft.log.base_index:
                continue
            held = raft.log.since(index, 1)
            if term < raft.term and held != (entry,):
                raise Violation(
                    f"leader completeness: {raft.id} leads term {raft.term} with {held} at "
                    f"{index}, where term {term} committed {entry}"
                )

    def store(self, node: NodeId, disk: Kept, batch: Persist) -> None:
        """A batch is on a node's disk: note it down there, and look whether it fits the others."""
        disk.write(batch)
        # What never reached a disk may be forgotten, and its index and term be used once more.
        before = disk.at(batch.first_index - 1)
        if before is not None:
            previous = before.term
        else:
            previous = disk.base.term if batch.first_index == disk.base.index + 1 else -1
        for index, entry in enumerate(batch.entries, batch.first_index):
            fact = (previous, entry.command)
            if previous < 0:
                previous = entry.term  # What stood before it was never told.
                continue
            if self._born.setdefault((index, entry.term), fact) != fact:
                raise Violation(f"log matching: {node} has another {index} of {entry.term}")
            previous = entry.term

    def apply(self, raft: Raft, applied: int, first: int, entries: Sequence[Entry]) -> list[int]:
        """A node applies entries, and had applied so much; which of them nobody had before."""
        new = []
        for index, entry in enumerate(entries, first):
            if index != applied + 1:
                raise Violation(f"{raft.id} applied {index} after {applied}")
            applied = index
            if index > len(self.committed):
                self.committed.append((entry, raft.term))
                new.append(index)
            elif self.committed[index - 1][0] != entry:
                raise Violation(
                    f"state machine safety: {raft.id} applied {entry} at {index}, "
                    f"elsewhere it was {self.committed[index - 1][0]}"
                )
        return new

    def is_held(
        self,
        index: int,
        disks: Iterable[tuple[NodeId, Kept]],
        configurations: Iterable[Configuration],
    ) -> None:
        """Look whether a quorum of disks holds what was just committed at `index`."""
        entry = self.committed[index - 1][0]
        holders = {
            node
            for node, disk in disks
            if disk.at(index) == entry
            or disk.snapshot.index >= index
            or disk.hard_state.is_observer  # Had it, maybe; takes no part without it.
        }
        if not any(configuration.has_quorum(holders) for configuration in configurations):
            raise Violation(
                f"durability: {index} is committed and on disk at {sorted(holders)} only"
            )
