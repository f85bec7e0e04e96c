"""Faults in how entries get to the disk, and in what is believed of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from labrys.node.bugs.variant import variant
from labrys.node.commands import decode_logged
from labrys.node.configuration import decode_configuration
from labrys.node.disk import Disk, File, OsDisk
from labrys.node.frames import HEADER_BYTES, Damaged, frame_size, is_sound
from labrys.node.messages import Entry, NodeId
from labrys.node.raft import NO_OP
from labrys.node.storage import Storage


class LoseTail(Storage):
    """Comes back without the newest entries, as if they had never been flushed.

    Seen in: a class of bugs: of the store, or of a disk that lies about what it has flushed.
    Seen by: raft (persisted state, leader completeness)
    """

    LOST_COUNT = 20

    def __init__(self, directory: Path, node: NodeId, **options: Any) -> None:
        super().__init__(directory, node, **options)
        keep = max(0, len(self.entries) - self.LOST_COUNT)
        del self.entries[keep:]


class _Wrapped:
    """A disk on which some files are not what they should be."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class _Unflushed:
    """A file that goes unflushed."""

    def __init__(self, file: File) -> None:
        self.append, self.cut, self.close = file.append, file.cut, file.close

    def flush(self) -> None:
        pass


class _OldUnflushed(_Wrapped):
    def open(self, path: Path) -> File:
        """A file that is continued: nothing of what is added is flushed."""
        return _Unflushed(self._disk.open(path))


class NewUnflushed(_Wrapped):
    """A disk on which new files go unflushed."""

    def create(self, path: Path) -> File:
        """See `Disk`."""
        return _Unflushed(self._disk.create(path))


class SkipFsync(Storage):
    """Acknowledges entries, terms and votes as soon as the kernel has them: never flushes the log.

    Whatever is left of it after a power failure is taken for the whole.

    Seen in: NATS JetStream 2.12.1, which flushes every two minutes; PySyncObj's journal.
    Seen by: raft (persisted state, durability)
    """

    def __init__(
        self, directory: Path, node: NodeId, *, disk: Disk | None = None, **options: Any
    ) -> None:
        unflushed = cast(Disk, _OldUnflushed(disk or OsDisk()))
        super().__init__(directory, node, disk=unflushed, **options)


class IgnoreFlushError(Storage):
    """Goes on when a flush fails, as if the next one made up for it.

    The kernel may have dropped what it could not write, and calls the next flush a success.

    Seen in: PostgreSQL up to 11.1, which called fsync again and believed it.
    Seen by: raft (persisted state), on disks that err
    """

    def __init__(
        self, directory: Path, node: NodeId, *, disk: Disk | None = None, **options: Any
    ) -> None:
        hopeful = cast(Disk, _Hopeful(disk or OsDisk()))
        super().__init__(directory, node, disk=hopeful, **options)


class _Hopeful(_Wrapped):
    def open(self, path: Path) -> File:
        return _HopefulFile(self._disk.open(path))


class _HopefulFile:
    def __init__(self, file: File) -> None:
        self._file = file
        self.append, self.cut, self.close = file.append, file.cut, file.close

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class CutTheMiddle(Storage):
    """Takes damage in the middle of the log for a torn end, and cuts off all that follows.

    The node forgets what it has acknowledged, and votes and leads without it.

    Seen in: NATS JetStream 2.12.1; the stores that Alagappan et al. studied (FAST 2018).
    Seen by: raft (persisted state, leader completeness), with damaged files
    """

    def _payloads(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        with contextlib.suppress(Damaged):
            yield from super()._payloads(data)


class LeaveTornTail(CutTheMiddle):
    """Leaves a torn end where it is and writes behind it; the next start reads up to it only.

    Seen in: a class of bugs of goraft's kind, whose restart takes for entries what stands there.
    Seen by: raft (persisted state)
    """

    def _replay_segment(self, sequence: int, *, is_last: bool) -> None:
        super()._replay_segment(sequence, is_last=is_last)
        self._size_bytes += self.cut_bytes
        self.cut_bytes = 0


class SkipChecksum(Storage):
    """Believes the records that it reads back, and passes over what makes no sense at all.

    It still looks where records end, and at the members: else it would lose its tail or be cut off.

    Seen in: goraft; NATS JetStream 2.12.1.
    Seen by: raft (log matching, state machine safety), with damaged files
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


BUGS = {
    "skip-fsync": variant("entries are acknowledged before they are synced", SkipFsync),
    "lose-tail": variant("the newest entries are lost on restart", LoseTail),
    "ignore-flush-error": variant("a flush that failed counts as done", IgnoreFlushError),
    "skip-checksum": variant("what is read back from the log is not checked", SkipChecksum),
    "cut-the-middle": variant("damage is taken for a torn end and cut off", CutTheMiddle),
    "leave-torn-tail": variant("the log goes on behind a torn end", LeaveTornTail),
}
