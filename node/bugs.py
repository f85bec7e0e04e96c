"""Deliberate faults, each one that somebody shipped: `labrys-node --bug NAME`.

Each is a small override of the core or of the storage; the production code knows nothing of them.
They show that a test rig finds bugs. A faulty node must not give itself away by stopping at its own
assertions or the corruption check, so the variants go on where a correct node would stop.
"""

import difflib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from labrys.node.audit import Audit
from labrys.node.commands import decode_logged
from labrys.node.configuration import decode_configuration
from labrys.node.disk import Disk, File, OsDisk
from labrys.node.effects import Effects, Persist, Restored
from labrys.node.errors import UsageError
from labrys.node.frames import HEADER_BYTES, Damaged, frame_size, is_sound
from labrys.node.messages import Diverged, Entry, HardState, NodeId
from labrys.node.raft import NO_OP, Config, Raft
from labrys.node.storage import Received, Storage


class Careless(Raft):
    """A core that goes on after the impossible has happened."""

    def _violated(self, what: str) -> None:
        pass


class Unwatched(Audit):
    """Goes on with another state than the others have."""

    def check(self, told: Diverged) -> None:
        pass


class StaleRead(Careless):
    """Answers reads at once, whether or not it leads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_once: list[int] = []

    def read(self, read_id: int, now_ms: int, *, lease: bool = False) -> bool:
        self._at_once.append(read_id)
        return True

    def effects(self) -> Effects:
        effects = super().effects()
        reads, self._at_once = (*effects.reads, *self._at_once), []
        return msgspec.structs.replace(effects, reads=reads)


class EarlyAck(Careless):
    """Takes an entry for committed as soon as it is in the leader's own log.

    A leader that acknowledges alone does not ask whether it still has a majority, either.
    """

    def _append(self, entries: Sequence[Entry]) -> None:
        super()._append(entries)
        self._commit_to(self.log.last_index)

    def _has_lost_quorum(self) -> bool:
        return False


class WallClockLease(Careless):
    """Measures its lease by the wall clock, as every Go program did before there was Go 1.9."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lease_until_wall_ms = 0

    def _become_leader(self) -> None:
        self._lease_until_wall_ms = 0
        super()._become_leader()

    def _confirm_rounds(self) -> None:
        before_ms = self._lease_until_ms
        super()._confirm_rounds()
        if self._lease_until_ms != before_ms:
            self._lease_until_wall_ms = _wall_ms() + self._lease_until_ms - self._now_ms

    def has_lease(self, now_ms: int) -> bool:
        left_ms = self._lease_until_wall_ms - _wall_ms()
        return super().has_lease(self._lease_until_ms - left_ms)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class CommitOldTerm(Careless):
    """Commits whatever a majority holds, of any term, and opens its term without an entry."""

    def _may_commit(self, index: int) -> bool:
        return True

    def _open_term(self) -> None:
        self._term_start = self.log.last_index


class Unguarded(Careless):
    """A core without pre-vote and leader stickiness, which repair much of what a lost term does."""

    def _start_pre_vote(self) -> None:
        self._start_election()

    def _hears_a_leader(self) -> bool:
        return False


class ForgetVote(Storage):
    """Does not write term and vote down, only that the node is no observer any more."""

    def write(self, batches: Sequence[Persist]) -> list[Received]:
        return super().write([_without_vote(batch) for batch in batches])


def _without_vote(batch: Persist) -> Persist:
    state = batch.hard_state
    kept = HardState(is_observer=state.is_observer) if state is not None else None
    return msgspec.structs.replace(batch, hard_state=kept)


class LoseTail(Storage):
    """Comes back without the newest entries, as if they had never been flushed."""

    LOST_COUNT = 20

    def __init__(self, directory: Path, node: NodeId, **options: Any) -> None:
        super().__init__(directory, node, **options)
        keep = max(0, len(self.entries) - self.LOST_COUNT)
        del self.entries[keep:]


class SkipFsync(Storage):
    """Acknowledges entries, terms and votes as soon as the kernel has them: never flushes the log.

    Whatever is left of it after a power failure is taken for the whole.
    """

    def __init__(
        self, directory: Path, node: NodeId, *, disk: Disk | None = None, **options: Any
    ) -> None:
        unflushed = cast(Disk, _Unflushed(disk or OsDisk()))
        super().__init__(directory, node, disk=unflushed, **options)


