"""What clients get: requests in, answers out, with the line between "did not happen" and "unknown".

A request is answered exactly once through the callback it came with:
- a write waits for its entry to be applied, or for this node to lose the office in which it was
  appended (then nobody knows whether the next leader keeps it: indefinite);
- a read waits for `Raft` to confirm it; when that fails it had no effect: definite;
- on a follower both travel to the leader it knows. Not sent is definite; sent and no answer is
  indefinite for a write.

Everything that waits is bounded in number (`PENDING_MAX`) and in time (the request timeout).
"""

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from labrys.node.machine import Get, Machine, Outcome, Request, decode_request
from labrys.node.machine import encode_request as encode
from labrys.node.messages import Entry, ForwardReply, ForwardRequest, NodeId
from labrys.node.raft import NO_OP, Raft

PENDING_MAX = 4096
"""Requests that may wait at one node; one more is refused, definitely without effect."""
FORWARD_BYTES_MAX = 16 << 20
"""A longer answer (a list may grow without end) is not sent to a follower: it would take the link
for broken, and so would everybody who waits for something else on it."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP status and a JSON body."""

    status: int
    body: bytes


Respond = Callable[[Answer], None]


def fault(status: int, code: str, definite: bool, message: str, **more: Any) -> Answer:
    """An error as DESIGN 3.4 has it; `definite` promises that there was and will be no effect."""
    facts = {"error": code, "definite": definite, "message": message, **more}
    return Answer(status, msgspec.json.encode(facts))


def answer_for(outcome: Outcome, *, read: bool) -> Answer:
    """How an outcome of the state machine is told to a client."""
    match outcome.code:
        case "ok" if read:
            facts = {"value": outcome.value, "revision": outcome.revision}
            return Answer(200, msgspec.json.encode(facts))
        case "ok":
            return Answer(200, b'{"revision":%d}' % outcome.revision)
        case "not-found":
            return fault(404, "not-found", True, "the key does not exist")
        case "mismatch":
            message = "the key holds another value"
            return fault(409, "mismatch", True, message, actual=outcome.value)
        case "wrong-type":
            message = "only lists, and strings to strings, can be appended to"
            return fault(409, "wrong-type", True, message, actual=outcome.value)


class _Waiting:
    """One request without an answer, in the table of its kind until it gets one, at most once."""

    __slots__ = ("deadline_ms", "is_write", "key", "number", "respond", "table", "term")

    def __init__(self, request: Request, respond: Respond, deadline_ms: int) -> None:
        self.respond: Respond | None = respond
        self.deadline_ms = deadline_ms
        self.is_write = not isinstance(request, Get)
        self.key = request.key

    def enter(self, table: "dict[int, _Waiting]", number: int, term: int) -> None:
        """Wait under this number; `term` is the one that the answer depends on."""
        self.table, self.number, self.term = table, number, term
        table[number] = self

    def finish(self, answer: Answer) -> None:
        respond, self.respond = self.respond, None
        if respond is not None:
            del self.table[self.number]
            respond(answer)

    def give_up(self, status: int, code: str, message: str) -> None:
        """End without knowing what became of it: harmless for a read, indefinite for a write."""
        self.finish(fault(status, code, not self.is_write, message))


