"""What clients ask for, as values, and how it stands in the log and travels between nodes.

Everything is a JSON array that begins with a word, so that `strings` on a log shows what happened.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

Key = Annotated[str, msgspec.Meta(min_length=1)]
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

Ops = tuple[tuple[Literal["r", "w", "append"], Key, Any], ...]


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Set the key to the value."""

    key: Key
    value: Any


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Remove the key."""

    key: Key


class Cas(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """Set the key to `value` if it holds exactly `expect` now."""

    key: Key
    expect: Any
    value: Any


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Add the value at the end of a list, or a string to a string; an absent key begins a list."""

    key: Key
    value: Any


class Add(msgspec.Struct, frozen=True, array_like=True, tag="add"):
    """Add to a whole number; an absent key counts as 0."""

    key: Key
    delta: _Integer


class Txn(msgspec.Struct, frozen=True, array_like=True, tag="txn"):
    """Reads ("r", key, null), writes ("w", key, value) and appends, all of them or none."""

    ops: Ops

    @property
    def is_read_only(self) -> bool:
        """Whether it changes nothing and so needs no place in the log."""
        return all(word == "r" for word, _, _ in self.ops)


Command = Put | Delete | Cas | Append | Add | Txn


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="batch"):
    """Several commands, each for itself, one after the other."""

    commands: tuple[Command, ...]


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Begin a session that ends when nothing is heard of it for `ttl_ms`.

    `at_ms` is the wall clock of the leader that took it in; see `sessions`.
    """

    ttl_ms: int
    at_ms: int = 0


class Once(msgspec.Struct, frozen=True, array_like=True, tag="once"):
    """A command that is executed at most once, however often it stands in the log."""

    session: int
    seq: int
    command: Command | Batch
    at_ms: int = 0


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Read the key; with `lease` a leader trusts its lease instead of asking. Never in the log."""

    key: Key
    lease: bool = False


class Transfer(msgspec.Struct, frozen=True, array_like=True, tag="transfer"):
    """Hand the leadership over, to anybody when no target is named. Never in the log."""

    target: str | None


class Change(msgspec.Struct, frozen=True, array_like=True, tag="change"):
    """Let servers come, each with where it listens for peers, and go. Never in the log."""

    add: dict[str, str] = {}
    learn: dict[str, str] = {}
    """Those who receive the log and do not vote."""
    remove: tuple[str, ...] = ()


Logged = Command | OpenSession | Once
"""What one log entry may hold."""
Request = Logged | Batch | Get | Transfer | Change

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_logged_decoder: msgspec.json.Decoder[list[Logged | None]] = msgspec.json.Decoder(
    list[Logged | None]
)


def encode_request(request: Request) -> bytes:
    """The request as one JSON array."""
    return _encoder.encode(request)


def decode_request(data: bytes) -> Request:
    """The request in `data`; raises msgspec.DecodeError or ValidationError if there is none."""
    return _decoder.decode(data)


def decode_logged(commands: Iterable[bytes]) -> list[Logged | None]:
    """The commands of log entries, None for an empty one.

    All in one go, because that is several times faster than one by one.
    """
    return _logged_decoder.decode(b"[%b]" % b",".join([each or b"null" for each in commands]))
