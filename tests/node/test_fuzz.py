"""Arbitrary input: messages with any numbers from anybody, any bytes from peers and clients.

Nothing of it may end in an error that nobody thought of, take a promise back, or change the state
of a node by more than the protocol allows.
"""

import asyncio
import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.cores import restored

from labrys.node.answers import Answer, Respond
from labrys.node.api import Api, Call
from labrys.node.http import Clients, Connection
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    Hello,
    InstallReply,
    InstallRequest,
    Message,
    RaftMessage,
    ReadReply,
    ReadRequest,
    RecallReply,
    RecallRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    encode_message,
)
from labrys.node.peers import PeerNetwork, _Incoming
from labrys.node.raft import Config, Impossible, Raft, Role

MEMBERS = ("n1", "n2", "n3")
numbers = st.integers(0, 6)
flags = st.booleans()
entries = st.lists(st.builds(Entry, st.integers(1, 6), st.just(b"x")), max_size=3).map(tuple)
messages = st.one_of(
    st.builds(VoteRequest, numbers, numbers, numbers, flags, flags),
    st.builds(VoteReply, numbers, flags, flags),
    st.builds(AppendRequest, numbers, numbers, numbers, entries, numbers, numbers),
    st.builds(AppendReply, numbers, numbers, flags, numbers, numbers, numbers),
    st.builds(InstallRequest, numbers, numbers, numbers, numbers, numbers, st.just(b"p"), flags),
    st.builds(InstallReply, numbers, numbers, numbers, st.none() | numbers),
    st.builds(TimeoutNow, numbers),
    st.builds(ReadRequest, numbers, numbers),
    st.builds(ReadReply, numbers, numbers, numbers),
    st.builds(RecallRequest, numbers),
    st.builds(RecallReply, numbers, numbers, numbers, numbers, flags),
)
steps = st.tuples(st.sampled_from(("n2", "n3", "stranger")), messages, st.integers(0, 400))


