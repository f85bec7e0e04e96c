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
    is_configuration: bool = False
    """The command is a `configuration.Configuration`, for Raft itself and not for the store."""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be on disk before a node answers (figure 2, "persistent state")."""

    term: int = 0
    vote: NodeId | None = None
    is_observer: bool = False
    """The node does not know yet what it promised before; see `recall`."""


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """RequestVote (section 5.2); with `pre` only the question whether one would be granted.

    A pre-vote (dissertation 9.6) names the term its sender *would* campaign in.
    """

    term: int
    last_index: int
    last_term: int
    pre: bool
    is_transfer: bool = False
    """The leader itself asked the sender to take over: no reason to be loyal (3.10)."""


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


class InstallRequest(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """InstallSnapshot (section 7): one piece of the snapshot that ends at `index`.

    The core leaves `data` empty; whoever sends it fills in up to the configured number of bytes of
    the snapshot file from `offset` on, and `is_last` with them.
    """

    term: int
    round: int
    index: int
    index_term: int
    offset: int
    data: bytes = b""
    is_last: bool = False


class InstallReply(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """The follower wants `offset` next of the snapshot at `index`; None when it needs no more."""

    term: int
    round: int
    index: int
    offset: int | None


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The leader hands over: campaign at once (dissertation 3.10)."""

    term: int


class ReadRequest(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """A follower asks for an index as of now, for all reads in its batch (dissertation 6.4)."""

    term: int
    batch: int


class ReadReply(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Reads of the batch may be answered where `index` is applied."""

    term: int
    batch: int
    index: int


class RecallRequest(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """A node whose data is new asks what it may have promised in an earlier life; see `recall`."""

    nonce: int


class RecallReply(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """What the sender's disk knows; `is_observer` when it asks the same question itself."""

    nonce: int
    term: int
    last_index: int
    last_term: int
    is_observer: bool


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The first message on a link: who speaks, and to whom they believe they speak.

    `address` is where the sender listens for peers, so that a node which is just joining and knows
    nobody can answer.
    """

    sender: NodeId
    target: NodeId
    cluster: str = "labrys"
    address: str = ""


class ForwardRequest(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A client's request that reached a follower; `request` is encoded by `machine`."""

    request_id: int
    request: bytes


class ForwardReply(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The leader's answer to a forwarded request, as it would have given it to the client."""

    request_id: int
    status: int
    body: bytes


class StateReport(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """A node's state hash after it applied `index`, for the corruption check; see `audit`."""

    index: int
    state_hash: int


class Diverged(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """A majority has another state at `index` than the receiver: it must stop; see `audit`."""

    index: int
    state_hash: int
    """The majority's."""


RaftMessage = (
    VoteRequest
    | VoteReply
    | AppendRequest
    | AppendReply
    | InstallRequest
    | InstallReply
    | TimeoutNow
    | ReadRequest
    | ReadReply
    | RecallRequest
    | RecallReply
)
Message = RaftMessage | Hello | ForwardRequest | ForwardReply | StateReport | Diverged

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """The message as MessagePack, without framing."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """The message in `data`; raises msgspec.DecodeError on anything that is not one."""
    return _decoder.decode(data)
