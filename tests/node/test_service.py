"""The line between "did not happen" and "unknown", in every way a request can go wrong."""

import msgspec
import pytest
from tests.node.one_service import Fixture

from labrys.node.answers import Answer
from labrys.node.commands import (
    Add,
    Batch,
    Cas,
    Change,
    Command,
    Delete,
    Get,
    Put,
    Request,
    Transfer,
    encode_request,
)
from labrys.node.messages import (
    AppendReply,
    Entry,
    ForwardReply,
    ForwardRequest,
    ReadReply,
    ReadRequest,
)
from labrys.node.service import FORWARD_BYTES_MAX, PENDING_MAX, UNCOMMITTED_BYTES_MAX

WRITE = Put("k", 1)
READ = Get("k")


@pytest.fixture
def at() -> Fixture:
    return Fixture()


def test_a_read_on_a_follower_asks_the_leader_for_an_index_and_is_answered_here(
    at: Fixture,
) -> None:
    at.follow("n2")
    at.execute(READ)
    ((target, request),) = at.raft.effects().eager
    assert isinstance(request, ReadRequest)
    assert target == "n2"
    at.raft.step("n2", ReadReply(1, request.batch, 0), at.now_ms)
    at.run()
    assert at.outcome() == (404, "not-found", True)
    assert at.sent == []


def test_a_read_that_waits_for_a_lost_leader_had_no_effect(at: Fixture) -> None:
    at.follow("n2")
    at.execute(READ)
    at.run()
    assert at.answers == []
    at.now_ms += 700
    at.raft.tick(at.now_ms)
    at.run()
    assert at.outcome() == (503, "no-leader", True)


@pytest.mark.parametrize("request_", [WRITE, READ])
def test_without_a_leader_nothing_happened(at: Fixture, request_: Command | Get) -> None:
    at.execute(request_)
    assert at.outcome() == (503, "no-leader", True)


def test_a_leader_that_cannot_be_reached_got_nothing(at: Fixture) -> None:
    at.follow("n2")
    at.link_is_up = False
    at.execute(WRITE)
    assert at.outcome() == (503, "no-leader", True)


def test_a_link_that_breaks_after_forwarding_leaves_a_write_unknown(at: Fixture) -> None:
    at.follow("n2")
    at.execute(WRITE)
    assert at.answers == []
    at.service.lose_link("n3")
    assert at.answers == []
    at.service.lose_link("n2")
    assert at.outcome() == (502, "forward-broken", False)


def test_a_new_leader_ends_what_was_forwarded_to_the_old_one(at: Fixture) -> None:
    at.follow("n2")
    at.execute(WRITE)
    at.follow("n3", term=2)
    at.service.execute(Put("other", 1), lambda answer: None)
    assert at.outcome() == (502, "forward-broken", False)


def test_a_new_leader_ends_it_without_waiting_for_the_next_request(at: Fixture) -> None:
    at.follow("n2")
    at.execute(WRITE)
    at.run()
    assert at.answers == []
    at.follow("n3", term=2)
    at.run()
    assert at.outcome() == (502, "forward-broken", False)


def test_the_leaders_answer_is_passed_on_once(at: Fixture) -> None:
    at.follow("n2")
    at.execute(WRITE)
    ((peer, message),) = at.sent
    assert peer == "n2"
    assert isinstance(message, ForwardRequest)
    at.service.on_forward_reply(ForwardReply(message.request_id, 200, b"{}"))
    at.service.on_forward_reply(ForwardReply(message.request_id, 200, b"{}"))
    at.service.lose_link("n2")
    assert at.answers == [Answer(200, b"{}")]


def test_a_forwarded_request_makes_only_one_hop(at: Fixture) -> None:
    at.follow("n2")
    at.service.on_forward("n3", ForwardRequest(7, encode_request(WRITE)))
    ((peer, message),) = at.sent
    assert peer == "n3"
    assert isinstance(message, ForwardReply)
    assert (message.request_id, message.status) == (7, 503)
    assert msgspec.json.decode(message.body)["definite"] is True


def test_an_unreadable_forwarded_request_is_answered(at: Fixture) -> None:
    at.lead()
    at.service.on_forward("n3", ForwardRequest(7, b"nonsense"))
    ((_, message),) = at.sent
    assert isinstance(message, ForwardReply)
    assert message.status == 400


