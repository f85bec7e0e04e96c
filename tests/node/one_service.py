"""A service alone, with what it answers and sends recorded."""

import random
from typing import Any

import msgspec
from tests.node.cores import restored

from labrys.node.answers import Answer
from labrys.node.commands import Request
from labrys.node.machine import Machine
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    ForwardReply,
    ForwardRequest,
    HardState,
    VoteReply,
)
from labrys.node.raft import Config, Raft, Role
from labrys.node.service import Service


class Fixture:
    """A service on node n1 of three, with every answer and every forwarded message recorded."""

    def __init__(self, first_id: int = 1, kind: type[Service] = Service) -> None:
        self.raft = Raft(
            Config("n1"), restored(("n1", "n2", "n3"), HardState(), []), random.Random(0), now_ms=0
        )
        self.now_ms = 1000
        self.link_is_up = True
        self.sent: list[tuple[str, ForwardRequest | ForwardReply]] = []
        self.answers: list[Answer] = []
        self.service = kind(
            self.raft, Machine(), self.send, lambda: self.now_ms, 5000, first_id,
            wall_ms=lambda: self.now_ms,
        )  # fmt: skip

    def send(self, peer: str, message: ForwardRequest | ForwardReply) -> bool:
        if self.link_is_up:
            self.sent.append((peer, message))
        return self.link_is_up

    def execute(self, request: Request) -> None:
        self.service.execute(request, self.answers.append)
        self.service.propose()

    def follow(self, leader: str, term: int = 1) -> None:
        self.raft.step(leader, AppendRequest(term, 0, 0, (), 0, 1), self.now_ms)

    def lead(self) -> None:
        """Become leader with the no-op committed."""
        self.raft.tick(self.now_ms)
        self.raft.step("n2", VoteReply(1, granted=True, pre=True), self.now_ms)
        self.raft.step("n2", VoteReply(1, granted=True, pre=False), self.now_ms)
        self.raft.step("n2", AppendReply(1, 1, success=True, index=1), self.now_ms)
        self.run()
        assert self.raft.role is Role.LEADER

    def run(self) -> None:
        """Carry out effects until nothing is left, as the server does."""
        for _ in range(3):
            self.service.propose()
            effects = self.raft.effects()
            if effects.persist is not None:
                self.raft.persisted(effects.persist.term, effects.persist.last_index)
            if effects.committed:
                self.service.apply(effects.first_committed, effects.committed)
            self.service.answer_reads(effects.reads)
            self.service.observe()
            self.service.note_office()

    def outcome(self) -> tuple[int, str, bool]:
        """Status, code and definiteness of the only answer."""
        (answer,) = self.answers
        body: dict[str, Any] = msgspec.json.decode(answer.body)
        return answer.status, body["error"], body["definite"]
