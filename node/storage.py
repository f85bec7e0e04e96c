"""The durable log: terms, votes and entries in checksummed segments, beside the snapshots.

A segment is a file of frames (see `frames`, which tells a torn tail from damage). It begins with a
header; every other frame is one group commit: a MessagePack list of records, each a new term and
vote, entries that replace the log from an index on, or a base behind which the log begins anew.

When a segment is long enough the next one is made: whole, under another name, flushed, renamed, the
directory flushed, and named in the file `newest`. Only then is anything written to it. So only the
newest segment can have a torn tail, and it cannot go missing without being noticed. Each header
repeats the checksum with which its predecessor ended and the term and vote in force, so that a
predecessor which lost its end is noticed, and one that a snapshot covers can be deleted.

A failed flush is final: the kernel may have dropped the dirty pages and will call the next flush a
success. The caller stops the node. A write that failed for want of room is taken back, and may be
tried again.
"""

import contextlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Self

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.disk import Disk, File, OsDisk
from labrys.node.effects import Persist, Restored, SnapshotMeta
from labrys.node.errors import CorruptLog, DiskFull, MachineError
from labrys.node.frames import HEADER_BYTES, Damaged, encode_frame, payloads
from labrys.node.messages import Entry, HardState, InstallRequest, NodeId
from labrys.node.snapshots import FULL, Snapshots, Unsound

FORMAT = 2
SEGMENT_BYTES = 16 << 20
CLUSTER = "labrys"
LOG_PREFIX = "log-"
_DRAFT = "draft-log"
_NEWEST = "newest"


class Header(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """How a segment begins."""

    format: int
    cluster: str
    node: NodeId
    sequence: int
    last_index: int
    """Where the log ended when the segment was made: what follows continues or replaces that."""
    previous: int
    """With which checksum the segment before ended; see `_chained`."""
    state: HardState


class StateRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A new term or vote."""

    state: HardState


class EntriesRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """These entries replace the log from `first_index` on."""

    first_index: int
    entries: tuple[Entry, ...]


class BaseRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The log begins anew behind `index`, which a snapshot covers."""

    index: int


class Received(msgspec.Struct, frozen=True):
    """The last piece of a leader's snapshot came in: `meta`, or None when it was unsound."""

    index: int
    meta: SnapshotMeta | None
    reason: str = ""


Record = Header | StateRecord | EntriesRecord | BaseRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Record]] = msgspec.msgpack.Decoder(list[Record])


class _Segment(msgspec.Struct):
    sequence: int
    last_index: int
    """As in its header."""


