"""Wrong cores and wrong disks: each leaves out one rule. The model test must convict every one."""

from typing import Any

from tests.node.cluster import Disk

from labrys.node.bugs import SUBJECTS
from labrys.node.bugs.careless import Careless, Unguarded
from labrys.node.effects import Persist
from labrys.node.messages import HardState, NodeId


class LeaseFromReply(Careless):
    """The lease counts from when a round was sent, not from when it was answered."""

    def _confirm_rounds(self) -> None:
        super()._confirm_rounds()
        if self._progress:
            newest = sorted(peer.heard_ms for peer in self._progress.values())
            self._lease_until_ms = newest[len(newest) // 2] + 3 * self.config.election_timeout_ms


class ForgetfulDisk(Disk):
    """Keeps the entries but neither term nor vote."""

    def write(self, node: NodeId, batch: Persist) -> None:
        super().write(node, batch)
        self.hard_state = HardState()


class TailLosingDisk(Disk):
    """Loses the newest entries at a crash."""

    def crash(self) -> None:
        del self.entries[-2:]


OTHER_PARTS = {"lease-wall-clock", "snapshot-fuzzy", "snapshot-torn", "forget-vote"}
"""Their faults are not in the core alone."""

MUTANTS: dict[str, dict[str, Any]] = {
    "forget-vote": {"core": Unguarded, "disk": ForgetfulDisk},
    "lose-tail": {"core": Careless, "disk": TailLosingDisk},
    "sends-before-persist": {"core": Careless, "sends_before_persist": True},
    "LeaseFromReply": {"core": LeaseFromReply},
    **{
        name: {"core": bug.parts.raft}
        for subject in (
            "elections", "log", "commit", "reads", "leases", "snapshots", "membership"
        )
        for name, bug in SUBJECTS[subject].items()
        if name not in OTHER_PARTS
    },
}  # fmt: skip
