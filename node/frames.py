"""Frames: checksummed pieces of a file, and how a torn one is told from a damaged one.

The problem. A crash may leave the last write half done; that tail was never acknowledged and must
be cut. A disk may also damage what *was* acknowledged; cutting there would forget committed
entries while the node goes on voting, so it must refuse to start. Both are bytes that do not fit.

The format. A file is a sequence of frames:

    payload size, u32 | crc of payload, u32 | crc of these 8 bytes, u32 | payload

all little-endian. One group commit is one frame, written by one call and flushed before the next,
so a crash can tear the last frame and no other. The header has a checksum of its own, because a
flipped bit in the size would otherwise make any frame look like a torn tail.

Telling torn from damaged. A frame that ends beyond the file is torn: the write was cut short. After
a power cut the file may have its full length with some 512-byte sectors never written; they read
as zeros. So a bad checksum counts as torn only in the last frame and only if it holds such a
sector. Where that is the sector with the header, the size is not known: then it is the last frame
if no whole one begins anywhere behind it. Everything else is damage.
"""

import struct
import zlib
from collections.abc import Iterator

_PREFIX = struct.Struct("<II")
_CRC = struct.Struct("<I")
HEADER_BYTES = _PREFIX.size + _CRC.size
_SECTOR_BYTES = 512
_UNWRITTEN_BYTES_MIN = 8
"""A shorter run of zeros at a frame's edge proves nothing: numbers hold a few as well."""


class Damaged(Exception):
    """Bytes that no crash explains, and where they begin."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"byte {offset}: {what}")
        self.offset = offset
        self.what = what


def encode_frame(payload: bytes) -> bytes:
    """The payload as one frame."""
    prefix = _PREFIX.pack(len(payload), zlib.crc32(payload))
    return b"".join((prefix, _CRC.pack(zlib.crc32(prefix)), payload))


def frame_size(header: bytes) -> int | None:
    """Length of the payload behind this header; None when the header is short or damaged."""
    if len(header) < HEADER_BYTES or _header_crc(header, 0) != _CRC.unpack_from(header, 8)[0]:
        return None
    return int(_PREFIX.unpack_from(header, 0)[0])


def is_sound(header: bytes, payload: bytes) -> bool:
    """Whether the payload is the one that belongs to the header."""
    return _PREFIX.pack(len(payload), zlib.crc32(payload)) == header[: _PREFIX.size]


def payloads(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each whole frame's offset and payload, up to a torn tail; raises Damaged."""
    offset = 0
    while offset < len(data):
        payload = _payload_at(data, offset)
        if payload is None:
            return
        yield offset, payload
        offset += HEADER_BYTES + len(payload)


def _payload_at(data: bytes, offset: int) -> bytes | None:
    body = offset + HEADER_BYTES
    if body > len(data):
        return None
    size, checksum = _PREFIX.unpack_from(data, offset)
    if _header_crc(data, offset) != _CRC.unpack_from(data, offset + _PREFIX.size)[0]:
        if not _is_torn_at(data, offset):
            raise Damaged(offset, "the header of a record does not match its checksum")
        return None
    end = body + size
    if end > len(data):
        return None
    payload = data[body:end]
    if zlib.crc32(payload) != checksum:
        if end < len(data) or not _has_unwritten_sector(data, body, end):
            raise Damaged(offset, "a record does not match its checksum")
        return None
    return payload


def _header_crc(data: bytes, offset: int) -> int:
    return zlib.crc32(data[offset : offset + _PREFIX.size])


def _is_torn_at(data: bytes, offset: int) -> bool:
    """Whether the header there was not written, or not all of it, in the last write of all."""
    if not any(data[offset:]):
        return True
    sector_end = -(-(offset + 1) // _SECTOR_BYTES) * _SECTOR_BYTES
    crosses = sector_end < offset + HEADER_BYTES
    if crosses and not any(data[sector_end:]):
        return True
    end = sector_end + _SECTOR_BYTES if crosses else sector_end
    return _has_unwritten_sector(data, offset, min(end, len(data))) and not any(
        _is_frame(data, place) for place in range(offset + 1, len(data) - HEADER_BYTES + 1)
    )


def _is_frame(data: bytes, offset: int) -> bool:
    """Whether a whole frame begins there."""
    size = frame_size(data[offset : offset + HEADER_BYTES])
    body = offset + HEADER_BYTES
    return (
        size is not None
        and body + size <= len(data)
        and zlib.crc32(data[body : body + size]) == _PREFIX.unpack_from(data, offset)[1]
    )


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    for sector in range(start - start % _SECTOR_BYTES, end, _SECTOR_BYTES):
        part = data[max(sector, start) : min(sector + _SECTOR_BYTES, end)]
        if len(part) >= _UNWRITTEN_BYTES_MIN and not any(part):
            return True
    return False
