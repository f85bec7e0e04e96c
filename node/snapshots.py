"""Snapshots on disk: written beside the log, checked as a whole, received piece by piece.

A snapshot is a file of frames: a header that says where it stands in the log, records of the state
machine, and a footer with their number and a checksum over all of them. It gets its name only when
all of it is durable, so a file with that name is complete; what a crash left half done is removed.
It says nothing of the node that wrote it, for it travels to others as it is.
"""

import errno
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.disk import Disk, File
from labrys.node.effects import SnapshotMeta
from labrys.node.errors import CorruptLog, DiskFull, MachineError
from labrys.node.frames import HEADER_BYTES, encode_frame, frame_size, is_sound
from labrys.node.messages import InstallRequest

FORMAT = 1
FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = "snapshot-"
_OWN_DRAFT = "draft-own"
_RECEIVED_DRAFT = "draft-received"
_WRITE_BYTES = 256 << 10
_T = TypeVar("_T")


class _Header(msgspec.Struct, frozen=True, array_like=True):
    format: int
    cluster: str
    index: int
    term: int
    configuration: Configuration


class _Footer(msgspec.Struct, frozen=True, array_like=True):
    record_count: int
    checksum: int


class Unsound(Exception):
    """A file that is not the snapshot it should be; the message says why."""


