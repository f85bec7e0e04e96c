"""Wrong cores, made by hand: each leaves out one rule. The model test must convict every one."""

from collections.abc import Sequence
from typing import Any

from tests.node.cluster import Disk

from labrys.node.bugs import Careless, CommitOldTerm, EarlyAck, StaleRead, Unguarded
from labrys.node.messages import AppendReply, AppendRequest, Entry, HardState, NodeId, VoteReply
from labrys.node.raft import Persist
from labrys.node.reads import ReadQueue


class VotesTwice(Careless):
    """Section 5.2: one vote per term."""

    def _may_vote_for(self, candidate: NodeId) -> bool:
        return True


class VotesForAnyLog(Careless):
    """Section 5.4.1: only for a log at least as new."""

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


class LongerLogWins(Careless):
    """Section 5.4.1: the term counts before the length."""

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return last_index >= self.log.last_index


class CountsLateVotes(Careless):
    """A vote belongs to one term."""

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        if reply.granted and not reply.pre:
            reply = VoteReply(self.term, granted=True, pre=False)
        super()._on_vote_reply(sender, reply)


class CommitsBeyondVouched(Careless):
    """Section 5.3: min(leaderCommit, index of last *new* entry)."""

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        super()._on_append_request(sender, request)
        if self.leader == sender and request.term == self.term:
            self._commit_to(min(request.commit, self.log.last_index))


class CutsOnEveryAppend(Careless):
    """Section 5.3: the log is cut only at a conflict."""

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        if entries and self.log.last_index > prev_index:
            self.log.truncate_from(prev_index + 1)
        super()._take_over(prev_index, entries)


class NeverCuts(Careless):
    """Section 5.3: a conflicting suffix goes."""

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        beyond = max(0, self.log.last_index - prev_index)
        super()._take_over(prev_index + beyond, entries[beyond:])


class IgnoresPreviousTerm(Careless):
    """Section 5.3: the entry before must match in its term."""

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        held = self.log.term_at(request.prev_index)
        super()._on_append_request(
            sender,
            AppendRequest(
                request.term,
                request.prev_index,
                request.prev_term if held is None else held,
                request.entries,
                request.commit,
                request.round,
            ),
        )


class CountsLateSuccess(Careless):
    """An append's success belongs to the term it was given in."""

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        fresh = AppendReply(self.term, 1, reply.success, reply.index, reply.hint_index)
        super()._on_append_reply(sender, fresh)


class CountsAnyTermsDisk(Careless):
    """`persisted` speaks for the term in which the batch was made, and no other."""

    def persisted(self, term: int, last_index: int) -> None:
        super().persisted(self.term, last_index)


class CountsOwnCopyAtOnce(Careless):
    """The leader's own copy counts once it is on disk."""

    def _append(self, command: bytes) -> int:
        index = super()._append(command)
        self._durable_index = index
        self._advance_commit()
        return index


class _HastyQueue(ReadQueue):
    def admit(self, next_round: int, commit: int) -> bool:
        return super().admit(next_round - 1, commit)


class CountsOlderRounds(Careless):
    """Dissertation 6.4: only a round begun after the read confirms it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads = _HastyQueue()


class ReadsBeforeOwnCommit(Careless):
    """Dissertation 6.4: reads wait for the first commit of the term."""

    def _open_term(self) -> None:
        super()._open_term()
        self._term_start = 0


class ReadsBeforeApply(Careless):
    """Dissertation 6.4: reads wait until what was committed is applied."""

    class _Queue(ReadQueue):
        def take(self, applied: int) -> tuple[int, ...]:
            return super().take(1 << 62)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads = self._Queue()


class ForgetfulDisk(Disk):
    """Keeps the entries but neither term nor vote."""

    def write(self, batch: Persist) -> None:
        super().write(batch)
        self.hard_state = HardState()


class TailLosingDisk(Disk):
    """Loses the newest entries at a crash."""

    def crash(self) -> None:
        del self.entries[-2:]


MUTANTS: dict[str, dict[str, Any]] = {
    "stale-read": {"core": StaleRead},
    "early-ack": {"core": EarlyAck},
    "commit-old-term": {"core": CommitOldTerm},
    "forget-vote": {"core": Unguarded, "disk": ForgetfulDisk},
    "lose-tail": {"core": Careless, "disk": TailLosingDisk},
    "sends-before-persist": {"core": Careless, "sends_before_persist": True},
    **{
        core.__name__: {"core": core}
        for core in (
            VotesTwice, VotesForAnyLog, LongerLogWins, CountsLateVotes, CommitsBeyondVouched,
            CutsOnEveryAppend, NeverCuts, IgnoresPreviousTerm, CountsLateSuccess,
            CountsAnyTermsDisk, CountsOwnCopyAtOnce, CountsOlderRounds, ReadsBeforeOwnCommit,
            ReadsBeforeApply,
        )
    },
}  # fmt: skip