class _Unflushed:
    """A disk all of whose files that are continued go unflushed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, path: Path) -> File:
        return _UnflushedFile(self._disk.open(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class _UnflushedFile:
    """A file that is continued: nothing of what is added is flushed."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.append, self.cut, self.close = file.append, file.cut, file.close

    def flush(self) -> None:
        pass


class SkipChecksum(Storage):
    """Believes the records that it reads back, and passes over what makes no sense at all.

    It still looks where records end, and at the members: else it would lose its tail or be cut off.
    """

    GAP_MAX = 10_000

    def __init__(self, directory: Path, node: NodeId, **options: Any) -> None:
        self._unsound: set[int] = set()
        super().__init__(directory, node, **options)
        self.entries = [e if _makes_sense(e) else Entry(e.term, NO_OP) for e in self.entries]

    def _payloads(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        offset = 0
        while (body := offset + HEADER_BYTES) <= len(data):
            size = frame_size(data[offset:body])
            if size is None:
                raise Damaged(offset, "the header of a record does not match its checksum")
            if body + size > len(data):
                return
            payload = data[body : body + size]
            if not is_sound(data[offset:body], payload):
                self._unsound.add(offset)
            yield offset, payload
            offset = body + size

    def _replay(self, path: Path, offset: int, payload: bytes, sequence: int) -> None:
        try:
            super()._replay(path, offset, payload, sequence)
        except Damaged:
            if offset == 0:
                raise

    def _replay_entries(self, offset: int, first_index: int, entries: tuple[Entry, ...]) -> None:
        missing = first_index - 1 - self.base_index - len(self.entries)
        if 0 < missing <= self.GAP_MAX:
            self.entries.extend([Entry(self.hard_state.term, NO_OP)] * missing)
        if offset in self._unsound:
            entries = tuple(Entry(e.term, NO_OP) if e.is_configuration else e for e in entries)
        super()._replay_entries(offset, first_index, entries)


def _makes_sense(entry: Entry) -> bool:
    try:
        if entry.is_configuration:
            decode_configuration(entry.command)
        else:
            decode_logged([entry.command])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


class RejoinAsVoter(Careless):
    """Votes and acknowledges at once when its data is new, as if it had never promised anything."""

    def __init__(self, config: Config, restored: Restored, rng: random.Random, now_ms: int) -> None:
        state = msgspec.structs.replace(restored.hard_state, is_observer=False)
        restored = msgspec.structs.replace(restored, hard_state=state)
        super().__init__(config, restored, rng, now_ms)


class Bug(msgspec.Struct, frozen=True):
    """One fault: what it does, and the parts in which it sits."""

    description: str
    raft: type[Raft] = Careless
    storage: type[Storage] = Storage
    audit: type[Audit] = Unwatched


BUGS: dict[str, Bug] = {
    "stale-read": Bug("reads are answered from the local state of any node", raft=StaleRead),
    "forget-vote": Bug(
        "term and vote are lost on restart, and no pre-vote makes up for it",
        raft=Unguarded,
        storage=ForgetVote,
    ),
    "early-ack": Bug("writes are acknowledged before they are replicated", raft=EarlyAck),
    "lease-wall-clock": Bug(
        "the lease of lease reads is measured by the wall clock", raft=WallClockLease
    ),
    "commit-old-term": Bug("entries of older terms are committed by counting", raft=CommitOldTerm),
    "skip-fsync": Bug("entries are acknowledged before they are synced", storage=SkipFsync),
    "lose-tail": Bug("the newest entries are lost on restart", storage=LoseTail),
    "skip-checksum": Bug("what is read back from the log is not checked", storage=SkipChecksum),
    "rejoin-as-voter": Bug("a node that lost its data votes at once", raft=RejoinAsVoter),
}


def find_bug(name: str) -> Bug:
    """The bug of that name; raises UsageError with the names there are."""
    if name in BUGS:
        return BUGS[name]
    close = difflib.get_close_matches(name, BUGS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"there is no bug {name!r}: {hint}There are {', '.join(BUGS)}")
