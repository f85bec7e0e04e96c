"""One test per claim of the Raft paper ("section") and of Ongaro's dissertation.

The scripts at the end drive whole clusters through the situations that chance hardly ever meets;
the wrong core that fits each must be convicted by the same script.
"""

import random
from collections.abc import Callable

import pytest
from tests.node.cluster import Cluster
from tests.node.cores import restored
from tests.node.mutants import (
    CountsAnyTermsDisk,
    CountsLateSuccess,
    CountsLateVotes,
    CountsOlderRounds,
    LongerLogWins,
)

from labrys.control.sim.violation import Violation
from labrys.node.bugs.commits import CommitOldTerm
from labrys.node.bugs.membership import RejoinAsVoter
from labrys.node.bugs.replication import CommitBeyondVouched
from labrys.node.configuration import decode_configuration
from labrys.node.effects import Effects
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    RaftMessage,
    VoteReply,
    VoteRequest,
)
from labrys.node.raft import NO_OP, Config, Raft, Role

THREE = ("n1", "n2", "n3")


def node(
    terms: tuple[int, ...] = (),
    *,
    term: int | None = None,
    vote: str | None = None,
    voters: tuple[str, ...] = THREE,
) -> Raft:
    """Node n1 with one entry per given term; its own term defaults to that of the last entry."""
    entries = [Entry(each, b"%d" % index) for index, each in enumerate(terms, 1)]
    hard_state = HardState(term if term is not None else max(terms, default=0), vote)
    raft = Raft(Config("n1"), restored(voters, hard_state, entries), random.Random(0), 0)
    raft._leader_heard_ms = None  # As if it had been up for long.
    return raft


def sent(effects: Effects, kind: type[RaftMessage]) -> list[RaftMessage]:
    """All messages of a kind in the effects."""
    return [m for _, m in (*effects.eager, *effects.messages) if isinstance(m, kind)]


def reply_of(effects: Effects) -> RaftMessage:
    """The only message of the effects."""
    (message,) = effects.messages
    return message[1]


def elect(raft: Raft, now_ms: int = 1000) -> None:
    """Make n1 leader with the help of n2; its own log is on disk, its effects are taken."""
    raft.tick(now_ms)
    raft.step("n2", VoteReply(raft.term + 1, granted=True, pre=True), now_ms)
    raft.step("n2", VoteReply(raft.term, granted=True, pre=False), now_ms)
    assert raft.role is Role.LEADER
    persist_all(raft)


def persist_all(raft: Raft) -> Effects:
    """Take the effects and report their batch as written."""
    effects = raft.effects()
    if effects.persist is not None:
        raft.persisted(effects.persist.term, effects.persist.last_index)
    return effects


def test_a_node_with_new_data_grants_no_vote_and_bug_rejoin_as_voter_does() -> None:
    for core, granted in ((Raft, []), (RejoinAsVoter, [VoteReply(7, granted=True, pre=False)])):
        state = HardState(is_observer=True)
        raft = core(Config("n1"), restored(THREE, state, []), random.Random(0), 0)
        raft.step("n2", VoteRequest(7, 0, 0, False, False), 10)
        assert sent(raft.effects(), VoteReply) == granted


# ---- elections (section 5.2) ---------------------------------------------------------------------


def test_5_2_a_node_starts_as_follower_and_waits_out_its_timeout() -> None:
    raft = node()
    roles: list[Role] = []
    for now_ms in (0, 299, 600):
        raft.tick(now_ms)
        roles.append(raft.role)
    assert roles == [Role.FOLLOWER, Role.FOLLOWER, Role.PRE_CANDIDATE]


def test_5_2_election_timeouts_are_spread_over_the_range() -> None:
    config = Config("n1")
    due = {Raft(config, restored(THREE), random.Random(s), 0).deadline_ms for s in range(200)}
    assert min(due) >= 300
    assert max(due) < 600
    assert len(due) > 100


def test_5_2_a_candidate_raises_its_term_and_votes_for_itself_on_disk_first() -> None:
    raft = node(term=4)
    raft.tick(1000)
    raft.effects()
    raft.step("n2", VoteReply(5, granted=True, pre=True), 1000)
    effects = raft.effects()
    assert effects.persist is not None
    assert effects.persist.hard_state == HardState(5, "n1")
    assert effects.eager == ()
    assert effects.messages == (
        ("n2", VoteRequest(5, 0, 0, pre=False)),
        ("n3", VoteRequest(5, 0, 0, pre=False)),
    )


