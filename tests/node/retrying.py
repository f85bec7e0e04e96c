"""A client that sends everything several times, to anybody, and counts what became of it.

Each command of its session adds 1 to a counter, and stands in the log as often as it happened to be
proposed and committed. Whatever the schedule, each counts once, and a retry gets the first answer.
"""

import random

from labrys.node.commands import Add, Once, OpenSession, encode_request
from labrys.node.machine import Machine
from labrys.node.outcome import Outcome

RETRIED = 6
"""How far back it sends commands again."""
_SESSION = 1
_COUNTER = Add("counter", 1)


class RetryingClient:
    """Its commands, and a store that executes what is committed, in that order."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.machine.apply(_SESSION, encode_request(OpenSession(86_400_000, 0)))
        self.newest = 0
        self.answers: dict[int, Outcome] = {}
        self.duplicates = 0

    def command(self, rng: random.Random, now_ms: int) -> bytes:
        """The next command, or one that was sent before."""
        seq = self.newest + 1
        if self.newest and rng.random() < 0.6:
            seq = max(1, self.newest - rng.randrange(RETRIED))
        self.newest = max(self.newest, seq)
        return encode_request(Once(_SESSION, seq, _COUNTER, now_ms))

    def is_own(self, command: bytes) -> bool:
        """Whether the command is this client's."""
        return command.startswith(b'["once"')

    def execute(self, index: int, command: bytes) -> str | None:
        """One of its commands is committed; what is wrong with what came of it, if anything."""
        seq = int(command.split(b",")[2])
        if index % 7 == 0:  # As on a node that went on from a snapshot.
            self.machine = Machine.restored(self.machine.freeze().records())
        outcome = self.machine.apply(_SESSION + index, command)
        if seq in self.answers:
            self.duplicates += 1
        first = self.answers.setdefault(seq, outcome)
        if outcome != first:
            return f"number {seq} was answered {first} and then {outcome}"
        count = self.machine.get("counter").value
        if count != len(self.answers):
            return f"{len(self.answers)} commands were counted as {count}"
        return None
