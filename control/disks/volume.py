"""A disk in memory that knows what would survive a power failure, and can have one.

The standard library only, and nothing of ours: this file runs inside the nodes.

The problem. A killed process loses nothing that it wrote: the kernel still has it. Only a power
failure shows whether a database flushes what it acknowledges, so the disk must know at any moment
what is durable, at the speed at which a database writes.

The idea. A file is its content as programs see it, and what it takes to go back: the size that
was flushed last and, for every sector below that size that was changed since, its old content.
Appending saves nothing, and a flush forgets, so both cost what they always do. Names are a tree as
programs see it and one that is durable; between them stands the list of changes. A change is made
durable by flushing one of the directories that it touches, and takes along the earlier changes that
it rests upon.

Invariants
- What was flushed is never lost: bytes below the flushed size change only in sectors that somebody
  wrote to since.
- After a power failure a name is there or not, a rename happened or not: changes of names are
  atomic and survive in their order, none, some or all of those that were not flushed.
- A torn file is torn at the borders of sectors.

Flushing a file does not flush its name, as POSIX has it; most file systems are kinder.
"""

import errno
import os
import random
import time
from collections.abc import Iterator

SECTOR_BYTES = 512
LOSE, TEAR, HOLES, KEEP = "lose", "tear", "holes", "keep"
UNSYNCED = (LOSE, TEAR, HOLES, KEEP)
"""What becomes of what was not flushed; see `Volume.power_failure`."""
CAPACITY_BYTES = 1 << 30
"""How much fits on a disk that is not full."""
PENDING_MAX = 10_000
"""So many changes of names wait at most to be flushed; of more, the oldest become durable."""
NAME_BYTES_MAX = 255
NOREPLACE = 1


class Node:
    """A file, directory or link, whatever its names."""

    kind = 0

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.links = 1
        self.modified_ns = self.changed_ns = time.time_ns()

    @property
    def size(self) -> int:
        """As stat(2) tells it."""
        return 0


