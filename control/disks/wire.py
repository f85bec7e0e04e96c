"""How the kernel and a file system talk over /dev/fuse: linux/fuse.h, as far as it is used here.

The standard library only, and nothing of ours but the volume: this file runs inside the nodes.
"""

import os
import struct
from enum import IntEnum
from typing import NamedTuple

from labrys.control.disks.volume import File, Node

WRITE_BYTES = 1 << 20
"""The longest write that comes in one request."""
CONTROL_NUMBER = (1 << 62) + 1
"""The node of the file through which the disk is told what to do."""

HEADER = struct.Struct("<IIQQIIIHH")
OUT = struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHIIHHIIIII")
OPEN_OUT = struct.Struct("<QIi")
WRITE_IN = struct.Struct("<QQIIQII")
WRITE_OUT = struct.Struct("<II")
READ_IN = struct.Struct("<QQI")
SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
DIRENT = struct.Struct("<QQII")
U32 = struct.Struct("<I")
U32X2 = struct.Struct("<II")
U64 = struct.Struct("<Q")
U64X2 = struct.Struct("<QQ")
FALLOCATE_IN = struct.Struct("<QQQII")
RENAME2_IN = struct.Struct("<QII")

BIG_WRITES, PARALLEL_DIROPS, HANDLE_KILLPRIV = 1 << 5, 1 << 18, 1 << 19
MAX_PAGES, INIT_EXT = 1 << 22, 1 << 30
DIRECT_IO_ALLOW_MMAP = 1 << 4  # of the second word of flags
FOPEN_DIRECT_IO = 1
SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_MTIME, SET_MTIME_NOW = 1, 2, 4, 8, 32, 256


class Op(IntEnum):
    """What a request can be."""

    LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
    MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK = 8, 9, 10, 11, 12, 13
    OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
    INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 26, 27, 28, 29, 30
    CREATE, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, RENAME2 = 35, 36, 38, 42, 43, 45


class Request(NamedTuple):
    """What the kernel asks for."""

    opcode: int
    unique: int
    """Its own number, which the answer repeats."""
    number: int
    """Of the node that it is about."""
    uid: int
    gid: int
    body: memoryview
    """Belongs to the buffer that it was read into, and changes with the next request."""


def attributes(node: Node) -> bytes:
    """What stat(2) tells of a node."""
    size = node.size
    seconds, nanoseconds = divmod(node.modified_ns, 1_000_000_000)
    changed, changed_ns = divmod(node.changed_ns, 1_000_000_000)
    return ATTR.pack(
        node.number, size, -(-size // 512), seconds, seconds, changed, nanoseconds, nanoseconds,
        changed_ns, node.kind | node.mode, node.links, node.uid, node.gid, 0, 4096, 0,
    )  # fmt: skip


def control_attributes() -> bytes:
    """The same of the control file."""
    mode = File.kind | 0o600
    uid, gid = os.geteuid(), os.getegid()
    return ATTR.pack(CONTROL_NUMBER, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, uid, gid, 0, 4096, 0)


def name_in(body: memoryview) -> bytes:
    """The name at the beginning of a body."""
    return bytes(body).partition(b"\0")[0]


def hello(body: memoryview) -> bytes:
    """The answer to the kernel's first words: what is agreed upon.

    Nothing is cached, so that whatever is read and written comes here; where the kernel knows how,
    files can be mapped into memory all the same.
    """
    _, minor, readahead, flags = INIT_IN.unpack_from(body)
    wanted = BIG_WRITES | HANDLE_KILLPRIV | MAX_PAGES | INIT_EXT | PARALLEL_DIROPS
    second = 0
    if flags & INIT_EXT and len(body) >= 20:
        second = U32.unpack_from(body, INIT_IN.size)[0] & DIRECT_IO_ALLOW_MMAP
    return INIT_OUT.pack(
        7, min(minor, 38), readahead, flags & wanted, 12, 9, WRITE_BYTES, 1, WRITE_BYTES // 4096,
        0, second, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