class Snapshots:
    """The snapshots in one directory. Blocking: call it from threads.

    `write` may run beside everything else; the rest belongs to one thread.
    """

    def __init__(self, directory: Path, cluster: str, disk: Disk) -> None:
        """Makes the directory and removes what a crash left half done; raises OSError."""
        self._directory = directory
        self._cluster = cluster
        self._disk = disk
        self._receiving: File | None = None
        self._received_bytes = 0
        self.unsound: list[str] = []
        """Why a newer snapshot than the one found was passed over, for the log."""
        disk.make_directory(directory)
        for draft in (_OWN_DRAFT, _RECEIVED_DRAFT):
            disk.remove(directory / draft)
        disk.flush_directory(directory)  # a kill may have come before that, after the rename

    def newest(self) -> SnapshotMeta | None:
        """The newest one that is sound."""
        for name in reversed(self._disk.names(self._directory)):
            if name.startswith(_PREFIX):
                try:
                    return self._check(self._directory / name)
                except Unsound as error:
                    self.unsound.append(f"{self._directory / name}: {error}")
        return None

    def write(self, meta: SnapshotMeta, records: Iterable[bytes]) -> int:
        """Write one down, durably, and return its length in bytes; raises MachineError.

        DiskFull leaves everything as it was.
        """
        draft = self._directory / _OWN_DRAFT
        try:
            size_bytes = self._write_draft(draft, meta, records)
            self._publish(draft, meta.index)
        except OSError as error:
            self._disk.remove(draft)
            raise _failed(f"writing a snapshot to {draft} failed", error) from error
        return size_bytes

    def records(self, index: int) -> Iterator[bytes]:
        """The records of the snapshot at `index`; raises CorruptLog when it is damaged."""
        path = self._path(index)
        try:
            frames = self._frames(path)
            next(frames)
            ahead = next(frames)
            for payload in frames:
                yield ahead  # The last one is the footer.
                ahead = payload
        except (Unsound, OSError) as error:
            raise CorruptLog(
                f"the snapshot {path} is damaged: {error}. Remove this node from the cluster, "
                "delete its data and add it again"
            ) from error

    def read_chunk(self, index: int, offset: int, size_bytes: int) -> tuple[bytes, bool]:
        """A piece of the file of a snapshot, and whether it is the last; raises OSError."""
        path = self._path(index)
        data = self._disk.read(path, offset, size_bytes)
        return data, offset + len(data) >= self._disk.size(path)

    def receive(self, piece: InstallRequest) -> SnapshotMeta | None:
        """Add a piece of a leader's snapshot; its meta when it was the last and all is sound.

        A piece that is there already is passed over. Raises Unsound, and what was received is
        gone; MachineError; DiskFull, and the same piece may be added later.
        """
        draft = self._directory / _RECEIVED_DRAFT
        try:
            if piece.offset == 0:
                self._give_up_receiving()
                self._receiving = self._disk.create(draft)
            if self._receiving is None or piece.offset > self._received_bytes:
                raise Unsound(f"the piece at {piece.offset} follows {self._received_bytes} bytes")
            if piece.offset == self._received_bytes:
                self._add(self._receiving, piece.data)
            if not piece.is_last:
                return None
            self._receiving.flush()
            meta = self._check(draft)
            if (meta.index, meta.term) != (piece.index, piece.index_term):
                raise Unsound(f"it is of {meta.index}, not of {piece.index}")
            self._publish(draft, meta.index)
        except Unsound:
            self._give_up_receiving()
            raise
        except OSError as error:
            raise _failed(f"receiving a snapshot into {draft} failed", error) from error
        self._close_received()
        return meta

    def prune(self, index: int) -> None:
        """Remove the snapshots before `index`; raises MachineError."""
        try:
            for name in self._disk.names(self._directory):
                if name.startswith(_PREFIX) and name < self._path(index).name:
                    self._disk.remove(self._directory / name)
            self._disk.flush_directory(self._directory)
        except OSError as error:
            raise _failed(f"removing old snapshots in {self._directory} failed", error) from error

    def close(self) -> None:
        """Give up what is being received."""
        self._close_received()

    # ---- writing ------------------------------------------------------------------------------

    def _write_draft(self, draft: Path, meta: SnapshotMeta, records: Iterable[bytes]) -> int:
        header = _Header(FORMAT, self._cluster, meta.index, meta.term, meta.configuration)
        size_bytes = count = checksum = 0
        file = self._disk.create(draft)
        try:
            buffer = [encode_frame(msgspec.msgpack.encode(header))]
            for record in records:
                count += 1
                checksum = zlib.crc32(record, checksum)
                buffer.append(encode_frame(record))
                if sum(map(len, buffer)) >= _WRITE_BYTES:
                    size_bytes += _flush_buffer(file, buffer)
            buffer.append(encode_frame(msgspec.msgpack.encode(_Footer(count, checksum))))
            size_bytes += _flush_buffer(file, buffer)
            file.flush()
        finally:
            file.close()
        return size_bytes

    def _publish(self, draft: Path, index: int) -> None:
        self._disk.rename(draft, self._path(index))
        self._disk.flush_directory(self._directory)

    def _path(self, index: int) -> Path:
        return self._directory / f"{_PREFIX}{index:020d}"

    def _add(self, file: File, data: bytes) -> None:
        try:
            file.append(data)
        except OSError as error:
            if error.errno in FULL:
                file.cut(self._received_bytes)
            raise
        self._received_bytes += len(data)

    def _give_up_receiving(self) -> None:
        self._close_received()
        self._disk.remove(self._directory / _RECEIVED_DRAFT)

    def _close_received(self) -> None:
        file, self._receiving = self._receiving, None
        self._received_bytes = 0
        if file is not None:
            file.close()

    # ---- reading ------------------------------------------------------------------------------

    def _check(self, path: Path) -> SnapshotMeta:
        try:
            frames = self._frames(path)
            meta = self._meta(next(frames, b""))
            count = checksum = 0
            ahead = next(frames, b"")
            for payload in frames:
                count += 1
                checksum = zlib.crc32(ahead, checksum)
                ahead = payload
            if _decoded(ahead, _Footer) != _Footer(count, checksum):
                raise Unsound("the footer does not match the records")
        except OSError as error:
            raise Unsound(f"it cannot be read: {error}") from error
        return meta

    def _meta(self, payload: bytes) -> SnapshotMeta:
        header = _decoded(payload, _Header)
        if (header.format, header.cluster) != (FORMAT, self._cluster):
            raise Unsound(
                f"it is of cluster {header.cluster!r} in format {header.format}, not of "
                f"{self._cluster!r} in format {FORMAT}"
            )
        return SnapshotMeta(header.index, header.term, header.configuration)

    def _frames(self, path: Path) -> Iterator[bytes]:
        offset, end = 0, self._disk.size(path)
        while offset < end:
            header = self._disk.read(path, offset, HEADER_BYTES)
            size = frame_size(header)
            if size is None or offset + HEADER_BYTES + size > end:
                raise Unsound(f"it is damaged at byte {offset}")
            payload = self._disk.read(path, offset + HEADER_BYTES, size)
            if not is_sound(header, payload):
                raise Unsound(f"it is damaged at byte {offset}")
            yield payload
            offset += HEADER_BYTES + size


def _decoded(payload: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise Unsound(f"the {kind.__name__.strip('_').lower()} cannot be read: {error}") from error


def _flush_buffer(file: File, buffer: list[bytes]) -> int:
    data = b"".join(buffer)
    buffer.clear()
    file.append(data)
    return len(data)


def _failed(what: str, error: OSError) -> MachineError:
    if error.errno in FULL:
        return DiskFull(f"{what}: {error}; make room on the disk")
    return MachineError(f"{what}: {error}; mend the disk, then start the node again")
