"""Faults in how leaders come to lead, and stop."""

from collections.abc import Sequence

import msgspec

from labrys.node.bugs.careless import Careless, Unguarded
from labrys.node.bugs.variant import variant
from labrys.node.effects import Effects, Persist
from labrys.node.messages import AppendRequest, HardState, NodeId, VoteReply
from labrys.node.raft import Role
from labrys.node.storage import Received, Storage


class ForgetVote(Storage):
    """Does not write term and vote down, only that the node is no observer any more.

    After a restart the node votes again in a term in which it has voted, or follows a leader of
    old. Without pre-vote and leader stickiness, which make up for much of it.

    Seen in: PySyncObj, whose journal holds neither term nor vote.
    Seen by: raft (persisted state, terms that fall, election safety)
    """

    def write(self, batches: Sequence[Persist]) -> list[Received]:
        return super().write([_without_vote(batch) for batch in batches])


def _without_vote(batch: Persist) -> Persist:
    state = batch.hard_state
    kept = HardState(is_observer=state.is_observer) if state is not None else None
    return msgspec.structs.replace(batch, hard_state=kept)


class VoteTwice(Careless):
    """Votes for whoever asks, also for a second candidate of the same term.

    Seen in: suspected behind two leaders of one term in Jepsen's runs of dqlite (canonical/raft
    #386).
    Seen by: raft (election safety, persisted state)
    """

    def _may_vote_for(self, candidate: NodeId) -> bool:
        return True


class VoteBeforeDisk(Careless):
    """Grants a vote before it is on disk: who is killed in between may vote once more.

    Seen in: a class of bugs; that of PySyncObj, whose votes never reach the disk, with a flush that
    comes late.
    Seen by: raft (persisted state)
    """

    def effects(self) -> Effects:
        return sent_early(super().effects(), VoteReply)


def sent_early(effects: Effects, kind: type) -> Effects:
    """The effects with the messages of one kind among those that wait for no disk."""
    early = tuple(each for each in effects.messages if isinstance(each[1], kind))
    rest = tuple(each for each in effects.messages if not isinstance(each[1], kind))
    return msgspec.structs.replace(effects, eager=effects.eager + early, messages=rest)


class AnyLogWins(Careless):
    """Votes for a candidate without a look at its log.

    Seen in: a class of bugs, against section 5.4.1 of the Raft paper.
    Seen by: raft (leader completeness)
    """

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


class LeadAfterStepDown(Unguarded):
    """Becomes leader when the votes are enough, although it is no candidate any more.

    The votes of one term then make it leader of a newer one, for which nobody voted. There is no
    pre-vote.

    Seen in: goraft, whose becomeLeader does not look again whether it is still a candidate.
    Seen by: raft (election safety, persisted state)
    """

    def _become_follower(self, term: int, leader: NodeId | None) -> None:
        votes = set(self._votes) if self.role is Role.CANDIDATE else set()
        super()._become_follower(term, leader)
        self._votes |= votes

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        if self.role is Role.FOLLOWER and self._votes and reply.granted and not reply.pre:
            self._votes.add(sender)
            if self.configuration.has_quorum(self._votes):
                self.role = Role.CANDIDATE
                self._become_leader()
        else:
            super()._on_vote_reply(sender, reply)


class SpeakAfterStepDown(Careless):
    """Sends one more round as if it led, in the newer term that has just deposed it.

    Followers believe it, and put its entries in the place of those of the true leader.

    Seen in: goraft, whose heartbeat does not look at the role again.
    Seen by: raft (election safety)
    """

    def _become_follower(self, term: int, leader: NodeId | None) -> None:
        was_leader = self.role is Role.LEADER
        followers = list(self._progress.items()) if was_leader else []
        super()._become_follower(term, leader)
        for peer, follower in followers:
            previous = max(follower.match_index, self.log.base_index)
            held = self.log.term_at(previous)
            if held is not None:
                entries = self.log.since(previous + 1, self.config.batch_count_max)
                request = AppendRequest(term, previous, held, entries, self.commit, self._round)
                self._eager.append((peer, request))


BUGS = {
    "forget-vote": variant(
        "term and vote are lost on restart, and no pre-vote makes up for it", ForgetVote, Unguarded
    ),
    "vote-twice": variant("two candidates of one term get the same vote", VoteTwice),
    "vote-before-disk": variant("a vote is given before it is on disk", VoteBeforeDisk),
    "any-log-wins": variant("votes go to whoever asks, whatever its log", AnyLogWins),
    "lead-after-step-down": variant(
        "who is no candidate any more becomes leader all the same", LeadAfterStepDown
    ),
    "speak-after-step-down": variant(
        "a deposed leader sends once more, in the new term", SpeakAfterStepDown
    ),
}