def test_an_answer_too_large_for_a_link_is_not_sent_over_it(at: Fixture) -> None:
    at.lead()
    at.service.apply(1, [Entry(1, encode_request(Put("k", "x" * FORWARD_BYTES_MAX)))])
    requests: tuple[Request, ...] = (READ, Cas("k", 1, 2))
    for request_id, request in enumerate(requests):
        at.service.on_forward("n3", ForwardRequest(request_id, encode_request(request)))
    at.run()
    at.raft.step("n2", AppendReply(1, 2, success=True, index=2), at.now_ms)
    at.run()
    assert len(at.sent) == 2
    for _, message in at.sent:
        assert isinstance(message, ForwardReply)
        body = msgspec.json.decode(message.body)
        assert (message.status, body["error"], body["definite"]) == (500, "too-large", True)


def test_a_write_is_answered_when_it_is_committed_and_not_before(at: Fixture) -> None:
    at.lead()
    at.execute(WRITE)
    at.run()
    assert at.answers == []
    at.raft.step("n2", AppendReply(1, 1, success=True, index=2), at.now_ms)
    at.run()
    assert at.answers == [Answer(200, b'{"revision":1}')]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [(WRITE, (503, "leadership-lost", False)), (READ, (503, "no-leader", True))],
)
def test_a_lost_office_leaves_a_write_unknown(
    at: Fixture, request_: Command | Get, answer: tuple[int, str, bool]
) -> None:
    at.lead()
    at.execute(request_)
    at.run()
    at.raft.step("n3", AppendReply(2, 1, success=False, index=0), at.now_ms)
    at.run()
    assert at.outcome() == answer


def test_a_write_whose_index_went_to_another_term_did_not_happen(at: Fixture) -> None:
    at.lead()
    at.execute(WRITE)
    at.run()
    at.service.apply(2, [Entry(2, encode_request(Put("k", "other")))])
    assert at.outcome() == (503, "overwritten", True)


@pytest.mark.parametrize(("request_", "definite"), [(WRITE, False), (READ, True)])
def test_nobody_waits_for_ever(at: Fixture, request_: Command | Get, definite: bool) -> None:
    at.lead()
    at.execute(request_)
    at.now_ms += 4999
    at.service.expire()
    assert at.answers == []
    at.now_ms += 1
    at.service.expire()
    assert at.outcome() == (504, "timeout", definite)


@pytest.mark.parametrize(("request_", "definite"), [(WRITE, False), (READ, True)])
def test_a_stopping_node_answers_what_waits(
    at: Fixture, request_: Command | Get, definite: bool
) -> None:
    at.follow("n2")
    at.execute(request_)
    at.service.stop()
    assert at.outcome() == (503, "stopping", definite)


def test_one_request_too_many_is_refused_and_room_comes_back(at: Fixture) -> None:
    at.lead()
    for _ in range(PENDING_MAX):
        at.service.execute(WRITE, lambda answer: None)
    at.execute(WRITE)
    assert at.outcome() == (503, "busy", True)
    at.run()
    at.raft.step("n2", AppendReply(1, 1, success=True, index=PENDING_MAX + 1), at.now_ms)
    at.run()
    at.answers.clear()
    at.execute(WRITE)
    assert at.answers == []


def test_an_expired_request_frees_its_room(at: Fixture) -> None:
    at.follow("n2")
    for _ in range(PENDING_MAX):
        at.service.execute(WRITE, lambda answer: None)
    at.now_ms += 5000
    at.service.expire()
    at.execute(WRITE)
    assert at.answers == []


def test_a_stale_read_needs_nobody(at: Fixture) -> None:
    at.service.apply(1, [Entry(1, encode_request(WRITE))])
    assert at.service.read_stale("k") == Answer(200, b'{"value":1,"revision":1}')