class Service:
    """The requests of one node's clients and of the followers that forward to it."""

    def __init__(
        self,
        raft: Raft,
        machine: Machine,
        send: Callable[[NodeId, ForwardRequest | ForwardReply], bool],
        now_ms: Callable[[], int],
        timeout_ms: int,
        first_id: int,
    ) -> None:
        """Request ids count from `first_id`, which must differ from life to life of a node.

        A leader may still hold a request that this node passed on before it was killed, and the
        answer to that must not be taken for the answer to a new one.
        """
        self._raft = raft
        self._machine = machine
        self._send = send
        self._now_ms = now_ms
        self._timeout_ms = timeout_ms
        self._ids = itertools.count(first_id)
        self._writes: dict[int, _Waiting] = {}
        """By log index; all appended in this node's current term of office."""
        self._reads: dict[int, _Waiting] = {}
        self._forwards: dict[int, _Waiting] = {}
        self._forwarded_to: NodeId | None = None
        """Where all of `_forwards` went."""
        self._by_deadline: deque[_Waiting] = deque()

    # ---- requests -----------------------------------------------------------------------------

    def execute(self, request: Request, respond: Respond) -> None:
        """Serve a client's request here, or by the leader if that is another node."""
        if not self._serve(request, respond):
            self._forward(request, respond)

    def _forward(self, request: Request, respond: Respond) -> None:
        leader = self._raft.leader
        if leader is None or leader == self._raft.id:
            respond(fault(503, "no-leader", True, "no leader is known here; try again"))
            return
        self.follow(leader)
        request_id = next(self._ids)
        if self._send(leader, ForwardRequest(request_id, encode(request))):
            self._wait(request, respond, self._forwards, request_id)
        else:
            message = f"the leader is said to be {leader}, which cannot be reached from here"
            respond(fault(503, "no-leader", True, message))

    def read_stale(self, key: str) -> Answer:
        """What this node happens to know."""
        return answer_for(self._machine.get(key), read=True)

    def on_forward(self, peer: NodeId, message: ForwardRequest) -> None:
        """A follower passes on a client's request. It is served here or not at all: one hop."""
        request_id = message.request_id

        def respond(answer: Answer) -> None:
            if len(answer.body) > FORWARD_BYTES_MAX:
                # Only a value that was read or stood in the way is that long: nothing was changed.
                message = f"the value has {len(answer.body)} bytes: ask the leader {self._raft.id}"
                answer = fault(500, "too-large", True, message)
            # If the link is down the follower notices by itself and calls the result unknown.
            self._send(peer, ForwardReply(request_id, answer.status, answer.body))

        try:
            request = decode_request(message.request)
        except msgspec.MsgspecError as error:
            respond(fault(400, "bad-request", True, f"unreadable forwarded request: {error}"))
            return
        if not self._serve(request, respond):
            respond(fault(503, "no-leader", True, f"{self._raft.id} does not lead any more"))

    def _serve(self, request: Request, respond: Respond) -> bool:
        """Take the request in, or refuse it when too busy; False if another node must serve it."""
        if len(self._writes) + len(self._reads) + len(self._forwards) >= PENDING_MAX:
            message = f"{PENDING_MAX} requests are waiting already; try again later"
            respond(fault(503, "busy", True, message))
        elif isinstance(request, Get):
            read_id = next(self._ids)
            if not self._raft.read(read_id, self._now_ms()):
                return False
            self._wait(request, respond, self._reads, read_id)
        else:
            index = self._raft.propose(encode(request))
            if index is None:
                return False
            self._wait(request, respond, self._writes, index)
        return True

    def _wait(
        self, request: Request, respond: Respond, table: dict[int, _Waiting], number: int
    ) -> None:
        waiting = _Waiting(request, respond, self._now_ms() + self._timeout_ms)
        waiting.enter(table, number, self._raft.term)
        self._by_deadline.append(waiting)

    # ---- answers ------------------------------------------------------------------------------

    def apply(self, index: int, entry: Entry) -> None:
        """A committed entry: execute it, and answer whoever waits at its index."""
        is_raft_own = entry.is_configuration or entry.command == NO_OP
        outcome = None if is_raft_own else self._machine.apply(entry.command)
        waiting = self._writes.get(index)
        if waiting is None:
            return
        if waiting.term == entry.term and outcome is not None:
            waiting.finish(answer_for(outcome, read=False))
        else:
            # An index is committed once, and not with this client's entry.
            message = "another leader's command took the place of this one"
            waiting.finish(fault(503, "overwritten", True, message))

    def answer_reads(self, read_ids: tuple[int, ...]) -> None:
        """These reads may be answered from what is applied now."""
        for read_id in read_ids:
            waiting = self._reads.get(read_id)
            if waiting is not None:
                waiting.finish(answer_for(self._machine.get(waiting.key), read=True))

    def on_forward_reply(self, message: ForwardReply) -> None:
        """The leader's answer to a request that was passed on to it."""
        waiting = self._forwards.get(message.request_id)
        if waiting is not None:
            waiting.finish(Answer(message.status, message.body))

    # ---- when no answer will come -------------------------------------------------------------

    def lose_office(self) -> None:
        """This node stopped leading: what it appended may or may not survive."""
        for waiting in list(self._writes.values()):
            message = "this node stopped leading before it could answer"
            waiting.give_up(503, "leadership-lost", message)
        if self._raft.leader is None:
            for waiting in list(self._reads.values()):
                waiting.give_up(503, "no-leader", "no leader is known here any more; try again")

    def follow(self, leader: NodeId) -> None:
        """This is the leader now: one that was asked before may never answer."""
        if leader != self._forwarded_to:
            self._break_forwards(f"{self._forwarded_to} was replaced by {leader} as leader")
            self._forwarded_to = leader

    def lose_link(self, peer: NodeId) -> None:
        """A link to or from a peer broke: requests that went to it may stay unanswered."""
        if peer == self._forwarded_to:
            self._break_forwards(f"the link to the leader {peer} broke")

    def _break_forwards(self, why: str) -> None:
        for waiting in list(self._forwards.values()):
            waiting.give_up(502, "forward-broken", why)

    def expire(self) -> None:
        """End what has waited too long, and forget what was answered in the meantime."""
        now_ms = self._now_ms()
        queue = self._by_deadline
        while queue and (queue[0].respond is None or queue[0].deadline_ms <= now_ms):
            message = f"no result within {self._timeout_ms} ms"
            queue.popleft().give_up(504, "timeout", message)

    def stop(self) -> None:
        """The node is stopping: nothing that waits will be answered any more."""
        for waiting in self._by_deadline:
            waiting.give_up(503, "stopping", "this node is stopping")
