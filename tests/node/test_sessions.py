"""Client sessions: a command is executed at most once, and a retry gets the first answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.node import sessions
from labrys.node.commands import Add, Append, Batch, Command, Once, OpenSession, encode_request
from labrys.node.machine import Machine
from labrys.node.outcome import Outcome
from labrys.node.sessions import SESSIONS_MAX, WINDOW

TTL_MS = 1000
ADD = Add("n", 1)


class Client:
    """One session with a machine of its own."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.index = 0
        self.id = self.open(at_ms=0)

    def apply(self, command: Once | OpenSession) -> Outcome:
        self.index += 1
        return self.machine.apply(self.index, encode_request(command))

    def open(self, at_ms: int, ttl_ms: int = TTL_MS) -> int:
        outcome = self.apply(OpenSession(ttl_ms, at_ms))
        assert outcome.code == "ok"
        return int(outcome.value)

    def send(self, seq: int, command: Command | Batch = ADD, at_ms: int = 0) -> Outcome:
        return self.apply(Once(self.id, seq, command, at_ms))

    @property
    def count(self) -> int:
        return int(self.machine.get("n").value or 0)


def test_a_retry_is_not_executed_and_gets_the_first_answer() -> None:
    client = Client()
    first = client.send(1)
    client.send(2)
    assert client.send(1) == first == Outcome("ok", 1, 1)
    assert client.count == 2


def test_also_a_refusal_is_kept() -> None:
    client = Client()
    client.send(1, Append("n", 1))
    refused = client.send(2)
    assert refused == Outcome("wrong-type", 1, [1])
    client.send(3, Append("n", 2))
    assert client.send(2) == refused


def test_commands_of_one_session_may_overtake_each_other() -> None:
    client = Client()
    client.send(5)
    assert client.send(4).value == 2
    assert client.send(5).value == 1


def test_a_batch_is_executed_once_as_a_whole() -> None:
    client = Client()
    batch = Batch((ADD, Append("n", 0), ADD))
    first = client.send(1, batch)
    assert [outcome.code for outcome in first.value] == ["ok", "wrong-type", "ok"]
    assert client.send(1, batch) == first
    assert client.count == 2


def test_a_number_used_again_for_another_command_is_refused() -> None:
    client = Client()
    client.send(1)
    assert client.send(1, Add("n", 2)).code == "seq-reused"
    assert client.count == 1


def test_what_is_far_behind_is_neither_executed_nor_called_new() -> None:
    client = Client()
    for seq in range(WINDOW + 2):
        client.send(seq)
    assert client.send(0).code == "seq-forgotten"
    assert client.send(1).code == "seq-forgotten"
    assert client.send(2).code == "ok"
    assert client.count == WINDOW + 2


def test_a_session_ends_when_nothing_was_heard_of_it_for_its_time() -> None:
    client = Client()
    assert client.send(1, at_ms=TTL_MS).code == "ok"
    assert client.send(2, at_ms=2 * TTL_MS).code == "ok"
    assert client.send(2, at_ms=3 * TTL_MS + 1).code == "session-expired"
    assert client.send(3, at_ms=0).code == "session-expired"
    assert client.count == 2


def test_a_session_that_never_was_has_ended() -> None:
    client = Client()
    client.id += 1
    assert client.send(1).code == "session-expired"


def test_the_clock_of_the_sessions_never_runs_back() -> None:
    client = Client()
    client.send(1, at_ms=900)
    client.send(2, at_ms=0)  # A new leader's clock is behind.
    assert client.machine.sessions.now_ms == 900
    assert client.send(3, at_ms=900 + TTL_MS).code == "ok"


def test_sessions_end_each_at_its_own_time() -> None:
    client = Client()
    short, long = client.open(0, TTL_MS), client.open(0, 10 * TTL_MS)
    client.open(2 * TTL_MS)
    held = client.machine.sessions.by_id
    assert short not in held
    assert long in held
    client.open(11 * TTL_MS)
    assert long not in held


def test_one_session_too_many_takes_the_place_of_the_most_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SESSIONS_MAX >= 1000
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    client = Client()
    second, third = client.open(0), client.open(0)
    client.send(1)
    fourth = client.open(0)
    assert list(client.machine.sessions.by_id) == [third, client.id, fourth]
    client.id = second
    assert client.send(1).code == "session-expired"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), max_size=60))
def test_however_often_it_is_sent_it_counts_once(sends: list[tuple[int, int]]) -> None:
    client = Client()
    answers: dict[int, Outcome] = {}
    at_ms = 0
    for seq, later_ms in sends:
        at_ms += later_ms
        outcome = client.send(seq, at_ms=at_ms)
        assert answers.setdefault(seq, outcome) == outcome
    assert client.count == len(answers)
