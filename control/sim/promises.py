"""What Raft promises (figure 3 of the paper), looked after by somebody who sees all nodes at once.

- election safety: one leader per term, and nobody else speaks as leader;
- log matching: an entry's index and term determine its command and its predecessor's term, hence,
  by induction, the whole log before it;
- leader completeness: a new leader holds every entry committed in earlier terms; and from the
  moment an entry counts as committed, nobody without it could be elected by the logs on the disks;
- state machine safety: no two nodes apply different entries at one index;
- monotone commit: a node applies one index after the other;
- durability: at the moment an entry first counts as committed, a majority of *disks* hold it;
- configuration safety: see `configurations`.

Others have modules of their own: a disk never contradicts what its node has said (`kept`), states
are those that the log leads to (`replica`), an answer to a read is never older than what was
committed when it was asked, and nobody is elected while another leader trusts its lease (`watch`).
The simulation and the model tests of the node tell what happens, and whoever looks after it raises
at the very step that breaks a promise.
"""

from collections.abc import Iterable, Mapping, Sequence

from labrys.control.sim.configurations import Configurations
from labrys.control.sim.kept import Kept
from labrys.control.sim.violation import Violation
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist
from labrys.node.messages import AppendRequest, Entry, InstallRequest, NodeId, RaftMessage
from labrys.node.raft import Raft, Role


class Promises:
    """All that the nodes of one cluster have said and done so far."""

    def __init__(self) -> None:
        self.leaders: dict[int, NodeId] = {}
        """By term."""
        self.newest_term = 0
        """The greatest that anybody has led."""
        self.committed: list[tuple[Entry, int]] = []
        """Entry and the term in which its commitment was first seen, by index - 1."""
        self._born: dict[tuple[int, int], tuple[int, bytes]] = {}
        """By index and term: the term of the entry before, and the command."""
        self._configurations = Configurations()

    def see(self, raft: Raft) -> None:
        """Look at a node, which may have come to lead or to other members."""
        is_leader = raft.role is Role.LEADER
        if is_leader and self.leaders.get(raft.term) != raft.id:
            self._see_leader(raft)
        self._configurations.see(raft, len(self.committed))

    def _see_leader(self, raft: Raft) -> None:
        known = self.leaders.get(raft.term)
        if known is not None:
            raise Violation(f"election safety: {known} and {raft.id} both lead term {raft.term}")
        self.leaders[raft.term] = raft.id
        self.newest_term = max(self.newest_term, raft.term)
        for index, (entry, term) in enumerate(self.committed, 1):
            if index <= raft.log.base_index:
                continue
            held = raft.log.since(index, 1)
            if term < raft.term and held != (entry,):
                raise Violation(
                    f"leader completeness: {raft.id} leads term {raft.term} with {held} at "
                    f"{index}, where term {term} committed {entry}"
                )

    def say(self, node: NodeId, disk: Kept, peer: NodeId, message: RaftMessage) -> None:
        """A node is about to send a message: look whether it may."""
        if isinstance(message, AppendRequest | InstallRequest):
            leader = self.leaders.get(message.term)
            if leader != node:
                raise Violation(
                    f"election safety: {node} speaks as leader of term {message.term}, which is "
                    f"{leader or 'nobody'}"
                )
        disk.say(node, peer, message)

    def store(self, node: NodeId, disk: Kept, batch: Persist) -> None:
        """A batch is on a node's disk: note it down there, and look whether it fits the others."""
        disk.write(node, batch)
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

    def find(self, node: NodeId, disk: Kept) -> None:
        """A node has started with this on its disk: look whether it fits what is known."""
        for index, entry in enumerate(disk.entries, disk.base.index + 1):
            fact = self._born.get((index, entry.term))
            if fact is not None and fact[1] != entry.command:
                raise Violation(f"log matching: {node} came back with another {index}")

    def apply(self, raft: Raft, applied: int, first: int, entries: Sequence[Entry]) -> list[int]:
        """A node applies entries, and had applied so much; which of them nobody had before."""
        new = []
        for index, entry in enumerate(entries, first):
            if index != applied + 1:
                raise Violation(f"monotone commit: {raft.id} applied {index} after {applied}")
            applied = index
            if index > len(self.committed):
                self.committed.append((entry, raft.term))
                if entry.is_configuration:
                    self._configurations.commit(index, entry)
                new.append(index)
            elif self.committed[index - 1][0] != entry:
                raise Violation(
                    f"state machine safety: {raft.id} applied {entry} at {index}, "
                    f"elsewhere it was {self.committed[index - 1][0]}"
                )
        return new

    def is_there_to_stay(
        self,
        raft: Raft,
        new: Sequence[int],
        disks: Mapping[NodeId, Kept],
        known: Iterable[Configuration],
    ) -> None:
        """Look whether enough disks hold what a node was the first to apply.

        `known` are the configurations of all nodes, for one that is no leader.
        """
        if not new:
            return
        # With a commitment a change of members may have gone on, in the same step.
        configurations = (
            [configuration for _, configuration in raft.configurations[-2:]]
            if raft.role is Role.LEADER
            else list(known)
        )
        for index in new:
            holders = self._holders(index, disks)
            if not any(configuration.has_quorum(holders) for configuration in configurations):
                raise Violation(
                    f"durability: {index} is committed and on disk at {sorted(holders)} only"
                )
        self._cannot_be_lost(new[-1], holders, disks)

    def _holders(self, index: int, disks: Mapping[NodeId, Kept]) -> set[NodeId]:
        entry = self.committed[index - 1][0]
        return {
            node
            for node, disk in disks.items()
            if disk.at(index) == entry
            or disk.snapshot.index >= index
            or disk.hard_state.is_observer  # Had it, maybe; takes no part without it.
        }

    def _cannot_be_lost(
        self, index: int, holders: set[NodeId], disks: Mapping[NodeId, Kept]
    ) -> None:
        for node, disk in disks.items():
            if node in holders:
                continue
            voters = {name for name, each in disks.items() if each.newest <= disk.newest}
            if disk.configuration.has_quorum(voters - self._observers(disks)):
                raise Violation(
                    f"leader completeness: {index} is committed, and {node}, which lacks it, can "
                    f"be elected by {sorted(voters)}"
                )

    def _observers(self, disks: Mapping[NodeId, Kept]) -> set[NodeId]:
        return {node for node, disk in disks.items() if disk.hard_state.is_observer}