def led(core: Raft) -> int:
    """Make it the leader of its next term; when that is."""
    now_ms = core.deadline_ms
    core.tick(now_ms)
    term = core.term + 1
    for pre in (True, False):
        core.step("n2", VoteReply(term, granted=True, pre=pre), now_ms)
    assert core.role is Role.LEADER
    return now_ms


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=25), flags)
def test_any_message_from_anybody_takes_no_promise_back(
    script: list[tuple[str, RaftMessage, int]], is_led: bool
) -> None:
    log = [Entry(1, b"a"), Entry(1, b"b"), Entry(2, b"c")]
    core = Raft(Config("n1"), restored(MEMBERS, HardState(2, "n2"), log), random.Random(0), 0)
    now_ms = led(core) if is_led else 1000
    votes = {core.term: core.vote}
    for sender, message, later_ms in script:
        before = (core.term, core.commit)
        now_ms += later_ms
        try:
            core.step(sender, message, now_ms)
            core.tick(now_ms)
            effects = core.effects()
        except Impossible:
            return  # It stops, as it says it does.
        assert (core.term, core.commit) >= (before[0], before[1])
        assert core.commit >= before[1]
        assert core.applied <= core.commit <= core.log.last_index
        given_to = votes.setdefault(core.term, core.vote)
        if given_to is None:
            votes[core.term] = core.vote
        else:
            assert core.vote == given_to, f"a second vote in term {core.term}"
        if effects.persist is not None:
            core.persisted(effects.persist.term, effects.persist.last_index)


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.has_ended

    def close(self) -> None:
        self.has_ended = True

    def abort(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Wired(_Incoming):
    """A link without a socket to tune."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, _Wire)
        self._transport = transport


HELLO = encode_message(Hello("n2", "n1"))
lengths = st.one_of(st.integers(0, 40), st.just(2**32 - 1))
frames = st.tuples(lengths, st.binary(max_size=40)).map(
    lambda pair: pair[0].to_bytes(4, "big") + pair[1]
)
chunks = st.lists(st.one_of(st.binary(max_size=40), frames), max_size=6)


@settings(max_examples=200, deadline=None)
@given(chunks, flags)
def test_any_bytes_from_a_peer_are_messages_or_end_the_link(
    data: list[bytes], says_hello: bool
) -> None:
    got: list[tuple[str, Message]] = []

    async def script() -> None:
        network = PeerNetwork(
            "n1", lambda peer, message: got.append((peer, message)), lambda peer: None,
            lambda **facts: None, cluster="labrys", address=("127.0.0.1", 1),
        )  # fmt: skip
        network._peers = {"n2": ("127.0.0.1", 1)}
        wire, link = _Wire(), _Wired(network)
        link.connection_made(wire)
        if says_hello:
            link.data_received(len(HELLO).to_bytes(4, "big") + HELLO)
        for chunk in data:
            if not wire.has_ended:
                link.data_received(chunk)
        link.connection_lost(None)

    asyncio.run(script())
    assert says_hello or not got
    for peer, message in got:
        assert peer == "n2"
        assert encode_message(message)


class _Counting(Api):
    def __init__(self) -> None:
        self.calls: list[Call] = []

    def handle(self, call: Call, respond: Respond) -> None:
        self.calls.append(call)
        respond(Answer(200, b"{}"))


PIECES = st.sampled_from(
    [
        b"GET ", b"PUT ", b"/v1/kv/k", b" HTTP/1.1\r\n", b"HTTP/2", b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"\r\n",
        b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Labrys-Seq: \xff\r\n", b'{"value":1}',
        b"\r\n\r\n", b"\0",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=20), st.integers(1, 30))
def test_any_bytes_from_a_client_are_requests_or_end_the_connection(
    pieces: list[bytes], size: int
) -> None:
    data = b"".join(pieces)
    api, wire = _Counting(), _Wire()

    async def script() -> None:
        connection = Connection(api, Clients(api))
        connection.connection_made(wire)
        for start in range(0, len(data), size):
            if not wire.has_ended:
                connection.data_received(data[start : start + size])
                await asyncio.sleep(0)
        connection.connection_lost(None)

    asyncio.run(script())
    assert wire.written.count(b"HTTP/1.1 200 ") == len(api.calls)
    if wire.has_ended and not api.calls and data.strip():
        assert wire.written == b"" or wire.written.startswith(b"HTTP/1.1 ")


bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["commands", "ops", "id", "peer", "ttl_ms", "value"]), inner
        )
    ),
    max_leaves=12,
)
paths = st.sampled_from(
    ["/v1/batch", "/v1/txn", "/v1/sessions", "/v1/members", "/v1/members/x", "/v1/leader",
     "/v1/snapshot", "/v1/kv/k", "/v1/kv/k/cas", "/v1/kv/%ff", "/v1/kv/k?consistency=%00", "/",
     "/v1/status", "/set?key=a", "//", "/v1/kv/"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GET", "PUT", "POST", "DELETE", "BREW"]), paths, bodies, flags)
def test_any_request_has_one_answer_that_says_what_is_wrong(
    method: str, path: str, body: Any, has_session: bool
) -> None:
    answers: list[Answer] = []
    taken: list[object] = []

    class Node:
        def status(self) -> dict[str, object]:
            return {}

        def health(self) -> dict[str, object]:
            return {"ready": True}

        def metrics(self) -> bytes:
            return b""

        def take_snapshot(self, respond: Respond) -> None:
            respond(Answer(200, b"{}"))

        def wake(self) -> None:
            pass

    class Taking:
        def execute(self, request: object, respond: Respond) -> None:
            taken.append(request)
            respond(Answer(200, b"{}"))

        def read_stale(self, key: str) -> Answer:
            return Answer(200, b"{}")

    api = Api(Taking(), Node())  # type: ignore[arg-type]
    seq = b"7" if has_session else None
    api.handle(Call(method, path.encode(), msgspec.json.encode(body), seq, seq), answers.append)
    (answer,) = answers
    if answer.status != 200:
        told = msgspec.json.decode(answer.body)
        assert told["definite"] is True
        assert told["message"]
        assert taken == []
