"""What nodes say to each other and keep on disk, as values.

Raft messages name no sender: a link belongs to one peer, and the shell passes that peer's name to
`Raft.step`. On the wire each message is one MessagePack array whose first element is its tag.
"""

import msgspec

NodeId = str


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry: the term in which a leader made it and the command, empty for a no-op."""

    term: int
    command: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be on disk before a node answers (figure 2, "persistent state")."""

    term: int = 0
    vote: NodeId | None = None


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """RequestVote (section 5.2); with `pre` only the question whether one would be granted.

    A pre-vote (dissertation 9.6) names the term its sender *would* campaign in.
    """

    term: int
    last_index: int
    last_term: int
    pre: bool


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The voter's term; a granted pre-vote repeats the term that was asked about."""

    term: int
    granted: bool
    pre: bool


class AppendRequest(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """AppendEntries (section 5.3); a heartbeat when `entries` is empty.

    `round` counts the leader's broadcasts. The reply repeats it, so a read is confirmed only by
    replies to requests that left after the read arrived (dissertation 6.4).
    """

    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int
    round: int


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Success: the log agrees with the leader's up to `index`. Failure: it does not at `index`.

    A failure carries the hints of section 5.3's fast back-up: the follower's term at `index` and
    the first index it holds of that term, or term 0 and its log's end + 1 when it has no `index`.

    Rounds count from 1; round 0 refuses a request of an older term and tells the newer one only.
    """

    term: int
    round: int
    success: bool
    index: int
    hint_index: int = 0
    hint_term: int = 0


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The first message on a link: who speaks, and to whom they believe they speak."""

    sender: NodeId
    target: NodeId


class ForwardRequest(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A client's request that reached a follower; `request` is encoded by `machine`."""

    request_id: int
    request: bytes


class ForwardReply(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The leader's answer to a forwarded request, as it would have given it to the client."""

    request_id: int
    status: int
    body: bytes


RaftMessage = VoteRequest | VoteReply | AppendRequest | AppendReply
Message = RaftMessage | Hello | ForwardRequest | ForwardReply

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """The message as MessagePack, without framing."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """The message in `data`; raises msgspec.DecodeError on anything that is not one."""
    return _decoder.decode(data)