class Storage:
    """The data directory of one node, locked against a second process. Blocking: use a thread.

    `hard_state`, `snapshot` and `entries` hold what was found when it was opened; they do not
    follow writes. `base_index` is the index before the first of `entries`.
    """

    def __init__(
        self,
        directory: Path,
        node: NodeId,
        *,
        cluster: str = CLUSTER,
        first_state: HardState = HardState(),  # noqa: B008  (it is immutable)
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Open or create; raises MachineError, or CorruptLog when something is damaged.

        A new directory begins with `first_state`.
        """
        self.hard_state = first_state
        self.snapshot: SnapshotMeta | None = None
        self.base_index = 0
        self.entries: list[Entry] = []
        self.cut_bytes = 0
        """Length of the torn tail that was removed."""
        self._directory = directory
        self._node = node
        self._cluster = cluster
        self._disk = disk or OsDisk()
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._file: File
        self._size_bytes = 0
        self._chain = 0
        self._last_index = 0
        self._state = first_state
        """Of the newest segment: its length, how it ends, and what is in force at its end."""
        try:
            with contextlib.ExitStack() as undo:
                self._disk.make_directory(directory)
                undo.callback(self._lock().close)
                self.snapshots = self._open_snapshots()
                undo.callback(self.snapshots.close)
                self._open()
                undo.callback(lambda: self._file.close())
                self._undo = undo.pop_all()
        except OSError as error:
            raise MachineError(f"cannot use the data directory {directory}: {error}") from error

    @property
    def segment_count(self) -> int:
        """How many files the log consists of."""
        return len(self._segments)

    def restored(self, initial: Configuration) -> Restored:
        """What the core begins with; `initial` is the configuration where nothing says another."""
        snapshot = self.snapshot or SnapshotMeta(0, 0, initial)
        return Restored(self.hard_state, snapshot, self.entries)

    def write(self, batches: Sequence[Persist]) -> list[Received]:
        """Make the batches durable with one write and one flush; raises MachineError, finally.

        DiskFull alone may pass: the same batches may be written again.
        """
        received = [
            end for batch in batches for piece in batch.chunks for end in self._receive(piece)
        ]
        records: list[Record] = []
        for batch in batches:
            if batch.base is not None:
                records.append(BaseRecord(batch.base.index))
            if batch.hard_state is not None:
                records.append(StateRecord(batch.hard_state))
            if batch.entries:
                records.append(EntriesRecord(batch.first_index, batch.entries))
        if records:
            self._write(records)
        return received

    def compact(self, index: int) -> None:
        """Delete the segments that hold nothing behind `index`, which a snapshot covers."""
        unneeded = 0
        while unneeded + 1 < len(self._segments):
            if self._segments[unneeded + 1].last_index > index:
                break
            unneeded += 1
        if not unneeded:
            return
        try:
            # The oldest first: what is left after a crash has no gap.
            for segment in self._segments[:unneeded]:
                self._disk.remove(self._path(segment.sequence))
                self._disk.flush_directory(self._directory)
        except OSError as error:
            raise self._final("removing old segments", error) from error
        del self._segments[:unneeded]

    def close(self) -> None:
        """Close the files and give up the lock."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- writing ------------------------------------------------------------------------------

    def _receive(self, piece: InstallRequest) -> list[Received]:
        try:
            meta = self.snapshots.receive(piece)
        except Unsound as error:
            return [Received(piece.index, None, str(error))] if piece.is_last else []
        return [Received(piece.index, meta)] if piece.is_last else []

    def _write(self, records: list[Record]) -> None:
        if self._size_bytes >= self._segment_bytes:
            self._begin_segment(self._segments[-1].sequence + 1)
        frame = encode_frame(_encoder.encode(records))
        try:
            self._file.append(frame)
        except OSError as error:
            if error.errno in FULL:
                self._take_back(error)
            raise self._final("writing", error) from error
        try:
            self._file.flush()
        except OSError as error:
            raise self._final("flushing", error) from error
        self._size_bytes += len(frame)
        self._chain = _chained(self._chain, frame)
        self._note(records)

    def _take_back(self, error: OSError) -> NoReturn:
        try:
            self._file.cut(self._size_bytes)
        except OSError as worse:
            raise self._final("taking back a write for which there was no room", worse) from error
        path = self._path(self._segments[-1].sequence)
        raise DiskFull(f"no room to write {path}: {error}; make room on the disk") from error

    def _final(self, what: str, error: OSError) -> MachineError:
        return MachineError(
            f"{what} {self._path(self._segments[-1].sequence)} failed: {error}; what is on disk is "
            "unknown now, so this node stops. Mend the disk, then start it again"
        )

    def _begin_segment(self, sequence: int) -> None:
        header = Header(
            FORMAT, self._cluster, self._node, sequence, self._last_index, self._chain, self._state
        )
        frame = encode_frame(_encoder.encode([header]))
        try:
            self._make_file(self._path(sequence), frame)
            self._name_newest(sequence)
            file = self._disk.open(self._path(sequence))
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull(f"no room for another segment in {self._directory}") from error
            raise MachineError(
                f"cannot make a segment of the log in {self._directory}: {error}; mend the disk, "
                "then start the node again"
            ) from error
        if self._segments:
            self._file.close()
        self._file = file
        self._segments.append(_Segment(sequence, self._last_index))
        self._size_bytes = len(frame)
        self._chain = _chained(0, frame)

    def _name_newest(self, sequence: int) -> None:
        self._make_file(self._directory / _NEWEST, encode_frame(b"%d" % sequence))

    def _make_file(self, path: Path, data: bytes) -> None:
        draft = self._directory / _DRAFT
        try:
            file = self._disk.create(draft)
            try:
                file.append(data)
                file.flush()
            finally:
                file.close()
            self._disk.rename(draft, path)
            self._disk.flush_directory(self._directory)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.remove(draft)
            raise

    def _note(self, records: Sequence[Record]) -> None:
        for record in records:
            match record:
                case StateRecord(state):
                    self._state = state
                case EntriesRecord(first_index, entries):
                    self._last_index = first_index + len(entries) - 1
                case BaseRecord(index):
                    self._last_index = index

    # ---- opening ------------------------------------------------------------------------------

    def _lock(self) -> File:
        lock = self._disk.lock(self._directory / "lock")
        if lock is None:
            raise MachineError(
                f"the data directory {self._directory} is in use by another node: stop it, or give "
                "this one another --data"
            )
        return lock

    def _open_snapshots(self) -> Snapshots:
        return Snapshots(self._directory / "snapshots", self._cluster, self._disk)

    def _open(self) -> None:
        self._disk.remove(self._directory / _DRAFT)
        sequences, named = self._sequences()
        if not sequences:
            self._begin_segment(1)
        elif named != sequences[-1]:
            self._name_newest(sequences[-1])
        for sequence in sequences:
            self._replay_segment(sequence, is_last=sequence == sequences[-1])
        if sequences:
            self._file = self._disk.open(self._path(sequences[-1]))
            if self.cut_bytes:
                self._file.cut(self._size_bytes)
            # A process that was killed before it flushed left what the kernel still has, and what
            # is found here will be told to others.
            self._file.flush()
            self._disk.flush_directory(self._directory)
        self._state = self.hard_state
        self._last_index = self.base_index + len(self.entries)
        self._fit_snapshot()

    def _sequences(self) -> tuple[list[int], int]:
        """The segments there are, and the newest as it is named; raises CorruptLog."""
        names = self._disk.names(self._directory)
        found = [int(n[len(LOG_PREFIX) :]) for n in names if n.startswith(LOG_PREFIX)]
        newest = self._directory / _NEWEST
        named = self._named_newest(newest) if _NEWEST in names else 0
        if named and named not in found:
            raise self._corrupt(self._path(named), 0, f"it is missing, {newest} names it")
        for before, after in itertools.pairwise(found):
            if after != before + 1:
                path = self._path(before + 1)
                raise self._corrupt(path, 0, "it is missing, older and newer ones are there")
        if not found:
            # Snapshots outlive the log only if somebody removed it.
            if self.snapshots.newest() is not None:
                raise self._corrupt(self._path(1), 0, "the log is missing, a snapshot is there")
        elif not named and found != [1]:
            raise self._corrupt(newest, 0, "it is missing, segments of the log are there")
        return found, named

    def _named_newest(self, path: Path) -> int:
        try:
            for _, payload in payloads(self._disk.read(path)):
                return int(payload)
        except (Damaged, ValueError) as error:
            raise self._corrupt(path, 0, f"it cannot be read ({error})") from error
        raise self._corrupt(path, 0, "it holds nothing")

    def _replay_segment(self, sequence: int, *, is_last: bool) -> None:
        path = self._path(sequence)
        data = self._disk.read(path)
        end = chain = 0
        try:
            for offset, payload in self._payloads(data):
                end = offset + HEADER_BYTES + len(payload)
                self._replay(path, offset, payload, sequence)
                chain = _chained(chain, data[offset : offset + HEADER_BYTES])
        except Damaged as error:
            raise self._corrupt(path, error.offset, error.what) from error
        if end == 0:
            raise self._corrupt(path, 0, "the header at its beginning is missing")
        if end < len(data):
            if not is_last:
                raise self._corrupt(path, end, "its end is torn, but a newer segment follows")
            self.cut_bytes = len(data) - end
        self._size_bytes = end
        self._chain = chain

    def _payloads(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        return payloads(data)

    def _replay(self, path: Path, offset: int, payload: bytes, sequence: int) -> None:
        try:
            records = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Damaged(offset, f"a record cannot be read ({error})") from error
        if isinstance(records[0], Header) != (offset == 0):
            raise Damaged(offset, "the header is not where it belongs")
        for record in records:
            match record:
                case Header():
                    self._begin_replay(path, record, sequence)
                case StateRecord(state):
                    self.hard_state = state
                case BaseRecord(index):
                    self.base_index = index
                    self.entries.clear()
                case EntriesRecord(first_index, entries):
                    self._replay_entries(offset, first_index, entries)

    def _replay_entries(self, offset: int, first_index: int, entries: tuple[Entry, ...]) -> None:
        place = first_index - 1 - self.base_index
        if place > len(self.entries):
            raise Damaged(offset, f"entries before {first_index} are missing")
        if place < 0:
            # They replaced what older segments held, which a snapshot covers by now.
            self.base_index, place = first_index - 1, 0
        del self.entries[place:]
        self.entries.extend(entries)

    def _begin_replay(self, path: Path, header: Header, sequence: int) -> None:
        if header.format != FORMAT:
            raise MachineError(
                f"{path} is in format {header.format}, this program writes format {FORMAT}: start "
                "the node with an empty --data, or with the program that wrote it"
            )
        if header.cluster != self._cluster:
            raise MachineError(
                f"{path} belongs to cluster {header.cluster!r}, this node to {self._cluster!r}: "
                "give each cluster its own --data, or set --cluster-id"
            )
        if header.node != self._node:
            raise MachineError(
                f"{path} belongs to node {header.node}, this is node {self._node}: give each node "
                "its own --data"
            )
        if header.sequence != sequence:
            raise Damaged(0, f"it is segment {header.sequence} under another name")
        if not self._segments:
            self.hard_state = header.state
            self.base_index = header.last_index
        elif header.previous != self._chain:
            raise Damaged(0, "the segment before it has not the end that it had")
        self._segments.append(_Segment(sequence, header.last_index))

    def _fit_snapshot(self) -> None:
        """Let the log begin behind the newest snapshot, whatever a crash came between."""
        self.snapshot = snapshot = self.snapshots.newest()
        if snapshot is None or snapshot.index < self.base_index:
            if self.base_index > 0:
                found = "there is none" if snapshot is None else f"it ends at {snapshot.index}"
                told = "; ".join(self.snapshots.unsound)
                path = self._path(self._segments[0].sequence)
                what = f"it begins behind {self.base_index}, where a snapshot should end: {found}"
                raise self._corrupt(path, 0, f"{what}{f' ({told})' if told else ''}")
            return
        place = snapshot.index - self.base_index
        fits = place <= len(self.entries) and (
            place == 0 or self.entries[place - 1].term == snapshot.term
        )
        if fits:
            self.base_index = snapshot.index
            del self.entries[:place]
            return
        # The crash came before the log was begun anew, or the node had applied, and so put into
        # the snapshot, what others had on disk and it had not.
        self.base_index = snapshot.index
        self.entries.clear()
        records: list[Record] = [BaseRecord(snapshot.index)]
        if self.hard_state.term < snapshot.term:
            self.hard_state = HardState(snapshot.term, None, self.hard_state.is_observer)
            records.append(StateRecord(self.hard_state))
        self._write(records)

    def _path(self, sequence: int) -> Path:
        return self._directory / f"{LOG_PREFIX}{sequence:010d}"

    def _corrupt(self, path: Path, offset: int, what: str) -> CorruptLog:
        return CorruptLog(
            f"{path} is damaged at byte {offset}: {what}. Entries that this node has acknowledged "
            "are lost here, so it must not vote with what is left. Restore the file from a copy, "
            "or remove this node from the cluster and add a new one"
        )


def _chained(chain: int, frame: bytes) -> int:
    return zlib.crc32(frame[:HEADER_BYTES], chain)
