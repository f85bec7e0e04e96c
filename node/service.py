"""What clients get: requests in, answers out, with the line between "did not happen" and "unknown".

A request is answered exactly once through the callback it came with:
- a write waits for its entries to be applied, or for this node to lose the office in which it was
  appended (then nobody knows whether the next leader keeps it: indefinite);
- a read waits for `Raft` to confirm it, on a follower too; when that fails it had no effect:
  definite;
- a change of members or a transfer waits until it is to be seen in what `Raft` says;
- on a follower all but reads travel to the leader it knows. Not sent is definite; sent and no
  answer is indefinite.

Everything that waits is bounded in number (`PENDING_MAX`), in bytes (`UNCOMMITTED_BYTES_MAX`) and
in time (the request timeout).
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from labrys.node.answers import (
    Answer,
    Respond,
    answer_for,
    answer_for_batch,
    answer_for_read,
    answer_for_session,
    answer_for_txn,
    fault,
)
from labrys.node.commands import (
    Batch,
    Change,
    Get,
    Once,
    OpenSession,
    Request,
    Transfer,
    Txn,
    decode_request,
)
from labrys.node.commands import encode_request as encode
from labrys.node.errors import Refused
from labrys.node.machine import Machine
from labrys.node.messages import Entry, ForwardReply, ForwardRequest, NodeId
from labrys.node.outcome import Outcome
from labrys.node.probes import Probe
from labrys.node.raft import Raft, Role

PENDING_MAX = 4096
"""Requests that may wait at one node; one more is refused, definitely without effect."""
UNCOMMITTED_BYTES_MAX = 64 << 20
"""A leader whose followers are too slow takes in no more than this."""
FORWARD_BYTES_MAX = 16 << 20
"""A longer answer (a list may grow without end) is not sent to a follower: it would take the link
for broken, and so would everybody who waits for something else on it."""


class _Waiting:
    """One request without an answer."""

    __slots__ = (
        "deadline_ms", "first", "is_read", "last", "leave", "outcomes", "request", "respond",
    )  # fmt: skip

    def __init__(
        self, request: Request, respond: Respond, leave: Callable[[], None], deadline_ms: int
    ) -> None:
        self.request = request
        self.respond: Respond | None = respond
        self.leave = leave
        self.deadline_ms = deadline_ms
        self.is_read = _is_read(request)
        self.first = self.last = 0
        """For a write: the indexes of its entries."""
        self.outcomes: list[Outcome] = []
        """For a write of several entries: those applied so far."""

    def finish(self, answer: Answer) -> None:
        respond, self.respond = self.respond, None
        if respond is not None:
            self.leave()
            respond(answer)

    def give_up(self, status: int, code: str, message: str) -> None:
        """End without knowing what became of it: harmless for a read, indefinite for the rest."""
        if self.respond is not None:
            self.finish(fault(status, code, self.is_read, message))


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
        wall_ms: Callable[[], int],
    ) -> None:
        """Request ids count from `first_id`, which must differ from life to life of a node.

        A leader may still hold a request that this node passed on before it was killed, and the
        answer to that must not be taken for the answer to a new one.
        """
        self.machine = machine
        """Replaced as a whole when a snapshot was installed."""
        self.refusal: str | None = None
        """Why nothing can be written here at present, such as a full disk."""
        self._raft = raft
        self._send = send
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._timeout_ms = timeout_ms
        self._ids = itertools.count(first_id)
        self._office: int | None = None
        """The term in which all of `_writes` were appended."""
        self._writes: deque[_Waiting] = deque()
        """In the order of their indexes."""
        self._commands: list[bytes] = []
        self._unproposed: list[_Waiting] = []
        """What came in this turn; `first` and `last` are places in `_commands` until then."""
        self._watching: list[_Waiting] = []
        """Changes of members and transfers."""
        self._reads: dict[int, _Waiting] = {}
        self._forwards: dict[int, _Waiting] = {}
        self._forwarded_to: NodeId | None = None
        """Where all of `_forwards` went."""
        self._by_deadline: deque[_Waiting] = deque()
        self.pending_count = 0
        """Requests that wait for an answer."""

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
            self._forwards[request_id] = self._wait(request, respond)
        else:
            message = f"the leader is said to be {leader}, which cannot be reached from here"
            respond(fault(503, "no-leader", True, message))

    def read_stale(self, key: str) -> Answer:
        """What this node happens to know."""
        return answer_for_read(self.machine.get(key))

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
        if self.pending_count >= PENDING_MAX:
            message = f"{PENDING_MAX} requests are waiting already; try again later"
            respond(fault(503, "busy", True, message))
            return True
        if _is_read(request):
            return self._read(request, respond)
        if self._raft.role is not Role.LEADER:
            return False
        match request:
            case Transfer() | Change():
                self._steer(request, respond)
            case _:
                self._write(request, respond)
        return True

    def _read(self, request: Request, respond: Respond) -> bool:
        read_id = next(self._ids)
        lease = isinstance(request, Get) and request.lease
        if not self._raft.read(read_id, self._now_ms(), lease=lease):
            return False
        self._reads[read_id] = self._wait(request, respond)
        return True

    def _write(self, request: Request, respond: Respond) -> None:
        if self.refusal is not None:
            respond(fault(507, "disk-full", True, self.refusal))
            return
        if self._raft.uncommitted_bytes > UNCOMMITTED_BYTES_MAX:
            message = f"{UNCOMMITTED_BYTES_MAX} bytes wait to be replicated; try again later"
            respond(fault(503, "busy", True, message))
            return
        match request:
            case Batch(commands):
                encoded = [encode(command) for command in commands]
            case Once() | OpenSession():
                encoded = [encode(msgspec.structs.replace(request, at_ms=self._wall_ms()))]
            case _:
                encoded = [encode(request)]
        waiting = self._wait(request, respond)
        waiting.first = len(self._commands)
        self._commands += encoded
        waiting.last = len(self._commands) - 1
        self._unproposed.append(waiting)

    def propose(self) -> None:
        """Append what this turn of the loop brought, all at once; before effects are taken."""
        if not self._unproposed:
            return
        commands, self._commands = self._commands, []
        unproposed, self._unproposed = self._unproposed, []
        first = self._raft.propose_all(commands)
        if first is None:
            leads = self._raft.role is Role.LEADER
            message = (
                f"{self._raft.id} {'is handing over' if leads else 'leads no more'}; try again"
            )
            answer = fault(503, "transferring" if leads else "no-leader", True, message)
            for waiting in unproposed:
                waiting.finish(answer)
            return
        # Whatever waits from an earlier office goes before these enter the queue.
        self.note_office()
        for waiting in unproposed:
            waiting.first += first
            waiting.last += first
        self._writes.extend(unproposed)

    def _steer(self, request: Transfer | Change, respond: Respond) -> None:
        try:
            match request:
                case Transfer(target):
                    self._raft.transfer(target)
                case Change():
                    self._reconfigure(request)
        except Refused as refused:
            status = 503 if refused.code in ("no-leader", "transferring") else 409
            respond(fault(status, refused.code, True, refused.message))
            return
        self._watching.append(self._wait(request, respond))

    def _reconfigure(self, change: Change) -> None:
        current = self._raft.configuration
        gone = {*change.remove}
        voters = ({*current.voters} | {*change.add}) - gone
        learners = ({*current.learners} - {*current.target} | {*change.learn}) - voters - gone
        addresses = change.add | change.learn
        self._raft.reconfigure(sorted(voters), sorted(learners), addresses)

    def _wait(self, request: Request, respond: Respond) -> _Waiting:
        deadline_ms = self._now_ms() + self._timeout_ms
        waiting = _Waiting(request, respond, self._leave, deadline_ms)
        self._by_deadline.append(waiting)
        self.pending_count += 1
        return waiting

    def _leave(self) -> None:
        self.pending_count -= 1

    # ---- answers ------------------------------------------------------------------------------

    def apply(self, first_index: int, entries: Sequence[Entry]) -> None:
        """Committed entries: execute them, and answer whoever waits at their indexes."""
        commands = [b"" if entry.is_configuration else entry.command for entry in entries]
        outcomes = self.machine.apply_all(first_index, commands)
        last_index = first_index + len(entries) - 1
        while self._writes and self._writes[0].first <= last_index:
            waiting = self._writes[0]
            start, end = waiting.first - first_index, waiting.last - first_index
            waiting.outcomes.extend(outcomes[max(0, start) : end + 1])
            if end >= len(entries):
                return  # The rest of a batch follows.
            self._writes.popleft()
            if self._is_ours(entries[end]):
                waiting.finish(_answer(waiting.request, waiting.outcomes))
            else:
                # An index is committed once, and not with this client's entry.
                self._raft.reach(Probe.WRITE_OVERWRITTEN)
                message = "another leader's command took the place of this one"
                waiting.finish(fault(503, "overwritten", True, message))

    def _is_ours(self, entry: Entry) -> bool:
        """Whether this leader appended it in its office; else it took another one's place."""
        return entry.term == self._office

    def answer_reads(self, read_ids: tuple[int, ...]) -> None:
        """These reads may be answered from what is applied now."""
        for read_id in read_ids:
            waiting = self._reads.pop(read_id, None)
            match waiting.request if waiting is not None else None:
                case Get(key):
                    answer = answer_for_read(self.machine.get(key))
                case Txn() as txn:
                    answer = answer_for_txn(self.machine.read_all(txn))
                case _:
                    continue
            assert waiting is not None
            waiting.finish(answer)

    def on_forward_reply(self, message: ForwardReply) -> None:
        """The leader's answer to a request that was passed on to it."""
        waiting = self._forwards.pop(message.request_id, None)
        if waiting is not None:
            waiting.finish(Answer(message.status, message.body))

    def observe(self) -> None:
        """Answer those who wait for the office to move or the members to change, if it has."""
        if self._watching:
            self._watching = [each for each in self._watching if not self._has_come_true(each)]

    def _has_come_true(self, waiting: _Waiting) -> bool:
        raft = self._raft
        match waiting.request:
            case Transfer():
                if raft.role is Role.LEADER:
                    if not raft.is_transferring:
                        # Nobody took over in time: this leader serves on.
                        waiting.finish(_kept_office(raft.id, waiting.request))
                        return True
                elif raft.leader is not None:
                    waiting.finish(Answer(200, msgspec.json.encode({"leader": raft.leader})))
                    return True
            case Change(add, learn, remove):
                now = raft.configuration
                done = raft.is_configuration_committed and not (now.target or now.is_joint)
                if done and {*add, *learn} <= {*now.members} and not {*remove} & {*now.members}:
                    facts = {"voters": now.voters, "learners": now.learners}
                    waiting.finish(Answer(200, msgspec.json.encode(facts)))
                    return True
        return waiting.respond is None

    # ---- when no answer will come -------------------------------------------------------------

    def note_office(self) -> None:
        """Look whether this node still holds the office in which it took writes in.

        What it appended in an earlier one may or may not survive.
        """
        office = self._raft.term if self._raft.role is Role.LEADER else None
        if office != self._office:
            self._office = office
            message = "this node stopped leading before it could answer"
            writes, self._writes = self._writes, deque()
            for waiting in (*writes, *self._changes()):
                waiting.give_up(503, "leadership-lost", message)
        if self._raft.leader is None:
            reads, self._reads = self._reads, {}
            for waiting in reads.values():
                waiting.give_up(503, "no-leader", "no leader is known here any more; try again")
        else:
            self.follow(self._raft.leader)

    def _changes(self) -> list[_Waiting]:
        changes = [each for each in self._watching if isinstance(each.request, Change)]
        self._watching = [each for each in self._watching if each not in changes]
        return changes

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
        forwards, self._forwards = self._forwards, {}
        for waiting in forwards.values():
            waiting.give_up(502, "forward-broken", why)

    def expire(self) -> None:
        """End what has waited too long, and forget what was answered in the meantime."""
        now_ms = self._now_ms()
        queue = self._by_deadline
        message = f"no result within {self._timeout_ms} ms"
        while queue and (queue[0].respond is None or queue[0].deadline_ms <= now_ms):
            queue.popleft().give_up(504, "timeout", message)
        self._reads = {n: each for n, each in self._reads.items() if each.respond}
        self._forwards = {n: each for n, each in self._forwards.items() if each.respond}

    def stop(self) -> None:
        """The node is stopping: nothing that waits will be answered any more."""
        for waiting in self._by_deadline:
            waiting.give_up(503, "stopping", "this node is stopping")


def _is_read(request: Request) -> bool:
    return isinstance(request, Get) or (isinstance(request, Txn) and request.is_read_only)


def _kept_office(leader: NodeId, request: Transfer) -> Answer:
    if request.target == leader:
        return Answer(200, msgspec.json.encode({"leader": leader}))
    message = "nobody took the leadership over in time; it may still happen"
    return fault(503, "transfer-failed", False, message)


def _answer(request: Request, outcomes: Sequence[Outcome]) -> Answer:
    command = request.command if isinstance(request, Once) else request
    if isinstance(command, Batch):
        if isinstance(request, Once):
            (outcome,) = outcomes
            if outcome.code != "ok":
                return answer_for(outcome)
            outcomes = outcome.value
        return answer_for_batch(outcomes)
    (outcome,) = outcomes
    match command:
        case Txn():
            return answer_for_txn(outcome)
        case OpenSession():
            return answer_for_session(outcome)
        case _:
            return answer_for(outcome)
