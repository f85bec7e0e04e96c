"""The durable log: terms, votes and entries in one checksummed file.

The problem. A crash may leave the last write half done; that tail was never acknowledged and must
be cut. A disk may also damage what *was* acknowledged; cutting there would forget committed
entries while the node goes on voting, so it must refuse to start. Both are bytes that do not fit.

The format. The file is a sequence of frames. One group commit is one frame, written by one call
and flushed before the next, so a crash can tear the last frame and no other:

    payload size, u32 | crc of payload, u32 | crc of these 8 bytes, u32 | payload

all little-endian. The payload is a MessagePack list of records: an identity (first frame only), a
new term and vote, or entries that replace the log from an index on. The header has a checksum of
its own, because a flipped bit in the size would otherwise make any frame look like a torn tail.

Telling torn from corrupt. A frame that ends beyond the file is torn: the write was cut short. After
a power cut the file may have its full length with some 512-byte sectors never written; they read
as zeros. So a bad checksum counts as torn only in the last frame and only if it holds such a
sector. Everything else is corruption, reported with file, offset and what to do.

A failed write or fsync is final: the kernel may have dropped the dirty pages and will call the next
fsync a success. The caller stops the node.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from labrys.node.effects import Persist
from labrys.node.errors import CorruptLog, MachineError
from labrys.node.messages import Entry, HardState, NodeId

FORMAT = 1
_PREFIX = struct.Struct("<II")
_CRC = struct.Struct("<I")
HEADER_BYTES = _PREFIX.size + _CRC.size
_SECTOR_BYTES = 512
_UNWRITTEN_BYTES_MIN = 8
"""A shorter run of zeros at a frame's edge proves nothing: numbers hold a few as well."""


class Identity(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Whose log this is, in which format."""

    format: int
    node: NodeId


class StateRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A new term or vote."""

    state: HardState


class EntriesRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """These entries replace the log from `first_index` on."""

    first_index: int
    entries: tuple[Entry, ...]


Record = Identity | StateRecord | EntriesRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Record]] = msgspec.msgpack.Decoder(list[Record])


def encode_frame(records: Sequence[Record]) -> bytes:
    """The records as one frame."""
    payload = _encoder.encode(records)
    prefix = _PREFIX.pack(len(payload), zlib.crc32(payload))
    return b"".join((prefix, _CRC.pack(zlib.crc32(prefix)), payload))


class Storage:
    """The log file of one node, locked against a second process. Blocking: call it from a thread.

    `hard_state` and `entries` hold what was found when it was opened; they do not follow writes.
    """

    def __init__(self, directory: Path, node: NodeId) -> None:
        """Open or create; raises MachineError, or CorruptLog when the file is damaged."""
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.cut_bytes = 0
        """Length of the torn tail that was removed."""
        self._node = node
        self._path = directory / "log"
        try:
            with contextlib.ExitStack() as descriptors:
                _make_directory(directory)
                descriptors.callback(os.close, _lock_directory(directory))
                if not self._path.exists():
                    self._create()
                self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
                descriptors.callback(os.close, self._file)
                self._recover()
                self._descriptors = descriptors.pop_all()
        except OSError as error:
            raise MachineError(f"cannot use the data directory {directory}: {error}") from error

    def write(self, batches: Sequence[Persist]) -> None:
        """Make the batches durable with one write and one flush; raises MachineError, finally."""
        records: list[Record] = []
        for batch in batches:
            if batch.hard_state is not None:
                records.append(StateRecord(batch.hard_state))
            if batch.entries:
                records.append(EntriesRecord(batch.first_index, batch.entries))
        if not records:
            return
        frame = memoryview(encode_frame(records))
        try:
            while frame:
                frame = frame[os.write(self._file, frame) :]
            os.fdatasync(self._file)
        except OSError as error:
            raise MachineError(
                f"writing {self._path} failed: {error}; what is on disk is unknown now, so this "
                "node stops. Mend the disk, then start it again"
            ) from error

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._descriptors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self) -> None:
        # Under another name first: a log that exists always begins with its identity.
        draft = self._path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, encode_frame([Identity(FORMAT, self._node)]))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.rename(self._path)
        _sync_directory(self._path.parent)

    def _recover(self) -> None:
        data = self._path.read_bytes()
        offset = 0
        while offset < len(data):
            payload = self._payload_at(data, offset)
            if payload is None:
                self.cut_bytes = len(data) - offset
                os.ftruncate(self._file, offset)
                os.fsync(self._file)
                break
            self._replay(payload, offset)
            offset += HEADER_BYTES + len(payload)
        if offset == 0:
            raise self._corrupt(0, "the identity at its beginning is missing")

    def _payload_at(self, data: bytes, offset: int) -> bytes | None:
        """The payload of the frame at `offset`, None if a crash tore it; raises CorruptLog."""
        body = offset + HEADER_BYTES
        if body > len(data):
            return None
        size, checksum = _PREFIX.unpack_from(data, offset)
        (header_checksum,) = _CRC.unpack_from(data, offset + _PREFIX.size)
        if zlib.crc32(data[offset : offset + _PREFIX.size]) != header_checksum:
            # A header is torn only if nothing after it was written either.
            sector_end = -(-(offset + 1) // _SECTOR_BYTES) * _SECTOR_BYTES
            if any(data[offset:]) and (sector_end >= body or any(data[sector_end:])):
                raise self._corrupt(offset, "the header of a record does not match its checksum")
            return None
        end = body + size
        if end > len(data):
            return None
        payload = data[body:end]
        if zlib.crc32(payload) != checksum:
            if end < len(data) or not _has_unwritten_sector(data, body, end):
                raise self._corrupt(offset, "a record does not match its checksum")
            return None
        return payload

    def _replay(self, payload: bytes, offset: int) -> None:
        try:
            records = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise self._corrupt(offset, f"a record cannot be read ({error})") from error
        if isinstance(records[0], Identity) != (offset == 0):
            raise self._corrupt(offset, "the identity is not where it belongs")
        for record in records:
            match record:
                case Identity(format_number, node):
                    if (format_number, node) != (FORMAT, self._node):
                        raise MachineError(
                            f"{self._path} belongs to node {node} (format {format_number}), this "
                            f"is node {self._node} (format {FORMAT}): give each node its own --data"
                        )
                case StateRecord(state):
                    self.hard_state = state
                case EntriesRecord(first_index, entries):
                    if not 1 <= first_index <= len(self.entries) + 1:
                        raise self._corrupt(offset, f"entries before {first_index} are missing")
                    del self.entries[first_index - 1 :]
                    self.entries.extend(entries)

    def _corrupt(self, offset: int, what: str) -> CorruptLog:
        return CorruptLog(
            f"{self._path} is damaged at byte {offset}: {what}. Entries that this node has "
            "acknowledged are lost here, so it must not vote with what is left. Restore the file "
            "from a copy, or remove this node from the cluster and add a new one"
        )


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    for sector in range(start - start % _SECTOR_BYTES, end, _SECTOR_BYTES):
        part = data[max(sector, start) : min(sector + _SECTOR_BYTES, end)]
        if len(part) >= _UNWRITTEN_BYTES_MIN and not any(part):
            return True
    return False


def _make_directory(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_directory(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise MachineError(
            f"the data directory {directory} is in use by another node: stop it, or give this one "
            "another --data"
        ) from error
    return descriptor
