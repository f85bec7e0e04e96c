"""What a node with a new data directory must find out before it may vote.

The problem. A member whose data was lost comes back under its old name. It has forgotten votes it
gave and entries it acknowledged; taking part at once, it could elect a second leader in a term or
help to elect one that lacks committed entries. On an empty disk the first start of a cluster looks
exactly the same.

The idea (after the recovery protocol of Viewstamped Replication Revisited, section 4.3). The node
begins as an observer: it grants no vote, acknowledges nothing and campaigns for nothing. It asks
all other voters what they know. If it and others who are just as blank make up a quorum, no entry
can have been committed: the cluster is new and all begin. Otherwise it waits for an answer from
every other voter. No vote of its earlier life was given in a term above the greatest it hears of,
for the candidate itself is among those who answer; and no entry it acknowledged is missing from
every log it hears of. So it gives no vote in that greatest term or before, and none at all until
its own log is as good as the best that was named.

The leader that is asked forgets what the node acknowledged (`Raft._on_recall_request`). Losing the
data of a majority at once is beyond what any quorum system repairs.
"""

from collections.abc import Collection

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.messages import NodeId, RecallReply


class Floor(msgspec.Struct, frozen=True):
    """No vote up to `term`, and none before the log's (last term, last index) reaches `log`."""

    term: int
    log: tuple[int, int]


class Recall:
    """The answers to one node's question; `nonce` tells them from those to an earlier life's."""

    def __init__(self, nonce: int) -> None:
        self.nonce = nonce
        self.floor: Floor | None = None
        """Set as soon as everybody has answered."""
        self._replies: dict[NodeId, RecallReply] = {}

    def hear(self, sender: NodeId, reply: RecallReply) -> None:
        """Take in an answer; one from a blank node may be followed by a better one."""
        if reply.nonce == self.nonce:
            self._replies[sender] = reply

    def missing(self, others: Collection[NodeId]) -> list[NodeId]:
        """Who is to be asked (again): who has not answered, or was blank when it did."""
        replies = self._replies
        return [node for node in others if node not in replies or replies[node].is_observer]

    def is_new_cluster(self, me: NodeId, configuration: Configuration) -> bool:
        """Whether a quorum knows nothing, this node among them."""
        blank = {node for node, reply in self._replies.items() if reply.is_observer}
        return configuration.has_quorum(blank | {me})

    def conclude(self, others: Collection[NodeId]) -> Floor | None:
        """What to respect from now on, None while an answer is missing."""
        if self.floor is None and all(node in self._replies for node in others):
            replies = self._replies.values()
            self.floor = Floor(
                term=max((reply.term for reply in replies), default=0),
                log=max(((r.last_term, r.last_index) for r in replies), default=(0, 0)),
            )
        return self.floor
