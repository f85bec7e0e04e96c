"""What a client is told: statuses, bodies, and whether an error promises that nothing happened."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from labrys.node.outcome import Code, Outcome

JSON = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """An HTTP status and a body."""

    status: int
    body: bytes
    content_type: str = JSON


Respond = Callable[[Answer], None]

_REFUSALS: dict[Code, tuple[int, bool, str]] = {
    "not-found": (404, True, "the key does not exist"),
    "mismatch": (409, True, "the key holds another value"),
    "wrong-type": (409, True, "the value that the key holds does not allow this"),
    "session-expired": (
        410, True, "the session has ended; this command was not executed now, but if it was sent "
        "before it may have been then",
    ),
    "seq-reused": (409, True, "this number was used in the session for another command"),
    "seq-forgotten": (
        409, False, "this number is so far behind the newest of the session that its outcome, if "
        "it had one, is not kept any more",
    ),
}  # fmt: skip
_WITH_ACTUAL = ("mismatch", "wrong-type")
_encode = msgspec.json.Encoder().encode


def fault(status: int, code: str, definite: bool, message: str, **more: Any) -> Answer:
    """An error as DESIGN 3.4 has it; `definite` promises that there was and will be no effect."""
    facts = {"error": code, "definite": definite, "message": message, **more}
    return Answer(status, _encode(facts))


def answer_for(outcome: Outcome) -> Answer:
    """How the outcome of one write is told: with a value if it led to one."""
    if outcome.code != "ok":
        return _refusal(outcome)
    return Answer(200, b"".join(_told(outcome)))


def answer_for_read(outcome: Outcome) -> Answer:
    """How the outcome of reading one key is told: its value always, null included."""
    if outcome.code != "ok":
        return _refusal(outcome)
    return Answer(200, _encode({"value": outcome.value, "revision": outcome.revision}))


def answer_for_session(outcome: Outcome) -> Answer:
    """The id of the session that was opened."""
    return Answer(200, b'{"session":%d}' % outcome.value)


def answer_for_txn(outcome: Outcome) -> Answer:
    """What a transaction read and wrote, op by op."""
    if outcome.code != "ok":
        return _refusal(outcome)
    return Answer(200, _encode({"revision": outcome.revision, "results": outcome.value}))


def answer_for_batch(outcomes: Sequence[Outcome]) -> Answer:
    """What became of each command of a batch, in order."""
    results = [b"".join(_told(outcome)) for outcome in outcomes]
    return Answer(200, b'{"results":[%b]}' % b",".join(results))


def _told(outcome: Outcome) -> tuple[bytes, ...]:
    # By hand, because there may be thousands in one answer.
    if outcome.code != "ok":
        return (_refusal(outcome).body,)
    if outcome.value is None:
        return (b'{"revision":%d}' % outcome.revision,)
    return (b'{"revision":%d,"value":' % outcome.revision, _encode(outcome.value), b"}")


def _refusal(outcome: Outcome) -> Answer:
    status, definite, message = _REFUSALS[outcome.code]
    actual = {"actual": outcome.value} if outcome.code in _WITH_ACTUAL else {}
    return fault(status, outcome.code, definite, message, **actual)
