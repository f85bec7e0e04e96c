"""The corruption check: do all nodes that applied the same entries have the same state?

Every `AUDIT_EVERY` entries each node tells the leader the hash of its state. The leader compares;
who has another state than a majority of the voters is told so, and stops: a replica that computed
something else, by a bug or by bad memory, must not go on answering. Where no majority agrees
nothing is concluded.
"""

from collections.abc import Mapping

from labrys.node.configuration import Configuration
from labrys.node.errors import MachineError
from labrys.node.messages import Diverged, NodeId, StateReport

AUDIT_EVERY = 1000
"""Indexes between two comparisons."""
REMEMBERED = 16
"""Comparisons that are kept, for those who are late."""


class DivergedState(MachineError):
    """This node's state is not that of the others."""


class Audit:
    """One node's part of it; as leader it compares, as anybody it remembers its own hashes."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._own: dict[int, int] = {}
        self._reports: dict[int, dict[NodeId, int]] = {}

    def note(self, index: int, state_hash: int) -> StateReport:
        """Remember this node's own hash; what to tell the leader."""
        self._own[index] = state_hash
        while len(self._own) > REMEMBERED:
            del self._own[min(self._own)]
        return StateReport(index, state_hash)

    def hear(
        self, sender: NodeId, report: StateReport, configuration: Configuration
    ) -> list[tuple[NodeId, Diverged]]:
        """As leader, take in a report: who must be told, itself perhaps, that it differs."""
        if report.index % AUDIT_EVERY or report.index <= 0:
            return []
        reports = self._reports.setdefault(report.index, {})
        reports[sender] = report.state_hash
        while len(self._reports) > REMEMBERED:
            del self._reports[min(self._reports)]
        right = _agreed(reports, configuration)
        if right is None:
            return []
        verdict = Diverged(report.index, right)
        return [(node, verdict) for node, found in reports.items() if found != right]

    def check(self, told: Diverged) -> None:
        """Raises DivergedState if this node has indeed another state than it was told."""
        own = self._own.get(told.index)
        if own is not None and own != told.state_hash:
            raise DivergedState(
                f"at index {told.index} the state of this node has the hash {own:016x}, that of a "
                f"majority {told.state_hash:016x}: something here computed or kept it wrongly, so "
                "this node stops. Check its memory and disk, then start it with an empty --data"
            )


def _agreed(reports: Mapping[NodeId, int], configuration: Configuration) -> int | None:
    for state_hash in {*reports.values()}:
        holders = {node for node, found in reports.items() if found == state_hash}
        if configuration.has_quorum(holders):
            return state_hash
    return None