def test_answer_to_an_earlier_life_is_not_taken_for_that_to_a_new_request() -> None:
    killed, restarted = Fixture(first_id=1), Fixture(first_id=1_000_000)
    for life in (killed, restarted):
        life.follow("n2")
        life.execute(WRITE)
    (_, old), (_, new) = killed.sent[0], restarted.sent[0]
    assert isinstance(old, ForwardRequest)
    assert isinstance(new, ForwardRequest)
    restarted.service.on_forward_reply(ForwardReply(old.request_id, 200, b"late"))
    assert restarted.answers == []
    restarted.service.on_forward_reply(ForwardReply(new.request_id, 200, b"new"))
    assert [answer.body for answer in restarted.answers] == [b"new"]


def test_a_write_that_was_not_appended_before_the_office_was_lost_did_not_happen(
    at: Fixture,
) -> None:
    at.lead()
    at.service.execute(WRITE, at.answers.append)
    at.raft.step("n3", AppendReply(2, 1, success=False, index=0), at.now_ms)
    at.run()
    assert at.outcome() == (503, "no-leader", True)


def test_while_the_leader_hands_over_a_write_is_refused_definitely(at: Fixture) -> None:
    at.lead()
    at.service.execute(Transfer("n3"), lambda answer: None)
    at.execute(WRITE)
    assert at.outcome() == (503, "transferring", True)


def test_a_transfer_that_nobody_takes_up_is_told_when_it_was_given_up(at: Fixture) -> None:
    at.lead()
    at.execute(Transfer("n3"))
    at.run()
    assert at.answers == []
    at.now_ms += 300
    at.raft.tick(at.now_ms)
    at.run()
    assert at.outcome() == (503, "transfer-failed", False)


def test_a_transfer_is_answered_by_whoever_leads_then(at: Fixture) -> None:
    at.lead()
    at.execute(Transfer("n3"))
    at.run()
    at.follow("n3", term=2)
    at.run()
    assert at.answers == [Answer(200, b'{"leader":"n3"}')]


def test_a_batch_that_is_applied_in_parts_is_answered_once_and_in_order(at: Fixture) -> None:
    at.lead()
    at.execute(Batch((Put("a", 1), Add("a", 1), Delete("none"))))
    at.raft.effects()
    entries = at.raft.log.since(2)
    at.service.note_office()
    at.service.apply(2, entries[:1])
    at.service.apply(3, entries[1:2])
    assert at.answers == []
    at.service.apply(4, entries[2:])
    (answer,) = at.answers
    results = msgspec.json.decode(answer.body)["results"]
    assert results[:2] == [{"revision": 1}, {"revision": 2, "value": 2}]
    assert results[2]["error"] == "not-found"


def test_a_change_of_members_is_answered_when_it_is_committed(at: Fixture) -> None:
    at.lead()
    at.execute(Change(learn={"n4": "h:1"}))
    at.run()
    assert at.answers == []
    at.raft.step("n2", AppendReply(1, 1, success=True, index=2), at.now_ms)
    at.run()
    (answer,) = at.answers
    told = {"voters": ["n1", "n2", "n3"], "learners": ["n4"]}
    assert (answer.status, msgspec.json.decode(answer.body)) == (200, told)


def test_a_second_change_before_the_first_is_committed_is_refused(at: Fixture) -> None:
    at.lead()
    at.service.execute(Change(learn={"n4": "h:1"}), lambda answer: None)
    at.execute(Change(remove=("n3",)))
    assert at.outcome() == (409, "refused-change", True)


def test_a_leader_that_lost_its_office_does_not_know_how_a_change_ended(at: Fixture) -> None:
    at.lead()
    at.execute(Change(learn={"n4": "h:1"}))
    at.run()
    at.raft.step("n3", AppendReply(2, 1, success=False, index=0), at.now_ms)
    at.run()
    assert at.outcome() == (503, "leadership-lost", False)


def test_a_node_with_a_full_disk_refuses_writes_and_serves_reads(at: Fixture) -> None:
    at.lead()
    at.service.refusal = "no room"
    at.execute(WRITE)
    assert at.outcome() == (507, "disk-full", True)
    at.answers.clear()
    at.execute(READ)
    assert at.answers == []


def test_a_leader_takes_in_no_more_than_its_followers_can_follow(at: Fixture) -> None:
    at.lead()
    at.raft.uncommitted_bytes = UNCOMMITTED_BYTES_MAX + 1
    at.execute(WRITE)
    assert at.outcome() == (503, "busy", True)