def test_5_2_a_majority_of_votes_makes_a_leader_that_sends_at_once() -> None:
    raft = node(term=4)
    elect(raft)
    assert (raft.role, raft.term, raft.leader) == (Role.LEADER, 5, "n1")


def test_5_2_a_minority_of_votes_does_not() -> None:
    raft = node(voters=("n1", "n2", "n3", "n4", "n5"))
    raft.tick(1000)
    for voter in ("n2", "n3"):
        raft.step(voter, VoteReply(1, granted=True, pre=True), 1000)
    raft.step("n2", VoteReply(1, granted=True, pre=False), 1000)
    raft.step("n2", VoteReply(1, granted=True, pre=False), 1000)
    assert raft.role is Role.CANDIDATE


def test_5_2_one_vote_per_term_first_come_first_served() -> None:
    raft = node()
    raft.step("n2", VoteRequest(3, 0, 0, pre=False), 10)
    assert reply_of(raft.effects()) == VoteReply(3, granted=True, pre=False)
    raft.step("n3", VoteRequest(3, 0, 0, pre=False), 11)
    assert reply_of(raft.effects()) == VoteReply(3, granted=False, pre=False)
    raft.step("n2", VoteRequest(3, 0, 0, pre=False), 12)
    assert reply_of(raft.effects()) == VoteReply(3, granted=True, pre=False)


def test_5_2_a_vote_is_in_the_batch_that_its_reply_waits_for() -> None:
    raft = node()
    raft.step("n2", VoteRequest(3, 0, 0, pre=False), 10)
    effects = raft.effects()
    assert effects.persist is not None
    assert effects.persist.hard_state == HardState(3, "n2")
    assert effects.eager == ()
    assert len(effects.messages) == 1


def test_5_2_a_vote_survives_a_restart() -> None:
    raft = node(term=3, vote="n2")
    raft.step("n3", VoteRequest(3, 0, 0, pre=False), 10)
    assert reply_of(raft.effects()) == VoteReply(3, granted=False, pre=False)


def test_5_2_a_candidate_follows_a_leader_of_its_own_term() -> None:
    raft = node()
    raft.tick(1000)
    raft.step("n2", VoteReply(1, granted=True, pre=True), 1000)
    assert raft.role is Role.CANDIDATE
    raft.step("n3", AppendRequest(1, 0, 0, (), 0, 1), 1001)
    assert (raft.role, raft.leader) == (Role.FOLLOWER, "n3")


def test_5_2_a_late_vote_counts_in_no_other_term() -> None:
    raft = node()
    elect(raft)
    raft.tick(3000)  # Nobody answered: office lost.
    raft.tick(5000)
    raft.step("n2", VoteReply(2, granted=True, pre=True), 5000)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    raft.step("n3", VoteReply(1, granted=True, pre=False), 5001)
    assert raft.role is Role.CANDIDATE


def test_5_1_a_higher_term_ends_an_office() -> None:
    raft = node()
    elect(raft)
    raft.step("n3", AppendReply(9, 1, success=False, index=0), 1001)
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 9, None)
    assert raft.propose(b"x") is None


def test_5_1_a_stale_request_is_refused_with_the_newer_term() -> None:
    raft = node(term=5)
    raft.step("n2", AppendRequest(4, 0, 0, (Entry(4, b"x"),), 1, 1), 10)
    reply = reply_of(raft.effects())
    assert isinstance(reply, AppendReply)
    assert (reply.term, reply.success) == (5, False)
    assert raft.log.last_index == 0
    assert raft.commit == 0


