"""What the kernel asks a file system for, done to a `Volume`.

The standard library only, and nothing of ours but the volume: this file runs inside the nodes.
"""

import errno
import os
import time
from collections.abc import Callable

from labrys.control.disks import wire
from labrys.control.disks.volume import CAPACITY_BYTES, Directory, File, Link, Node, Volume
from labrys.control.disks.wire import Op, Request, attributes, name_in


class FileSystem:
    """Answers requests, one after the other."""

    def __init__(self, volume: Volume, lies: Callable[[], bool]) -> None:
        """`lies` is asked at each flush: whether it is to do nothing."""
        self.counts = {"reads": 0, "writes": 0, "fsyncs": 0, "short": 0}
        """What was done; `short` counts writes for which there was not enough room."""
        self._volume = volume
        self._lies = lies
        self._nodes: dict[int, Node] = {}
        self._lookups: dict[int, int] = {}
        """How often the kernel was told of a node and has not forgotten it since."""
        self._listings: dict[int, list[bytes]] = {}
        """Of open directories."""
        self._last_handle = 0
        self._do: dict[int, Callable[[Request], bytes | None]] = {
            Op.LOOKUP: self._lookup, Op.FORGET: self._forget, Op.BATCH_FORGET: self._batch_forget,
            Op.GETATTR: self._getattr, Op.SETATTR: self._setattr, Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink, Op.MKNOD: self._mknod, Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink, Op.RMDIR: self._rmdir, Op.RENAME: self._rename,
            Op.RENAME2: self._rename, Op.LINK: self._link, Op.OPEN: self._open,
            Op.READ: self._read, Op.WRITE: self._write, Op.STATFS: self._statfs,
            Op.RELEASE: self._release, Op.RELEASEDIR: self._release, Op.FSYNC: self._fsync,
            Op.FSYNCDIR: self._fsyncdir, Op.OPENDIR: self._opendir, Op.READDIR: self._readdir,
            Op.CREATE: self._create, Op.FALLOCATE: self._fallocate,
        }  # fmt: skip
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all nodes, of which the volume has new ones: who still has an old one is told."""
        self._nodes = {1: self._volume.root}
        self._lookups.clear()

    def answer(self, request: Request) -> bytes | None:
        """Do it and return the answer; None: the kernel wants none. Raises OSError."""
        action = self._do.get(request.opcode)
        if action is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return action(request)

    def is_clean(self, request: Request) -> bool:
        """Whether it is about a file of which everything is durable."""
        node = self._nodes.get(request.number)
        return isinstance(node, File) and not node.is_dirty

    def _node(self, number: int) -> Node:
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def _file(self, number: int) -> File:
        node = self._node(number)
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def _directory(self, number: int) -> Directory:
        node = self._node(number)
        if not isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return node

    def _entry(self, node: Node) -> bytes:
        self._nodes[node.number] = node
        self._lookups[node.number] = self._lookups.get(node.number, 0) + 1
        return wire.ENTRY.pack(node.number, 0, 0, 0, 0, 0) + attributes(node)

    def _lookup(self, request: Request) -> bytes:
        directory = self._directory(request.number)
        return self._entry(self._volume.find(directory, name_in(request.body)))

    def _forget(self, request: Request) -> None:
        self._forget_one(request.number, wire.U64.unpack_from(request.body)[0])

    def _batch_forget(self, request: Request) -> None:
        (count,) = wire.U32.unpack_from(request.body)
        for place in range(count):
            self._forget_one(*wire.U64X2.unpack_from(request.body, 8 + 16 * place))

    def _forget_one(self, number: int, times: int) -> None:
        left = self._lookups.get(number, 0) - times
        if left > 0:
            self._lookups[number] = left
        else:
            self._lookups.pop(number, None)
            if number != 1:
                self._nodes.pop(number, None)

    def _getattr(self, request: Request) -> bytes:
        return bytes(16) + attributes(self._node(request.number))

    def _setattr(self, request: Request) -> bytes:
        (valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode, _, uid, gid, _) = (
            wire.SETATTR_IN.unpack_from(request.body)
        )
        node = self._node(request.number)
        if valid & wire.SET_SIZE:
            self._volume.resize(self._file(request.number), size)
        if valid & wire.SET_MODE:
            node.mode = mode & 0o7777
        if valid & wire.SET_UID:
            node.uid = uid
        if valid & wire.SET_GID:
            node.gid = gid
        if valid & wire.SET_MTIME_NOW:
            node.modified_ns = time.time_ns()
        elif valid & wire.SET_MTIME:
            node.modified_ns = mtime * 1_000_000_000 + mtime_ns
        node.changed_ns = time.time_ns()
        return bytes(16) + attributes(node)

    def _readlink(self, request: Request) -> bytes:
        node = self._node(request.number)
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return node.target

    def _symlink(self, request: Request) -> bytes:
        name, target = bytes(request.body).split(b"\0")[:2]
        directory = self._directory(request.number)
        self._require_room()
        return self._entry(
            self._volume.make_link(directory, name, target, request.uid, request.gid)
        )

    def _mknod(self, request: Request) -> bytes:
        (mode,) = wire.U32.unpack_from(request.body)
        if mode & 0o170000 not in (0, File.kind):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return self._entry(self._made(request, mode, name_in(request.body[16:])))

    def _mkdir(self, request: Request) -> bytes:
        mode, _ = wire.U32X2.unpack_from(request.body)
        directory = self._directory(request.number)
        self._require_room()
        name = name_in(request.body[8:])
        return self._entry(
            self._volume.make_directory(directory, name, mode, request.uid, request.gid)
        )

    def _create(self, request: Request) -> bytes:
        _, mode = wire.U32X2.unpack_from(request.body)
        made = self._made(request, mode, name_in(request.body[16:]))
        return self._entry(made) + wire.OPEN_OUT.pack(0, wire.FOPEN_DIRECT_IO, 0)

    def _made(self, request: Request, mode: int, name: bytes) -> File:
        directory = self._directory(request.number)
        self._require_room()
        return self._volume.create(directory, name, mode, request.uid, request.gid)

    def _require_room(self) -> None:
        """A full disk has no room for a new name either."""
        if self._volume.used_bytes >= self._volume.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _unlink(self, request: Request) -> bytes:
        self._volume.unlink(self._directory(request.number), name_in(request.body))
        return b""

    def _rmdir(self, request: Request) -> bytes:
        self._volume.remove_directory(self._directory(request.number), name_in(request.body))
        return b""

    def _rename(self, request: Request) -> bytes:
        flags = 0
        if request.opcode == Op.RENAME2:
            number, flags, _ = wire.RENAME2_IN.unpack_from(request.body)
            names = request.body[wire.RENAME2_IN.size :]
        else:
            (number,) = wire.U64.unpack_from(request.body)
            names = request.body[8:]
        old, new = bytes(names).split(b"\0")[:2]
        source, target = self._directory(request.number), self._directory(number)
        self._volume.rename(source, old, target, new, flags)
        return b""

    def _link(self, request: Request) -> bytes:
        (number,) = wire.U64.unpack_from(request.body)
        node = self._node(number)
        self._require_room()
        self._volume.add_name(node, self._directory(request.number), name_in(request.body[8:]))
        return self._entry(node)

    def _open(self, request: Request) -> bytes:
        self._file(request.number)
        return wire.OPEN_OUT.pack(0, wire.FOPEN_DIRECT_IO, 0)

    def _read(self, request: Request) -> bytes:
        _, offset, size = wire.READ_IN.unpack_from(request.body)
        self.counts["reads"] += 1
        return bytes(self._file(request.number).content[offset : offset + size])

    def _write(self, request: Request) -> bytes:
        _, offset, size, _, _, flags, _ = wire.WRITE_IN.unpack_from(request.body)
        data = request.body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]
        self.counts["writes"] += 1
        file = self._file(request.number)
        written = self._volume.write(file, offset, data)
        self.counts["short"] += written < size
        if flags & os.O_DSYNC and not self._lies():
            file.sync()
        return wire.WRITE_OUT.pack(written, 0)

    def _fsync(self, request: Request) -> bytes:
        self.counts["fsyncs"] += 1
        file = self._file(request.number)
        if not self._lies():
            file.sync()
        return b""

    def _fsyncdir(self, request: Request) -> bytes:
        self.counts["fsyncs"] += 1
        directory = self._directory(request.number)
        if not self._lies():
            self._volume.sync_directory(directory)
        return b""

    def _fallocate(self, request: Request) -> bytes:
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(request.body)
        file = self._file(request.number)
        if mode == 0:
            if offset + length > len(file.content):
                self._volume.resize(file, offset + length)
        elif mode != 1:  # FALLOC_FL_KEEP_SIZE
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return b""

    def _opendir(self, request: Request) -> bytes:
        names = [b".", b"..", *self._directory(request.number).names]
        self._last_handle += 1
        self._listings[self._last_handle] = names
        return wire.OPEN_OUT.pack(self._last_handle, 0, 0)

    def _readdir(self, request: Request) -> bytes:
        handle, offset, size = wire.READ_IN.unpack_from(request.body)
        directory = self._directory(request.number)
        names = self._listings.get(handle)
        if names is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        listed = bytearray()
        for place in range(offset, len(names)):
            name = names[place]
            node = directory if name in (b".", b"..") else directory.names.get(name)
            if node is None:
                continue  # removed since the directory was opened
            entry = wire.DIRENT.pack(node.number, place + 1, len(name), node.kind >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return bytes(listed)

    def _release(self, request: Request) -> bytes:
        (handle,) = wire.U64.unpack_from(request.body)
        self._listings.pop(handle, None)
        return b""

    def _statfs(self, request: Request) -> bytes:
        volume = self._volume
        free = max(0, volume.capacity_bytes - volume.used_bytes) // 4096
        blocks = CAPACITY_BYTES // 4096
        return wire.STATFS_OUT.pack(blocks, free, free, 1 << 20, 1 << 19, 4096, 255, 4096, 0)
