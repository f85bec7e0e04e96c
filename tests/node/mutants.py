"""Wrong cores and wrong disks: each leaves out one rule. The model test must convict every one."""

from typing import Any

import msgspec
from tests.node.cluster import Disk

from labrys.node.bugs import SUBJECTS
from labrys.node.bugs.careless import Careless, Unguarded
from labrys.node.effects import Persist
from labrys.node.messages import AppendReply, HardState, NodeId, VoteReply
from labrys.node.reads import ReadQueue


class LeaseFromReply(Careless):
    """The lease counts from when a round was sent, not from when it was answered."""

    def _confirm_rounds(self) -> None:
        super()._confirm_rounds()
        if self._progress:
            newest = sorted(peer.heard_ms for peer in self._progress.values())
            self._lease_until_ms = newest[len(newest) // 2] + 3 * self.config.election_timeout_ms


class LongerLogWins(Careless):
    """Section 5.4.1: the term counts before the length."""

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return last_index >= self.log.last_index


class CountsLateVotes(Unguarded):
    """A vote belongs to one term."""

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        if reply.granted and not reply.pre:
            reply = VoteReply(self.term, granted=True, pre=False)
        super()._on_vote_reply(sender, reply)


class CountsLateSuccess(Careless):
    """An append's success belongs to the term it was given in."""

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        if reply.success:
            reply = msgspec.structs.replace(reply, term=self.term)
        super()._on_append_reply(sender, reply)


class CountsAnyTermsDisk(Careless):
    """`persisted` speaks for the term in which the batch was made, and no other."""

    def persisted(self, term: int, last_index: int) -> None:
        super().persisted(self.term, last_index)


class _HastyQueue(ReadQueue):
    def admit(self, next_round: int, commit: int) -> bool:
        return super().admit(next_round - 1, commit)


class CountsOlderRounds(Careless):
    """Dissertation 6.4: only a round begun after the read confirms it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads = _HastyQueue()


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
    **{
        core.__name__: {"core": core}
        for core in (
            LongerLogWins, CountsLateVotes, CountsLateSuccess, CountsAnyTermsDisk,
            CountsOlderRounds, LeaseFromReply,
        )
    },
    **{
        name: {"core": bug.parts.raft}
        for subject in (
            "elections", "log", "commit", "reads", "leases", "snapshots", "membership"
        )
        for name, bug in SUBJECTS[subject].items()
        if name not in OTHER_PARTS
    },
}  # fmt: skip