def test_5_1_a_refusal_of_an_older_offices_request_says_nothing_to_a_newer_office() -> None:
    # An earlier life of n1 led term 1 with a long log and many rounds; a request of it is late.
    follower = node((1, 3), term=3)
    follower.step("n2", AppendRequest(1, 40, 1, (), 0, 900), 10)
    refusal = reply_of(follower.effects())
    assert isinstance(refusal, AppendReply)

    leader = node((1,), term=2)
    elect(leader)
    leader.step("n2", AppendReply(3, 1, success=True, index=2), 1001)
    leader.effects()
    assert leader.read(7, 0)
    leader.effects()
    assert refusal.term == leader.term
    leader.step("n3", refusal, 1002)  # Its log has no entry 40, and this is no reason to stop.
    effects = leader.effects()
    assert effects.reads == (), "n3 vouched for an office that it does not support"
    for request in sent(effects, AppendRequest):
        assert isinstance(request, AppendRequest)
        assert request.prev_index > 0, "the whole log would be sent again"


def test_two_leaders_of_one_term_stop_the_node() -> None:
    raft = node()
    elect(raft)
    with pytest.raises(AssertionError, match="both lead term 1"):
        raft.step("n2", AppendRequest(1, 0, 0, (), 0, 1), 1001)


def test_d_4_2_2_a_candidate_that_this_log_does_not_name_may_get_the_vote() -> None:
    raft = node()
    raft.step("n9", VoteRequest(9, 9, 9, pre=False), 10)
    assert reply_of(raft.effects()) == VoteReply(9, granted=True, pre=False)


def test_a_strangers_vote_does_not_count() -> None:
    raft = node()
    raft.tick(1000)
    raft.step("n9", VoteReply(1, granted=True, pre=True), 1000)
    raft.step("n8", VoteReply(1, granted=True, pre=True), 1000)
    assert raft.role is Role.PRE_CANDIDATE


# ---- who may be elected (section 5.4.1) ----------------------------------------------------------


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [(3, 2, True), (2, 3, True), (2, 2, False), (1, 9, False), (2, 4, True), (3, 1, True)],
)
def test_5_4_1_a_vote_needs_a_log_at_least_as_new(
    last_term: int, last_index: int, granted: bool
) -> None:
    for pre in (True, False):
        raft = node((1, 1, 2))
        raft.step("n2", VoteRequest(5, last_index, last_term, pre), 10)
        assert reply_of(raft.effects()) == VoteReply(
            5 if granted or not pre else 2, granted=granted, pre=pre
        )


# ---- pre-vote, stickiness, check-quorum (dissertation 9.6, 4.2.3, 6.2) ---------------------------


def test_9_6_a_pre_vote_changes_neither_term_nor_vote() -> None:
    raft = node(term=4)
    raft.step("n2", VoteRequest(5, 0, 0, pre=True), 10)
    effects = raft.effects()
    assert reply_of(effects) == VoteReply(5, granted=True, pre=True)
    assert effects.persist is None
    assert (raft.term, raft.vote) == (4, None)


def test_9_6_a_node_that_is_cut_off_keeps_its_term() -> None:
    raft = node(term=4)
    for now_ms in range(0, 60_000, 50):
        raft.tick(now_ms)
    assert raft.term == 4
    assert raft.role is Role.PRE_CANDIDATE


def test_9_6_a_refused_pre_vote_teaches_the_newer_term() -> None:
    raft = node(term=4)
    raft.tick(1000)
    raft.step("n2", VoteReply(7, granted=False, pre=True), 1000)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 7)


def test_9_6_a_pre_vote_for_another_term_does_not_count() -> None:
    raft = node(term=4)
    raft.tick(1000)
    raft.step("n2", VoteReply(4, granted=True, pre=True), 1000)
    assert raft.role is Role.PRE_CANDIDATE


@pytest.mark.parametrize("pre", [True, False])
def test_4_2_3_nobody_deposes_a_leader_that_is_heard(pre: bool) -> None:
    raft = node()
    raft.step("n2", AppendRequest(1, 0, 0, (), 0, 1), 100)
    raft.effects()
    raft.step("n3", VoteRequest(9, 9, 9, pre), 399)
    assert raft.effects().messages == ()
    assert raft.term == 1
    raft.step("n3", VoteRequest(9, 9, 9, pre), 401)
    assert reply_of(raft.effects()) == VoteReply(9, granted=True, pre=pre)


def test_6_2_a_leader_that_no_majority_answers_steps_down() -> None:
    raft = node()
    elect(raft)
    raft.tick(1600)
    assert raft.role is Role.LEADER
    raft.tick(1601)
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 1, None)


