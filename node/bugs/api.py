"""Faults between the core and the clients: in the service and in the HTTP API."""

from collections import deque
from collections.abc import Sequence

import msgspec

from labrys.node.answers import Answer, Respond, answer_for
from labrys.node.api import Api, Call
from labrys.node.bugs.variant import variant
from labrys.node.commands import Cas, Put, Request
from labrys.node.commands import encode_request as encode
from labrys.node.machine import same_json
from labrys.node.messages import Entry, ForwardReply, ForwardRequest
from labrys.node.outcome import Outcome
from labrys.node.service import Service


class UnknownAsFailure(Api):
    """Says that a request failed for sure when nobody knows what became of it.

    Seen in: clients and proxies of many stores, which turn a timeout into a failure.
    Seen by: linearizable
    """

    def handle(self, call: Call, respond: Respond) -> None:
        def certain(answer: Answer) -> None:
            respond(Answer(answer.status, answer.body.replace(_INDEFINITE, _DEFINITE)))

        super().handle(call, certain)


_INDEFINITE, _DEFINITE = b'"definite":false', b'"definite":true'


class CasAtPropose(Service):
    """Compares when it takes a compare-and-set in, and then only sets.

    What is still on its way through the log is not seen.

    Seen in: a class of bugs of stores that check a condition before they replicate.
    Seen by: linearizable
    """

    def _write(self, request: Request, respond: Respond) -> None:
        if isinstance(request, Cas):
            held = self.machine.get(request.key)
            if held.code != "ok" or not same_json(held.value, request.expect):
                code = "mismatch" if held.code == "ok" else held.code
                respond(answer_for(Outcome(code, held.revision, held.value)))
                return
            request = Put(request.key, request.value)
        super()._write(request, respond)


class AnswerByIndex(Service):
    """Tells whoever waits at an index that it succeeded, whatever entry was committed there.

    A deposed leader answers so for entries that another one has overwritten.

    Seen in: a class of bugs of services on top of Raft; goraft, whose clients wait for an index,
    waits for ever instead.
    Seen by: linearizable
    """

    def note_office(self) -> None:
        writes, self._writes = self._writes, deque()
        super().note_office()
        self._writes = writes

    def propose(self) -> None:
        super().propose()
        self._writes = deque(sorted(self._writes, key=lambda waiting: waiting.first))

    def apply(self, first_index: int, entries: Sequence[Entry]) -> None:
        # What a snapshot has passed over meanwhile waits for the timeout.
        self._writes = deque(each for each in self._writes if each.first >= first_index)
        super().apply(first_index, entries)

    def _is_ours(self, entry: Entry) -> bool:
        return True


class AckOnForward(Service):
    """A follower answers a write with success as soon as it has passed it on to the leader.

    Seen in: a class of bugs: a proxy that answers before the one behind it.
    Seen by: linearizable
    """

    def _forward(self, request: Request, respond: Respond) -> None:
        leader = self._raft.leader
        if isinstance(request, Put) and leader is not None and leader != self._raft.id:
            forward = ForwardRequest(next(self._ids), encode(request))
            if self._send(leader, forward):
                respond(Answer(200, b'{"revision":0}'))
                return
        super()._forward(request, respond)


class MixReplies(Service):
    """Takes a leader's answer for that to the oldest request that waits for one.

    Seen in: a class of bugs of proxies that count on answers in the order of the questions.
    Seen by: linearizable
    """

    def on_forward_reply(self, message: ForwardReply) -> None:
        if self._forwards:
            oldest = next(iter(self._forwards))
            super().on_forward_reply(msgspec.structs.replace(message, request_id=oldest))


BUGS = {
    "unknown-as-failure": variant("what nobody knows is called a failure", UnknownAsFailure),
    "cas-at-propose": variant("a cas compares before its place in the log is known", CasAtPropose),
    "answer-by-index": variant("any entry at its index answers a write", AnswerByIndex),
    "ack-on-forward": variant("a follower answers writes that it passed on", AckOnForward),
    "mix-replies": variant("a follower mixes up the leader's answers", MixReplies),
}
