"""Wrong cores, made by hand: each leaves out one rule. The model test must convict every one."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from tests.node.cluster import Disk

from labrys.node.bugs import Careless, CommitOldTerm, EarlyAck, StaleRead, Unguarded
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, Restored, SnapshotMeta
from labrys.node.messages import AppendReply, AppendRequest, Entry, HardState, NodeId, VoteReply
from labrys.node.raft import Config
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

    def _append(self, entries: Sequence[Entry]) -> None:
        super()._append(entries)
        self._durable_index = self.log.last_index
        self._advance_commit()


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

    def _take_reads(self) -> tuple[int, ...]:
        ready = tuple(read_id for _, read_id in self._answerable)
        self._answerable.clear()
        return ready


class LeaseFromReply(Careless):
    """The lease counts from when a round was sent, not from when it was answered."""

    def _confirm_rounds(self) -> None:
        super()._confirm_rounds()
        if self._progress:
            newest = sorted(peer.heard_ms for peer in self._progress.values())
            self._lease_until_ms = newest[len(newest) // 2] + 3 * self.config.election_timeout_ms


class ForgetsItsLoss(Careless):
    """A node whose data is gone must not vote before it knows what it forgot."""

    def __init__(self, config: Config, restored: Restored, *rest: Any) -> None:
        state = msgspec.structs.replace(restored.hard_state, is_observer=False)
        super().__init__(config, msgspec.structs.replace(restored, hard_state=state), *rest)


class ChangesAtOnce(Careless):
    """Dissertation 4.3: old and new members decide together for a while."""

    def _enter(self, configuration: Configuration) -> None:
        if configuration.target:
            configuration = msgspec.structs.replace(
                configuration, voters=configuration.target, target=(), learners=()
            )
        super()._enter(configuration)


class _CountsEverybody(Configuration, frozen=True):
    def has_quorum(self, supporters: Collection[NodeId]) -> bool:
        return 2 * sum(n in supporters for n in self.members) > len(self.members)

    def agreed(self, values: Mapping[NodeId, int]) -> int:
        reached = sorted((values.get(node, 0) for node in self.members), reverse=True)
        return reached[len(reached) // 2]


class CountsLearners(Careless):
    """Dissertation 4.2.1 and 4.3: neither learners nor a mixture of both halves make a quorum."""

    @property
    def configuration(self) -> Configuration:
        return _CountsEverybody(**msgspec.structs.asdict(super().configuration))


class IgnoresOldVotersInVotes(Careless):
    """Dissertation 4.3: an election needs a majority of the old voters too."""

    @property
    def configuration(self) -> Configuration:
        return msgspec.structs.replace(super().configuration, outgoing=())


class LosesConfigurationInSnapshot(Careless):
    """A snapshot says who the members are."""

    def meta_at_applied(self) -> SnapshotMeta:
        meta = super().meta_at_applied()
        return msgspec.structs.replace(meta, configuration=self._configurations[0][1])


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
            ReadsBeforeApply, LeaseFromReply, ForgetsItsLoss, ChangesAtOnce, CountsLearners,
            IgnoresOldVotersInVotes, LosesConfigurationInSnapshot,
        )
    },
}  # fmt: skip