def test_6_2_a_leader_that_one_of_two_answers_stays() -> None:
    raft = node()
    elect(raft)
    for now_ms in range(1000, 5000, 75):
        raft.tick(now_ms)
        raft.effects()
        raft.step("n3", AppendReply(1, 1, success=True, index=0), now_ms)
    assert raft.role is Role.LEADER


# ---- replication (section 5.3) -------------------------------------------------------------------


def test_5_3_heartbeats_go_out_at_their_interval() -> None:
    raft = node()
    elect(raft)
    for peer in ("n2", "n3"):
        raft.step(peer, AppendReply(1, 1, success=True, index=1), 1000)
    beats = 0
    for now_ms in range(1001, 1301):
        raft.tick(now_ms)
        beats += len(sent(raft.effects(), AppendRequest))
        raft.step("n2", AppendReply(1, 1, success=True, index=1), now_ms)
    assert beats == 2 * (300 // raft.config.heartbeat_ms)


def test_5_3_the_entry_before_must_match() -> None:
    raft = node((1, 1))
    raft.step("n2", AppendRequest(2, 2, 2, (Entry(2, b"x"),), 0, 1), 10)
    reply = reply_of(raft.effects())
    assert reply == AppendReply(2, 1, success=False, index=2, hint_index=1, hint_term=1)
    assert raft.log.last_index == 2


def test_5_3_a_missing_entry_before_is_refused_with_the_end_of_the_log() -> None:
    raft = node((1, 1))
    raft.step("n2", AppendRequest(2, 9, 2, (), 0, 1), 10)
    reply = reply_of(raft.effects())
    assert reply == AppendReply(2, 1, success=False, index=9, hint_index=3, hint_term=0)


def test_5_3_a_conflicting_suffix_is_replaced() -> None:
    raft = node((1, 1, 1))
    raft.step("n2", AppendRequest(2, 1, 1, (Entry(2, b"x"),), 0, 1), 10)
    effects = raft.effects()
    assert raft.log.since(2) == (Entry(2, b"x"),)
    assert effects.persist is not None
    assert effects.persist.first_index == 2
    assert effects.persist.entries == (Entry(2, b"x"),)
    assert reply_of(effects) == AppendReply(2, 1, success=True, index=2)


def test_5_3_a_late_repeat_takes_nothing_back() -> None:
    raft = node((1, 1, 1))
    raft.step("n2", AppendRequest(1, 0, 0, (Entry(1, b"1"),), 0, 1), 10)
    effects = raft.effects()
    assert raft.log.last_index == 3
    assert effects.persist is None
    assert reply_of(effects) == AppendReply(1, 1, success=True, index=1)


def test_5_3_a_follower_commits_only_what_the_message_vouched_for() -> None:
    raft = node((1, 1, 1))
    raft.step("n2", AppendRequest(2, 1, 1, (), 3, 1), 10)
    assert raft.commit == 1


def test_5_3_a_follower_never_commits_beyond_the_leader() -> None:
    raft = node((1, 1, 1))
    raft.step("n2", AppendRequest(1, 3, 1, (), 2, 1), 10)
    assert raft.commit == 2
    raft.step("n2", AppendRequest(1, 3, 1, (), 1, 2), 11)
    assert raft.commit == 2


def test_5_3_cutting_a_committed_entry_stops_the_node() -> None:
    raft = node((1, 1))
    raft.step("n2", AppendRequest(1, 2, 1, (), 2, 1), 10)
    with pytest.raises(AssertionError, match="cut committed entry 2"):
        raft.step("n2", AppendRequest(1, 1, 1, (Entry(2, b"x"),), 0, 1), 11)


def test_5_3_fast_back_up_skips_a_whole_term() -> None:
    """The follower has 50 entries of terms that the leader never saw: few round trips suffice."""
    leader = node((1, 1, 5, 5))
    elect(leader)
    follower = Raft(
        Config("n2"),
        restored(
            THREE,
            HardState(4),
            [
                Entry(1, b"1"),
                Entry(1, b"2"),
                *(Entry(t, b"x") for t in (2, 3, 4) for _ in range(20)),
            ],
        ),
        random.Random(1),
        0,
    )
    leader.tick(1300)  # What it sent at its election is lost by now.
    requests = 0
    for _ in range(10):
        for target, request in leader.effects().eager:
            if target == "n2":
                requests += 1
                follower.step("n1", request, 1300)
        for _, reply in follower.effects().messages:
            leader.step("n2", reply, 1300)
    assert follower.log.since(1) == leader.log.since(1)
    assert requests <= 4


def test_5_3_a_leader_starts_with_an_entry_of_its_own() -> None:
    raft = node((1, 1))
    elect(raft)
    assert [entry.term for entry in raft.log.since(3)] == [2]


def test_4_1_the_first_leader_of_all_writes_the_members_into_the_log() -> None:
    # A node that joins later has no other way to know who they were at that index.
    raft = node()
    elect(raft)
    (entry,) = raft.log.since(1)
    assert entry.is_configuration
    assert decode_configuration(entry.command).voters == THREE
    raft.step("n2", AppendReply(1, 1, success=True, index=1), 1001)
    deposed = AppendReply(5, 1, success=False, index=1)
    raft.step("n2", deposed, 1002)
    elect(raft, 3000)
    assert raft.log.since(2) == (Entry(6, NO_OP),)


def test_5_3_commitment_needs_a_majority_of_disks() -> None:
    raft = node()
    raft.tick(1000)
    raft.step("n2", VoteReply(1, granted=True, pre=True), 1000)
    raft.step("n2", VoteReply(1, granted=True, pre=False), 1000)
    effects = raft.effects()
    raft.step("n2", AppendReply(1, 1, success=True, index=1), 1001)
    assert raft.commit == 0, "the leader's own copy is not on disk yet"
    assert effects.persist is not None
    raft.persisted(1, effects.persist.last_index)
    assert raft.commit == 1


def test_5_3_batches_are_bounded_in_count_and_bytes() -> None:
    raft = Raft(
        Config("n1", batch_count_max=3, batch_bytes_max=10),
        restored(THREE, HardState(1), [Entry(1, b"12345") for _ in range(8)]),
        random.Random(0),
        0,
    )
    elect(raft)
    raft.step("n2", AppendReply(2, 1, success=False, index=8, hint_index=1), 1001)
    (request,) = sent(raft.effects(), AppendRequest)
    assert isinstance(request, AppendRequest)
    assert len(request.entries) == 2
    assert request.prev_index == 0


def test_5_3_a_lost_batch_is_sent_again() -> None:
    raft = node()
    elect(raft)
    batches = 0
    for now_ms in range(1001, 1400):
        raft.tick(now_ms)
        raft.step("n3", AppendReply(1, 1, success=True, index=0), now_ms)
        for target, request in raft.effects().eager:
            assert isinstance(request, AppendRequest)
            batches += target == "n2" and len(request.entries) > 0
    assert batches == 1


def test_proposals_of_one_turn_share_one_batch_and_one_message() -> None:
    raft = node()
    elect(raft)
    raft.step("n2", AppendReply(1, 1, success=True, index=1), 1001)
    raft.step("n3", AppendReply(1, 1, success=True, index=1), 1001)
    raft.effects()
    indexes = [raft.propose(b"%d" % number) for number in range(10)]
    effects = raft.effects()
    assert indexes == list(range(2, 12))
    assert effects.persist is not None
    assert len(effects.persist.entries) == 10
    assert len(effects.eager) == 2


def test_a_single_node_is_a_cluster() -> None:
    raft = node(voters=("n1",))
    raft.tick(1000)
    roles = [raft.role]
    persist_all(raft)
    roles.append(raft.role)
    # Until it is on disk its vote for itself could be forgotten, and the term be led twice.
    assert roles == [Role.CANDIDATE, Role.LEADER]
    assert raft.propose(b"x") == 2
    assert raft.read(1, 0)
    assert raft.effects().committed == ()
    raft.persisted(raft.term, 2)
    effects = raft.effects()
    assert [entry.command for entry in effects.committed[1:]] == [b"x"]
    assert effects.reads == (1,)


# ---- reads (dissertation 6.4) --------------------------------------------------------------------


def test_6_4_a_follower_takes_no_read() -> None:
    assert node().read(1, 0) is False


def test_6_4_a_read_waits_for_the_first_commit_of_the_term() -> None:
    raft = node((1,))
    elect(raft)
    assert raft.read(7, 0)
    raft.effects()
    raft.step("n2", AppendReply(2, 1, success=True, index=1), 1001)
    assert raft.effects().reads == ()
    raft.step("n2", AppendReply(2, 1, success=True, index=2), 1002)
    (request, *_) = sent(raft.effects(), AppendRequest)
    assert isinstance(request, AppendRequest)
    raft.step("n2", AppendReply(2, request.round, success=True, index=2), 1003)
    assert raft.effects().reads == (7,)


def in_office() -> tuple[Raft, int]:
    """A leader with its no-op committed and applied, and the round it last began."""
    raft = node()
    elect(raft)
    raft.step("n2", AppendReply(1, 1, success=True, index=1), 1001)
    raft.effects()
    raft.tick(1075)
    requests = sent(raft.effects(), AppendRequest)
    assert isinstance(requests[0], AppendRequest)
    return raft, requests[0].round


def test_6_4_only_a_round_begun_after_the_read_confirms_it() -> None:
    raft, older_round = in_office()
    assert raft.read(7, 0)
    effects = raft.effects()
    (request, *_) = sent(effects, AppendRequest)
    assert isinstance(request, AppendRequest)
    assert request.round > older_round
    raft.step("n2", AppendReply(1, older_round, success=True, index=1), 1076)
    assert raft.effects().reads == ()
    raft.step("n3", AppendReply(1, request.round, success=True, index=1), 1077)
    assert raft.effects().reads == (7,)


def test_6_4_reads_of_one_turn_share_one_round() -> None:
    raft, _ = in_office()
    for read_id in range(20):
        raft.read(read_id, 0)
    effects = raft.effects()
    assert len(effects.eager) == 2
    (request, *_) = sent(effects, AppendRequest)
    assert isinstance(request, AppendRequest)
    raft.step("n2", AppendReply(1, request.round, success=True, index=1), 1076)
    assert raft.effects().reads == tuple(range(20))


def test_6_4_reads_die_with_the_office() -> None:
    raft, older_round = in_office()
    raft.read(7, 0)
    raft.effects()
    raft.step("n3", AppendReply(2, 0, success=False, index=0), 1076)
    raft.step("n2", AppendReply(1, older_round + 1, success=True, index=1), 1077)
    assert raft.effects().reads == ()


def test_a_long_replay_is_applied_in_slices() -> None:
    raft = Raft(
        Config("n1", apply_count_max=10),
        restored(("n1",), HardState(1), [Entry(1, b"x")] * 35),
        random.Random(0),
        0,
    )
    raft.tick(1000)
    persist_all(raft)
    persist_all(raft)
    assert [len(raft.effects().committed) for _ in range(5)] == [10, 10, 10, 6, 0]


def test_a_slice_of_a_replay_is_bounded_in_bytes_too() -> None:
    raft = Raft(
        Config("n1", apply_bytes_max=10),
        restored(("n1",), HardState(1), [Entry(1, b"12345")] * 3 + [Entry(1, b"x" * 50)] * 2),
        random.Random(0),
        0,
    )
    raft.tick(1000)
    persist_all(raft)
    persist_all(raft)
    assert [len(raft.effects().committed) for _ in range(6)] == [2, 1, 1, 1, 1, 0]


# ---- scripts: rare situations, and the wrong cores that they convict -----------------------------


def campaign(cluster: Cluster, name: str) -> None:
    """Let a node that hears nobody reach candidacy with the pre-votes on the wire."""
    cluster.now_ms += 1300
    cluster.tick(name)
    step_until(cluster, lambda: cluster.up(name).role is not Role.PRE_CANDIDATE)


def step_until(cluster: Cluster, condition: Callable[[], bool]) -> None:
    """Write disks and deliver in order until the condition holds."""
    for _ in range(200):
        if condition():
            return
        for name, member in cluster.members.items():
            while member.jobs:
                cluster.write_disk(name)
        if cluster.wire:
            cluster.deliver(0)
    raise AssertionError(f"never came true: {cluster.roles()}")


def isolate(cluster: Cluster, *side: str) -> None:
    """Cut these nodes off from all others, and lose what is on the wire."""
    cluster.cut = {
        (a, b) for a in cluster.names for b in cluster.names if (a in side) != (b in side)
    }
    cluster.wire.clear()


def make_leader(cluster: Cluster, name: str) -> None:
    """Elect this very node among those it can reach; entries it has sent since are still due."""
    campaign(cluster, name)
    step_until(cluster, lambda: cluster.up(name).role is Role.LEADER)


def write_all(cluster: Cluster, name: str) -> None:
    """Let everything that waits reach one node's disk."""
    while cluster.members[name].jobs:
        cluster.write_disk(name)


def figure_8(core: type[Raft]) -> None:
    """Section 5.4.2: n1's old entry reaches a majority in a later term and is still overwritten."""
    cluster = Cluster(5, 1, core, batch_count_max=1)
    make_leader(cluster, "n1")
    cluster.drain()
    isolate(cluster, "n1", "n2")  # (a) n1 replicates an entry to n2 only.
    cluster.propose("n1", b"old")
    cluster.drain()
    cluster.crash("n1")
    isolate(cluster, "n5", "n3", "n4")  # (b) n5 leads and writes at the same index, alone.
    make_leader(cluster, "n5")
    cluster.propose("n5", b"other")
    write_all(cluster, "n5")
    cluster.crash("n5")
    cluster.start("n1")
    isolate(cluster, "n1", "n2", "n3")  # (c) n1 leads again; its old entry reaches n3.
    for _ in range(3):
        if cluster.up("n1").role is not Role.LEADER:
            cluster.now_ms += 1300
            cluster.tick("n1")
            cluster.drain()
    assert cluster.up("n1").role is Role.LEADER
    # Only the old entry may travel: what n1 wrote in its newest term stays at home.
    cluster.crash("n1")
    cluster.start("n5")
    isolate(cluster, "n5", "n2", "n3", "n4")  # (d) n5 may win and overwrite it.
    for _ in range(3):
        if cluster.up("n5").role is not Role.LEADER:
            cluster.now_ms += 1300
            cluster.tick("n5")
            cluster.drain()


def late_vote(core: type[Raft]) -> None:
    """n1 gets n2's vote of term 1 when it already campaigns in term 2, which n2 gave to n3."""
    cluster = Cluster(3, 1, core)
    campaign(cluster, "n1")
    assert cluster.up("n1").term == 1
    step_until(
        cluster,
        lambda: any(isinstance(m, VoteReply) and not m.pre for _, _, m in cluster.wire),
    )
    late = [x for x in cluster.wire if isinstance(x[2], VoteReply) and not x[2].pre]
    cluster.wire.clear()
    campaign(cluster, "n1")
    assert (cluster.up("n1").role, cluster.up("n1").term) == (Role.CANDIDATE, 2)
    isolate(cluster, "n1")
    for _ in range(6):
        if cluster.leader() is None:
            campaign_if_possible(cluster, "n3")
    cluster.cut.clear()
    cluster.wire[:] = late
    cluster.drain()


def campaign_if_possible(cluster: Cluster, name: str) -> None:
    """One more attempt of a node to be elected."""
    cluster.now_ms += 1300
    cluster.tick(name)
    cluster.drain()


def late_success(core: type[Raft]) -> None:
    """n1's office of term 3 gets a success that n2 gave to its office of term 1."""
    cluster = Cluster(3, 1, core)
    make_leader(cluster, "n1")
    cluster.drain()
    isolate(cluster, "n1", "n2")
    cluster.propose("n1", b"a")
    step_until(
        cluster,
        lambda: any(isinstance(m, AppendReply) and m.index == 2 for _, _, m in cluster.wire),
    )
    late = [x for x in cluster.wire if isinstance(x[2], AppendReply) and x[2].index == 2]
    cluster.crash("n1", jobs_written=9)
    cluster.members["n2"].disk.entries.pop()  # n2 is replaced by one that never had the entry.
    cluster.crash("n2")
    cluster.start("n1")
    cluster.start("n2")
    isolate(cluster, "n1", "n3")
    campaign(cluster, "n1")
    step_until(cluster, lambda: cluster.up("n1").role is Role.LEADER)
    write_all(cluster, "n1")
    cluster.wire[:] = [
        (a, b, AppendReply(m.term, m.round, m.success, 3))
        for a, b, m in late
        if isinstance(m, AppendReply)
    ]
    cluster.cut.clear()
    while cluster.wire:
        cluster.deliver(0)


def late_disk(core: type[Raft]) -> None:
    """n1's disk confirms index 2 of its old office when index 2 is a newer leader's entry."""
    raft = core(Config("n1"), restored(THREE, HardState(), []), random.Random(0), 0)
    elect(raft)
    raft.propose(b"mine")
    batch = raft.effects().persist  # On its way to a slow disk.
    assert batch is not None
    assert batch.last_index == 2
    raft.step("n2", AppendRequest(2, 0, 0, (Entry(2, b"theirs"),), 0, 1), 1001)
    raft.effects()  # This batch cuts index 2 and is not on disk either.
    elect(raft, 5000)
    raft.step("n3", AppendReply(3, 9, success=True, index=2), 5001)
    raft.propose(b"new")
    raft.effects()
    raft.step("n3", AppendReply(3, 9, success=True, index=3), 5002)
    before = raft.commit
    raft.persisted(batch.term, 3)
    if raft.commit > before:
        raise Violation("an old batch vouched for a new entry")


def older_round(core: type[Raft]) -> None:
    """n1 was deposed unheard; replies to heartbeats from before the read reach it late."""
    cluster = Cluster(3, 1, core)
    make_leader(cluster, "n1")
    cluster.drain()
    cluster.now_ms += 75
    cluster.tick("n1")
    step_until(cluster, lambda: any(isinstance(m, AppendReply) for _, _, m in cluster.wire))
    late = [x for x in cluster.wire if isinstance(x[2], AppendReply)]
    isolate(cluster, "n1")
    for _ in range(3):
        if "n2" not in cluster.promises.leaders.values():
            campaign_if_possible(cluster, "n2")
    cluster.propose("n2", b"newer")
    cluster.drain()
    cluster.read("n1")
    cluster.cut.clear()
    cluster.wire[:] = late
    cluster.deliver(0)


def longer_log(core: type[Raft]) -> None:
    """n1 has a long tail of an old term that nobody else has; n2 and n3 committed a newer one."""
    cluster = Cluster(3, 1, core)
    make_leader(cluster, "n1")
    cluster.drain()
    isolate(cluster, "n1")
    for _ in range(5):
        cluster.propose("n1")
    write_all(cluster, "n1")
    cluster.now_ms += 1300
    cluster.tick("n1")
    for _ in range(3):
        if "n2" not in cluster.promises.leaders.values():
            campaign_if_possible(cluster, "n2")
    cluster.propose("n2", b"newer")
    cluster.drain()
    cluster.crash("n2")
    cluster.cut.clear()
    cluster.wire.clear()
    for _ in range(4):
        campaign_if_possible(cluster, "n1")


def beyond_vouched(core: type[Raft]) -> None:
    """n1 comes back with a tail that the new leader never had and a heartbeat that commits more."""
    raft = core(
        Config("n1"), restored(THREE, HardState(1), [Entry(1, b"x")] * 4), random.Random(0), 0
    )
    raft.step("n2", AppendRequest(2, 1, 1, (), 3, 1), 10)
    if raft.commit > 1:
        raise Violation("committed entries that nobody vouched for")


SCRIPTS: list[tuple[Callable[[type[Raft]], None], type[Raft]]] = [
    (figure_8, CommitOldTerm),
    (late_vote, CountsLateVotes),
    (late_success, CountsLateSuccess),
    (late_disk, CountsAnyTermsDisk),
    (older_round, CountsOlderRounds),
    (longer_log, LongerLogWins),
    (beyond_vouched, CommitBeyondVouched),
]


@pytest.mark.parametrize(("script", "mutant"), SCRIPTS, ids=lambda item: item.__name__)
def test_a_rare_situation_convicts_the_core_that_leaves_the_rule_out(
    script: Callable[[type[Raft]], None], mutant: type[Raft]
) -> None:
    script(Raft)
    with pytest.raises(Violation):
        script(mutant)
