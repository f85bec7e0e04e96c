"""Configuration safety: members change by steps that keep any two majorities in touch.

- each configuration in a leader's log and the one before it have no disjoint quorums;
- a leader makes a new one only when the one before is committed (Raft dissertation 4.1);
- what a node takes for the configuration of a committed index is what was committed there, whether
  it read the log or began with a snapshot.
"""

from itertools import combinations, pairwise

from labrys.control.sim.violation import Violation
from labrys.node.configuration import Configuration, decode_configuration
from labrys.node.messages import Entry, NodeId
from labrys.node.raft import Raft, Role


class Configurations:
    """Those that were committed, and what the nodes have shown."""

    def __init__(self) -> None:
        self._committed: list[tuple[int, Configuration]] = []
        self._seen: dict[NodeId, tuple[bool, object, object]] = {}
        """Whether a node led when it was looked at last, its oldest and its newest."""

    def commit(self, index: int, entry: Entry) -> None:
        """A configuration is committed."""
        self._committed.append((index, decode_configuration(entry.command)))

    def see(self, raft: Raft, committed: int) -> None:
        """Look at a node's; `committed` is the newest index that anybody has applied."""
        configurations = raft.configurations
        is_leader = raft.role is Role.LEADER
        seen = self._seen.get(raft.id)
        oldest, newest = configurations[0], configurations[-1]
        if seen is not None and seen[0] is is_leader and seen[1] is oldest and seen[2] is newest:
            return
        self._seen[raft.id] = is_leader, oldest, newest
        self._fit(raft)
        if not is_leader:
            return
        open_count = sum(index > max(committed, raft.commit) for index, _ in configurations)
        if open_count > 1:
            raise Violation(
                f"configuration safety: {raft.id} leads term {raft.term} with {open_count} "
                f"changes of members that are not committed: {told(raft)}"
            )
        for (_, before), (index, after) in pairwise(configurations):
            if are_disjoint(before, after):
                raise Violation(
                    f"configuration safety: {raft.id} leads term {raft.term}, where {index} makes "
                    f"members of whom a majority need nobody of one before: {told(raft)}"
                )

    def _fit(self, raft: Raft) -> None:
        base, first = raft.configurations[0]
        right = next((c for index, c in reversed(self._committed) if index <= base), None)
        if right is not None and first != right:
            raise Violation(
                f"configuration safety: {raft.id} has {first} at {base}, where it is {right}"
            )


def told(raft: Raft) -> str:
    """A node's configurations in words."""
    return "; ".join(
        f"{index}: {','.join(c.voters)}{' and ' + ','.join(c.outgoing) if c.is_joint else ''}"
        for index, c in raft.configurations
    )


def are_disjoint(one: Configuration, other: Configuration) -> bool:
    """Whether some quorum of the one has nobody in common with some quorum of the other."""
    members = {*one.members, *other.members}
    return any(
        one.has_quorum(chosen) and other.has_quorum(members - {*chosen})
        for count in range(len(members) + 1)
        for chosen in combinations(sorted(members), count)
    )
