"""Who belongs to the cluster, and what a quorum of it is (dissertation chapter 4).

A configuration is a value. It travels as a log entry and takes effect on a node as soon as the
entry is in that node's log, committed or not (dissertation 4.1). A change goes through at most
three of them, each committed before the next is made:

1. `learners` gained: the newcomers receive the log and count for nothing (4.2.1), while `target`
   says who shall vote once they have caught up, so that any leader can go on with the change;
2. joint: `outgoing` holds the old voters and `voters` the new ones, and every decision needs a
   majority of each (4.3), so no two disjoint majorities can exist at any moment;
3. final: the new voters alone.
"""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from labrys.node.messages import NodeId


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The members by part; `addresses` says for each where it listens for peers, HOST:PORT."""

    voters: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...] = ()
    """The old voters while the change is joint, else empty."""
    learners: tuple[NodeId, ...] = ()
    target: tuple[NodeId, ...] = ()
    """Who shall vote when the learners among them have caught up; empty when nothing is planned."""
    addresses: Mapping[NodeId, str] = {}

    @property
    def is_joint(self) -> bool:
        """Whether decisions need a majority of the old voters as well."""
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody who receives the log, sorted, each once."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, node: NodeId) -> bool:
        """Whether the node's vote and copy count in some majority."""
        return node in self.voters or node in self.outgoing

    def has_quorum(self, supporters: Collection[NodeId]) -> bool:
        """Whether the supporters hold every majority that a decision needs."""
        return all(
            2 * sum(voter in supporters for voter in half) > len(half) for half in self._halves()
        )

    def agreed(self, values: Mapping[NodeId, int]) -> int:
        """The greatest number that every needed majority has reached; a missing voter has 0."""
        return min(_majority_value([values.get(v, 0) for v in half]) for half in self._halves())

    def _halves(self) -> Iterator[tuple[NodeId, ...]]:
        yield self.voters
        if self.outgoing:
            yield self.outgoing


def _majority_value(values: list[int]) -> int:
    values.sort(reverse=True)
    return values[len(values) // 2]


_decoder = msgspec.json.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """The configuration as JSON, as it stands in the log."""
    return msgspec.json.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """The configuration in `data`; raises msgspec.MsgspecError if there is none."""
    return _decoder.decode(data)
