"""The replicated state: JSON values by key, and client sessions. Pure and deterministic.

Lists grow in place, because a workload that appends to one list a thousand times must not copy it a
thousand times. So nothing that leaves this module may hold a list of the store itself: outcomes get
a copy, and a frozen state remembers how long each list was.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import msgspec

from labrys.node.commands import (
    Add,
    Append,
    Batch,
    Cas,
    Command,
    Delete,
    Logged,
    Once,
    OpenSession,
    Put,
    Txn,
    decode_logged,
    encode_request,
)
from labrys.node.outcome import Outcome
from labrys.node.probes import Probe, Reach, unheeded
from labrys.node.sessions import Kept, Sessions

INTEGER_MAX = 2**63 - 1
"""A sum beyond it, or below its negative, is refused: other languages' JSON could not hold it."""
RECORD_KEYS = 500
"""Keys in one record of a frozen state; encoding one must not hold up the node."""
_encode = msgspec.json.Encoder().encode
_MASK = 2**64 - 1


class _Cell(msgspec.Struct, frozen=True, gc=False):
    value: Any
    revision: int
    digest: int
    """A checksum of the value; that of a list can be continued with one more item."""
    count: int
    """Items of the list at this revision; it may have grown since. 0 if it is no list."""


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first record of a frozen state."""

    revision: int
    state_hash: int
    sessions: Sessions


class Unsound(Exception):
    """Records that are not the state they say they are."""


class Frozen:
    """A state at one moment, to be written down while the machine goes on, from any thread."""

    def __init__(self, facts: _Facts, cells: dict[str, _Cell]) -> None:
        self._facts = facts
        self._cells = cells

    def records(self) -> Iterator[bytes]:
        """The state in pieces that `Machine.restored` understands."""
        yield _encode(self._facts)
        cells = iter(self._cells.items())
        while batch := list(islice(cells, RECORD_KEYS)):
            yield _encode([(key, cell.revision, _then(cell)) for key, cell in batch])


class Machine:
    """The store. Every applied command that changes something raises `revision` by one.

    `state_hash` is the same on all nodes that applied the same entries, and in all likelihood on no
    others: the sum over all keys of a mixture of key, value and revision, kept up to date with
    every change, so that it costs no more than the change itself.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.sessions = Sessions()
        self.reach: Reach = unheeded
        self._cells: dict[str, _Cell] = {}
        self._sum = 0

    @classmethod
    def restored(cls, records: Iterable[bytes]) -> "Machine":
        """The state that was frozen into these records; raises Unsound if they do not add up."""
        machine = cls()
        pieces = iter(records)
        try:
            facts = msgspec.json.decode(next(pieces), type=_Facts)
            for piece in pieces:
                for key, revision, value in msgspec.json.decode(piece, type=list[_Row]):
                    machine._place(key, _cell(value, revision))
        except (msgspec.MsgspecError, StopIteration) as error:
            raise Unsound(f"the state cannot be read: {error}") from error
        machine.revision = facts.revision
        machine.sessions = facts.sessions
        if machine.state_hash != facts.state_hash:
            raise Unsound(
                f"the state has the hash {machine.state_hash:016x}, {facts.state_hash:016x} was "
                "written down"
            )
        return machine

    @property
    def state_hash(self) -> int:
        """64 bits that tell this state from others."""
        sessions = self.sessions
        active = zlib.crc32(_encode((self.revision, sessions.now_ms, list(sessions.by_id))))
        return (self._sum + active * 0x9E3779B97F4A7C15) & _MASK

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return len(self._cells)

    def freeze(self) -> Frozen:
        """The state as it is now; costs a copy of the table, not of the values."""
        facts = _Facts(self.revision, self.state_hash, self.sessions.copy())
        return Frozen(facts, self._cells.copy())

    def apply(self, index: int, command: bytes) -> Outcome:
        """Execute one committed command; the same commands in the same order give the same."""
        return self.apply_all(index, [command])[0]

    def apply_all(self, first_index: int, commands: Sequence[bytes]) -> list[Outcome]:
        """Execute committed commands at consecutive indexes."""
        decoded = decode_logged(commands)
        return [self._apply(index, command) for index, command in enumerate(decoded, first_index)]

    def get(self, key: str) -> Outcome:
        """The value of the key and the revision at which it last changed."""
        cell = self._cells.get(key)
        if cell is None:
            return self._absent()
        return Outcome("ok", cell.revision, _then(cell))

    def read_all(self, txn: Txn) -> Outcome:
        """What a transaction that only reads leads to; nothing changes."""
        assert txn.is_read_only, f"not only reads: {txn}"
        return self._transact(txn.ops)

    # ---- commands -----------------------------------------------------------------------------

    def _apply(self, index: int, command: Logged | None) -> Outcome:
        match command:
            case Put(key, value):  # By far the most frequent: first.
                return self._set(key, _cell(value, self.revision + 1))
            case OpenSession(ttl_ms, at_ms):
                self.sessions.open(index, ttl_ms, at_ms)
                return Outcome("ok", self.revision, index)
            case Once():
                return self._once(command)
            case None:  # Not for the store, but it has an index.
                return Outcome("ok", self.revision)
            case _:
                return self._execute(command)

    def _execute(self, command: Command) -> Outcome:
        match command:
            case Put(key, value):
                return self._set(key, _cell(value, self.revision + 1))
            case Delete(key):
                cell = self._cells.pop(key, None)
                if cell is None:
                    return self._absent()
                self._sum -= _mixed(key, cell)
                self.revision += 1
                return Outcome("ok", self.revision)
            case Cas(key, expect, value):
                cell = self._cells.get(key)
                if cell is None:
                    return self._absent()
                if not same_json(cell.value, expect):
                    return Outcome("mismatch", self.revision, _then(cell))
                return self._set(key, _cell(value, self.revision + 1))
            case Append(key, value):
                return self._append(key, value)
            case Add(key, delta):
                return self._add(key, delta)
            case Txn(ops):
                return self._transact(ops)

    def _set(self, key: str, cell: _Cell) -> Outcome:
        self.revision += 1
        held = self._cells.get(key)
        if held is not None:
            self._sum -= _mixed(key, held)
        self._place(key, cell)
        return Outcome("ok", self.revision)

    def _place(self, key: str, cell: _Cell) -> None:
        self._sum += _mixed(key, cell)
        self._cells[key] = cell

    def _append(self, key: str, value: Any) -> Outcome:
        cell = self._cells.get(key)
        revision = self.revision + 1
        if cell is None:
            return self._set(key, _cell([value], revision))
        match cell.value, value:
            case list() as items, _:
                items.append(value)
                digest = zlib.crc32(_encode(value), cell.digest)
                return self._set(key, _Cell(items, revision, digest, cell.count + 1))
            case str() as text, str():
                return self._set(key, _cell(text + value, revision))
            case _:
                return Outcome("wrong-type", self.revision, _then(cell))

    def _add(self, key: str, delta: int) -> Outcome:
        cell = self._cells.get(key)
        held = 0 if cell is None else _then(cell)
        if type(held) is not int or abs(held + delta) > INTEGER_MAX:
            return Outcome("wrong-type", self.revision, held)
        self._set(key, _cell(held + delta, self.revision + 1))
        return Outcome("ok", self.revision, held + delta)

    def _transact(self, ops: Sequence[tuple[str, str, Any]]) -> Outcome:
        """All or nothing: the new values are found first and set when nothing stands in the way.

        A transaction that changes something raises the revision by one per key.
        """
        changed: dict[str, Any] = {}
        results: list[tuple[str, str, Any]] = []
        for word, key, value in ops:
            held = changed[key] if key in changed else self._value(key)
            match word:
                case "r":
                    value = None if held is msgspec.UNSET else held
                case "w":
                    changed[key] = value
                case "append" if held is msgspec.UNSET:
                    changed[key] = [value]
                case "append" if isinstance(held, list):
                    changed[key] = [*held, value]
                case _:
                    return Outcome("wrong-type", self.revision, held)
            results.append((word, key, value))
        for key, value in changed.items():
            # A list that the outcome shows as well must not grow with the store's.
            own = list(value) if isinstance(value, list) else value
            self._set(key, _cell(own, self.revision + 1))
        return Outcome("ok", self.revision, results)

    def _value(self, key: str) -> Any:
        cell = self._cells.get(key)
        return msgspec.UNSET if cell is None else _then(cell)

    def _absent(self) -> Outcome:
        return Outcome("not-found", self.revision)

    # ---- sessions -----------------------------------------------------------------------------

    def _once(self, once: Once) -> Outcome:
        session = self.sessions.hear(once.session, once.at_ms)
        if session is None:
            self.reach(Probe.SESSION_EXPIRED)
            return Outcome("session-expired", self.revision)
        digest = zlib.crc32(encode_request(once.command))
        kept = session.kept.get(once.seq)
        if kept is not None:
            self.reach(Probe.DUPLICATE_ANSWERED)
            return kept.outcome if kept.digest == digest else self._refused("seq-reused")
        if once.seq <= session.forgotten:
            return self._refused("seq-forgotten")
        outcome = self._run(once.command)
        session.keep(once.seq, Kept(digest, outcome))
        return outcome

    def _refused(self, code: Literal["seq-reused", "seq-forgotten"]) -> Outcome:
        return Outcome(code, self.revision)

    def _run(self, command: Command | Batch) -> Outcome:
        if isinstance(command, Batch):
            outcomes = [self._execute(each) for each in command.commands]
            return Outcome("ok", self.revision, outcomes)
        return self._execute(command)


_Row = tuple[str, int, Any]
"""A key, the revision at which it last changed, and its value then."""


def _cell(value: Any, revision: int) -> _Cell:
    if type(value) is not list:
        return _Cell(value, revision, zlib.crc32(_encode(value)), 0)
    digest = 1
    for item in value:
        digest = zlib.crc32(_encode(item), digest)
    return _Cell(value, revision, digest, len(value))


def _then(cell: _Cell) -> Any:
    """The value as it was at the cell's revision, not to be changed by anything later."""
    return cell.value[: cell.count] if type(cell.value) is list else cell.value


def _mixed(key: str, cell: _Cell) -> int:
    # Multiplied so that a sum over many keys uses all 64 bits; any two changes that would cancel
    # each other are then no likelier than chance.
    name = zlib.crc32(key.encode("utf-8", "surrogatepass"), cell.digest)
    return ((name << 32 | cell.digest) ^ cell.revision * 0xBF58476D1CE4E5B9) * 0x94D049BB133111EB


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; unlike in Python, `1`, `1.0` and `true` differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(left[k], right[k]) for k in left)
    return bool(left == right)