class File(Node):
    """Bytes, and the way back to those that are durable."""

    kind = 0o100000

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(number, mode, uid, gid)
        self.content = bytearray()
        self.synced_size = 0
        self.saved: dict[int, bytes] = {}
        """By number: what sectors below the flushed size held when they were flushed."""

    @property
    def size(self) -> int:
        """Its length."""
        return len(self.content)

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self.saved) or self.synced_size != len(self.content)

    def save(self, low: int, high: int) -> None:
        """Remember the durable sectors that hold bytes from `low` to `high`."""
        for sector in range(low // SECTOR_BYTES, -(-high // SECTOR_BYTES)):
            if sector not in self.saved:
                start = sector * SECTOR_BYTES
                end = min(start + SECTOR_BYTES, self.synced_size)
                self.saved[sector] = bytes(self.content[start:end])

    def sync(self) -> None:
        """Make the content durable."""
        self.saved.clear()
        self.synced_size = len(self.content)

    def durable(self) -> bytearray:
        """The content that is durable."""
        found = self.content[: self.synced_size]
        found.extend(bytes(self.synced_size - len(found)))
        for sector, old in self.saved.items():
            start = sector * SECTOR_BYTES
            found[start : start + len(old)] = old
        return found


class Directory(Node):
    """Names, and those of them that are durable."""

    kind = 0o040000

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(number, mode, uid, gid)
        self.links = 2
        self.names: dict[bytes, Node] = {}
        self.durable_names: dict[bytes, Node] = {}


class Link(Node):
    """A symbolic link."""

    kind = 0o120000

    def __init__(self, number: int, uid: int, gid: int, target: bytes) -> None:
        super().__init__(number, 0o777, uid, gid)
        self.target = target

    @property
    def size(self) -> int:
        """The length of what it points at."""
        return len(self.target)


Change = tuple[tuple[Directory, bytes, Node | None], ...]
"""Names that are given to nodes or (None) taken away, all at once."""


class Volume:
    """A file system. Methods raise OSError."""

    def __init__(self) -> None:
        self.capacity_bytes = CAPACITY_BYTES
        self.used_bytes = 0
        """What files with a name hold."""
        self._last_number = 1
        self._pending: list[Change] = []
        self.root = Directory(1, 0o755, os.geteuid(), os.getegid())

    # ---- names --------------------------------------------------------------------------------

    def find(self, directory: Directory, name: bytes) -> Node:
        """The node of that name."""
        try:
            return directory.names[name]
        except KeyError:
            _check_length(name)
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def create(self, directory: Directory, name: bytes, mode: int, uid: int, gid: int) -> File:
        """A new, empty file."""
        made = File(self._number(), mode & 0o7777, uid, gid)
        self._add(directory, name, made)
        return made

    def make_directory(
        self, directory: Directory, name: bytes, mode: int, uid: int, gid: int
    ) -> Directory:
        """A new, empty directory."""
        made = Directory(self._number(), mode & 0o7777, uid, gid)
        self._add(directory, name, made)
        directory.links += 1
        return made

    def make_link(
        self, directory: Directory, name: bytes, target: bytes, uid: int, gid: int
    ) -> Link:
        """A new symbolic link."""
        made = Link(self._number(), uid, gid, target)
        self._add(directory, name, made)
        return made

    def add_name(self, node: Node, directory: Directory, name: bytes) -> None:
        """Another name for a file."""
        self._add(directory, name, node)
        node.links += 1

    def unlink(self, directory: Directory, name: bytes) -> None:
        """Take a name away that is no directory's."""
        node = self.find(directory, name)
        if isinstance(node, Directory):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._change(((directory, name, None),))
        self._drop(node)

    def remove_directory(self, directory: Directory, name: bytes) -> None:
        """Remove an empty directory."""
        node = self.find(directory, name)
        if not isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if node.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        self._change(((directory, name, None),))
        directory.links -= 1

    def rename(
        self, old: Directory, old_name: bytes, new: Directory, new_name: bytes, flags: int = 0
    ) -> None:
        """Give a node another name, in the place of one that may be there."""
        node = self.find(old, old_name)
        _check_length(new_name)
        there = new.names.get(new_name)
        if flags & ~NOREPLACE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if there is not None and flags & NOREPLACE:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if there is node:
            return
        is_directory = isinstance(node, Directory)
        if isinstance(there, Directory):
            if not is_directory:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            if there.names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            new.links -= 1
        elif there is not None:
            if is_directory:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._drop(there)
        self._change(((old, old_name, None), (new, new_name, node)))
        if is_directory:
            old.links -= 1
            new.links += 1

    def sync_directory(self, directory: Directory) -> None:
        """Make the names in `directory` durable, with the earlier changes that they rest upon."""
        touched = {directory}
        flushed: list[Change] = []
        rest: list[Change] = []
        for change in reversed(self._pending):
            directories = {place for place, _, _ in change}
            if directories & touched:
                touched |= directories
                flushed.append(change)
            else:
                rest.append(change)
        for change in reversed(flushed):
            _make_durable(change)
        self._pending = rest[::-1]

    # ---- content ------------------------------------------------------------------------------

    def write(self, file: File, offset: int, data: bytes | memoryview) -> int:
        """Put `data` there and return how much of it there was room for; raises ENOSPC at none."""
        content = file.content
        before = len(content)
        end = offset + len(data)
        if end > before and file.links:
            room = self.capacity_bytes - self.used_bytes
            if end - before > room:
                end = max(before + room, min(end, before))
                if end <= offset:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                data = data[: end - offset]
            self.used_bytes += max(0, end - before)
        if offset < file.synced_size:
            file.save(offset, min(end, file.synced_size))
        if offset > before:
            content.extend(bytes(offset - before))
        content[offset:end] = data
        file.modified_ns = time.time_ns()
        return len(data)

    def resize(self, file: File, size: int) -> None:
        """Cut the file, or fill it up with zeros."""
        before = len(file.content)
        if size > before:
            if file.links and self.used_bytes + size - before > self.capacity_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.content.extend(bytes(size - before))
        elif size < before:
            if size < file.synced_size:
                file.save(size, min(before, file.synced_size))
            del file.content[size:]
        if file.links:
            self.used_bytes += size - before
        file.modified_ns = time.time_ns()

    def sync_all(self) -> None:
        """Make everything durable."""
        for change in self._pending:
            _make_durable(change)
        self._pending.clear()
        for file in _files(self.root):
            file.sync()

    # ---- power failure ------------------------------------------------------------------------

    def power_failure(self, unsynced: str, seed: str) -> dict[str, int]:
        """Go back to what survives one; tells how much did not. Open files are no more.

        What was not flushed is lost (`lose`), is all there (`keep`), or survives in part: names in
        their order up to some point, and of each file nothing, all, or a part. With `tear` the part
        is what a file system leaves that writes data before sizes: the beginning of what was added,
        and any sectors of what was overwritten. With `holes` it is any sectors of both: the size
        may be there without the data, which then reads as zeros.
        """
        rng = random.Random(seed)
        lost_names = {LOSE: len(self._pending), KEEP: 0}.get(unsynced)
        if lost_names is None:
            lost_names = rng.randint(0, len(self._pending))
        before = list(_files(self.root))
        for change in self._pending[: len(self._pending) - lost_names]:
            _make_durable(change)
        survivors: dict[Node, Node] = {}
        facts = {"lost_names": lost_names, "lost_bytes": 0, "torn_files": 0}
        self._pending = []
        self.used_bytes = 0
        self.root = self._survivor_tree(self.root, survivors)
        for old, new in survivors.items():
            if isinstance(old, File) and isinstance(new, File):
                content, lost_bytes, is_torn = surviving(old, unsynced, rng)
                new.content = content
                new.sync()
                self.used_bytes += len(content)
                facts["lost_bytes"] += lost_bytes
                facts["torn_files"] += is_torn
        facts["lost_bytes"] += sum(len(file.content) for file in before if file not in survivors)
        return facts

    def _survivor_tree(self, root: Directory, survivors: dict[Node, Node]) -> Directory:
        """Copy the durable tree without the files' content; `survivors` tells what became what."""

        def copied(node: Node) -> Node:
            number = 1 if node is root else self._number()
            if isinstance(node, Directory):
                return Directory(number, node.mode, node.uid, node.gid)
            if isinstance(node, Link):
                return Link(number, node.uid, node.gid, node.target)
            return File(number, node.mode, node.uid, node.gid)

        fresh = copied(root)
        assert isinstance(fresh, Directory), "the root is one"
        survivors[root] = fresh
        waiting = [(root, fresh)]
        while waiting:
            old, new = waiting.pop()
            for name, node in old.durable_names.items():
                if node in survivors:
                    survivors[node].links += 1
                else:
                    made = survivors[node] = copied(node)
                    if isinstance(node, Directory) and isinstance(made, Directory):
                        new.links += 1
                        waiting.append((node, made))
                new.names[name] = new.durable_names[name] = survivors[node]
        return fresh

    # ---- helpers ------------------------------------------------------------------------------

    def _number(self) -> int:
        """Never one that was there before: whoever still has the old node must not get the new."""
        self._last_number += 1
        return self._last_number

    def _add(self, directory: Directory, name: bytes, node: Node) -> None:
        _check_length(name)
        if name in directory.names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._change(((directory, name, node),))

    def _drop(self, node: Node) -> None:
        node.links -= 1
        node.changed_ns = time.time_ns()
        if not node.links and isinstance(node, File):
            self.used_bytes -= len(node.content)

    def _change(self, change: Change) -> None:
        for directory, name, node in change:
            if node is None:
                directory.names.pop(name, None)
            else:
                directory.names[name] = node
            directory.modified_ns = time.time_ns()
        self._pending.append(change)
        if len(self._pending) > PENDING_MAX:
            _make_durable(self._pending.pop(0))


def _check_length(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _make_durable(change: Change) -> None:
    for directory, name, node in change:
        if node is None:
            directory.durable_names.pop(name, None)
        else:
            directory.durable_names[name] = node


def _files(root: Directory) -> Iterator[File]:
    """All files below `root`, each once."""
    seen: set[Node] = {root}
    waiting = [root]
    while waiting:
        for node in waiting.pop().names.values():
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, Directory):
                waiting.append(node)
            elif isinstance(node, File):
                yield node


def surviving(file: File, unsynced: str, rng: random.Random) -> tuple[bytearray, int, bool]:
    """What a file holds after a power failure, how many bytes are not there, whether it is torn."""
    if not file.is_dirty:
        return file.content, 0, False
    if unsynced not in (LOSE, KEEP):
        # Each file has its own luck.
        unsynced = rng.choice((LOSE, KEEP, unsynced, unsynced))
    new, old = file.content, file.durable()
    if unsynced == KEEP:
        return new, 0, False
    changed = sorted({*file.saved, *_sectors(len(old), len(new))})
    if unsynced == LOSE:
        kept: set[int] = set()
        size = len(old)
    elif unsynced == TEAR:
        # A size that grew is written after the data, one that shrank may come before or after.
        borders = [len(old), len(new)]
        borders += [sector * SECTOR_BYTES for sector in _sectors(len(old), len(new))][1:]
        size = rng.choice(borders)
        kept = {sector for sector in changed if sector * SECTOR_BYTES >= len(old)}
        kept |= {sector for sector in changed if sector in file.saved and rng.random() < 0.5}
        if len(old) % SECTOR_BYTES and size > len(old):
            kept.add(len(old) // SECTOR_BYTES)
    else:
        size = rng.choice((len(old), len(new)))
        kept = {sector for sector in changed if rng.random() < 0.5}
    found = old[:size]
    found.extend(bytes(size - len(found)))
    lost_bytes = 0
    for sector in changed:
        start = sector * SECTOR_BYTES
        end = start + SECTOR_BYTES
        if sector in kept and start < size:
            part = new[start : min(end, size)]
            found[start : start + len(part)] = part
            lost_bytes += max(0, min(end, len(new)) - max(start, size))
        else:
            written_from = start if sector in file.saved else max(start, len(old))
            lost_bytes += max(0, min(end, len(new)) - written_from)
    return found, lost_bytes, found not in (old, new)


def _sectors(low: int, high: int) -> range:
    """The sectors that hold bytes from `low` to `high`."""
    return range(low // SECTOR_BYTES, -(-high // SECTOR_BYTES)) if high > low else range(0)
