"""A client with a session: what it sends again, and what it makes of the answers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from labrys.workloads.client import DefiniteError, IndefiniteError, UnavailableError
from labrys.workloads.sessions import ATTEMPTS, SessionClient

OPENED: dict[str, Any] = {"session": 7}
TIMEOUT = IndefiniteError("timeout")
NO_LEADER = UnavailableError("no-leader")


class Scripted(SessionClient):
    """Gets these outcomes, one for each request; the last one again and again."""

    def __init__(self, *outcomes: dict[str, Any] | Exception, takes_s: float = 0.0) -> None:
        self.now_s = 0.0
        super().__init__(
            "http://n1:8000", sleep=self.sleep, clock=lambda: self.now_s, timeout_s=2.0
        )
        self.outcomes = list(outcomes)
        self.takes_s = takes_s
        self.sent: list[tuple[str, str | None, str | None]] = []
        """Path, session and number."""

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _send(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout_s: float
    ) -> dict[str, Any]:
        self.now_s += min(self.takes_s, timeout_s)
        self.sent.append((path, headers.get("Labrys-Session"), headers.get("Labrys-Seq")))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_the_first_write_opens_a_session_and_each_write_has_a_number() -> None:
    client = Scripted(OPENED, {})
    client.put("k", 1)
    client.cas("k", 1, 2)
    assert client.sent == [
        ("/v1/sessions", None, None),
        ("/v1/kv/k", "7", "1"),
        ("/v1/kv/k/cas", "7", "2"),
    ]


def test_a_read_has_no_session_and_is_not_sent_again() -> None:
    client = Scripted(TIMEOUT)
    with pytest.raises(IndefiniteError):
        client.get("k")
    assert len(client.sent) == 1


def test_a_write_is_sent_again_with_its_number_until_the_outcome_is_known() -> None:
    client = Scripted(OPENED, TIMEOUT, NO_LEADER, {})
    client.put("k", 1)
    assert client.sent[1:] == [("/v1/kv/k", "7", "1")] * 3


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([NO_LEADER], UnavailableError),
        ([TIMEOUT, NO_LEADER], IndefiniteError),
        ([TIMEOUT, DefiniteError("mismatch")], DefiniteError),
        ([DefiniteError("session-expired")], DefiniteError),
        ([TIMEOUT, DefiniteError("session-expired")], IndefiniteError),
    ],
    ids=["refused", "lost, then refused", "lost, then answered", "expired", "lost, then expired"],
)
def test_what_an_attempt_is_told_says_nothing_of_those_before(
    outcomes: list[Exception], expected: type[Exception]
) -> None:
    client = Scripted(OPENED, *outcomes)
    with pytest.raises(expected) as caught:
        client.put("k", 1)
    assert type(caught.value) is expected


def test_an_expired_session_is_replaced() -> None:
    client = Scripted(OPENED, DefiniteError("session-expired"), {"session": 8}, {})
    with pytest.raises(DefiniteError):
        client.put("k", 1)
    client.put("k", 2)
    assert client.sent[-1] == ("/v1/kv/k", "8", "2")


@pytest.mark.parametrize("opened", [TIMEOUT, {}, {"session": "7"}])
def test_without_a_session_a_write_is_not_sent(opened: Any) -> None:
    client = Scripted(opened)
    with pytest.raises(DefiniteError, match="no-session"):
        client.put("k", 1)
    assert [path for path, _, _ in client.sent] == ["/v1/sessions"]


def test_attempts_end_with_the_time_for_the_operation() -> None:
    client = Scripted(OPENED, TIMEOUT, takes_s=10.0)
    with pytest.raises(IndefiniteError):
        client.put("k", 1)
    assert len(client.sent) <= 1 + ATTEMPTS
    assert client.now_s <= 2.0 + 2.0 / ATTEMPTS, "the write, after the opening"


@pytest.mark.parametrize("write", [lambda kv: kv.append("k", 1), lambda kv: kv.delete("k")])
def test_all_writes_belong_to_the_session(write: Callable[[SessionClient], None]) -> None:
    client = Scripted(OPENED, {})
    write(client)
    assert client.sent[-1][1:] == ("7", "1")
