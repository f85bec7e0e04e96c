"""The replicated state: JSON values by key. Pure and deterministic.

Commands are logged as JSON, so that `strings` on a log shows what happened. The same requests
travel from a follower to the leader; `Get` is among them but never enters the log.
"""

from typing import Any, Literal

import msgspec


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Set the key to the value."""

    key: str
    value: Any


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Remove the key."""

    key: str


class Cas(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """Set the key to `value` if it holds exactly `expect` now."""

    key: str
    expect: Any
    value: Any


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Add the value at the end of a list, or a string to a string; an absent key begins a list."""

    key: str
    value: Any


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Read the key."""

    key: str


Command = Put | Delete | Cas | Append
Request = Command | Get

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def encode_request(request: Request) -> bytes:
    """The request as one JSON array."""
    return _encoder.encode(request)


def decode_request(data: bytes) -> Request:
    """The request in `data`; raises msgspec.DecodeError or ValidationError if there is none."""
    return _decoder.decode(data)


class Outcome(msgspec.Struct, frozen=True):
    """What a request led to: `code` "ok", or why nothing was changed.

    `revision` is that of the whole store after the command; for a read, the one at which the key
    last changed. `value` is what was read, or what stood in the way of a cas or an append.
    """

    code: Literal["ok", "not-found", "mismatch", "wrong-type"]
    revision: int
    value: Any = None


class Machine:
    """The store. Every applied command that changes something raises `revision` by one."""

    def __init__(self) -> None:
        self.revision = 0
        self._values: dict[str, tuple[Any, int]] = {}

    def apply(self, command: bytes) -> Outcome:
        """Execute one committed command; the same commands in the same order give the same."""
        match decode_request(command):
            case Put(key, value):
                return self._set(key, value)
            case Delete(key):
                if self._values.pop(key, None) is None:
                    return self._absent()
                self.revision += 1
                return Outcome("ok", self.revision)
            case Cas(key, expect, value):
                held = self._values.get(key)
                if held is None:
                    return self._absent()
                if not same_json(held[0], expect):
                    return Outcome("mismatch", self.revision, held[0])
                return self._set(key, value)
            case Append(key, value):
                return self._append(key, value)
            case other:
                raise AssertionError(f"{other} has no place in the log")

    def get(self, key: str) -> Outcome:
        """The value of the key and the revision at which it last changed."""
        held = self._values.get(key)
        return self._absent() if held is None else Outcome("ok", held[1], held[0])

    def _set(self, key: str, value: Any) -> Outcome:
        self.revision += 1
        self._values[key] = (value, self.revision)
        return Outcome("ok", self.revision)

    def _append(self, key: str, value: Any) -> Outcome:
        held = self._values.get(key)
        if held is None:
            return self._set(key, [value])
        match held[0], value:
            case list() as items, _:
                # In place: an outcome that held the list was encoded before the next command.
                items.append(value)
                return self._set(key, items)
            case str() as text, str():
                return self._set(key, text + value)
            case other, _:
                return Outcome("wrong-type", self.revision, other)

    def _absent(self) -> Outcome:
        return Outcome("not-found", self.revision)


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; unlike in Python, `1`, `1.0` and `true` differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(left[k], right[k]) for k in left)
    return bool(left == right)
