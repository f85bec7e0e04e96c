"""A disk in memory that loses what was not flushed, tears writes, runs full and breaks.

Files and names are kept twice: as programs see them, and as they would be found after a power cut.
Changes of names become durable in their order, so a crash keeps a prefix of those that were not
flushed; of the bytes that were appended and not flushed it keeps a prefix, or leaves holes.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path

SECTOR_BYTES = 512


class Crash(Exception):
    """The machine lost its power."""


class Inode:
    """A file, whatever its name."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable_bytes = 0
        """So much from its beginning was flushed: only the end of a file changes."""


class SimDisk:
    """Implements `labrys.node.disk.Disk`; `operations` counts what changes something."""

    def __init__(self) -> None:
        self.operations = 0
        self.crash_at: int | None = None
        self.torn_bytes: int | None = None
        """How much of an append that crashes is written before the power goes."""
        self.capacity_bytes: int | None = None
        self.fail: Callable[[str], None] = lambda what: None
        """Called before each operation with its name; may raise OSError."""
        self.names_now: dict[Path, Inode] = {}
        self._names_durable: dict[Path, Inode] = {}
        self._changes: list[tuple[Path, str, Path, Inode | None]] = []
        self._locks: set[Path] = set()

    # ---- faults -------------------------------------------------------------------------------

    def step(self, what: str) -> None:
        """One more operation: may crash or fail before it does anything."""
        self.fail(what)
        self.operations += 1
        if self.operations == self.crash_at:
            raise Crash

    def flush(self, inode: Inode) -> None:
        """Make what was written to the file durable."""
        inode.durable_bytes = len(inode.content)

    def used_bytes(self) -> int:
        """What all files hold."""
        return sum(len(inode.content) for inode in self.names_now.values())

    def after_crash(self, keep: float, rng: random.Random) -> "SimDisk":
        """What is found when the power is back.

        Of what was not flushed `keep` is there: 0 nothing, 1 all, in between a part, with holes.
        """
        found = SimDisk()
        names = dict(self._names_durable)
        for directory, word, path, inode in self._changes[: round(keep * len(self._changes))]:
            _change(names, directory, word, path, inode)
        fresh: dict[int, Inode] = {}
        for path, inode in names.items():
            if id(inode) not in fresh:
                survivor = fresh[id(inode)] = Inode()
                survivor.content = bytearray(_survives(inode, keep, rng))
                survivor.durable_bytes = len(survivor.content)
            found.names_now[path] = found._names_durable[path] = fresh[id(inode)]
        return found

    # ---- labrys.node.disk.Disk ----------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Directories are always there."""

    def lock(self, path: Path) -> "SimFile | None":
        """The lock of a process that crashed is gone with it."""
        if path in self._locks:
            return None
        self._locks.add(path)
        return SimFile(self, Inode(), on_close=lambda: self._locks.discard(path))

    def names(self, directory: Path) -> list[str]:
        """See `Disk`."""
        return sorted(path.name for path in self.names_now if path.parent == directory)

    def size(self, path: Path) -> int:
        """See `Disk`."""
        return len(self._inode(path).content)

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """See `Disk`."""
        content = self._inode(path).content
        return bytes(content[offset:] if size_bytes < 0 else content[offset : offset + size_bytes])

    def create(self, path: Path) -> "SimFile":
        """See `Disk`."""
        self.step("create")
        inode = Inode()
        self._change(path.parent, "link", path, inode)
        return SimFile(self, inode)

    def open(self, path: Path) -> "SimFile":
        """See `Disk`."""
        return SimFile(self, self._inode(path))

    def rename(self, old: Path, new: Path) -> None:
        """See `Disk`."""
        self.step("rename")
        inode = self._inode(old)
        # One change: after a crash both names are as before or both as after.
        self._change(old.parent, "rename", old, inode)
        self._changes[-1] = (new.parent, f"rename {new.name}", old, inode)
        self.names_now[new] = inode
        self.names_now.pop(old, None)

    def remove(self, path: Path) -> None:
        """See `Disk`."""
        if path in self.names_now:
            self.step("remove")
            self._change(path.parent, "unlink", path, None)

    def flush_directory(self, path: Path) -> None:
        """See `Disk`."""
        self.step("flush_directory")
        rest = []
        for change in self._changes:
            if change[0] == path:
                _change(self._names_durable, *change)
            else:
                rest.append(change)
        self._changes = rest

    def _change(self, directory: Path, word: str, path: Path, inode: Inode | None) -> None:
        self._changes.append((directory, word, path, inode))
        if word in ("link", "unlink"):
            _change(self.names_now, directory, word, path, inode)

    def _inode(self, path: Path) -> Inode:
        if path not in self.names_now:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return self.names_now[path]


class SimFile:
    """Implements `labrys.node.disk.File`."""

    def __init__(
        self, disk: SimDisk, inode: Inode, on_close: Callable[[], None] = lambda: None
    ) -> None:
        self._disk = disk
        self._inode = inode
        self._on_close = on_close

    def append(self, data: bytes | memoryview) -> None:
        """See `File`."""
        disk = self._disk
        try:
            disk.step("append")
        except Crash:
            torn = len(data) if disk.torn_bytes is None else min(disk.torn_bytes, len(data))
            self._inode.content += data[:torn]
            raise
        if disk.capacity_bytes is not None:
            room = max(0, disk.capacity_bytes - disk.used_bytes())
            if room < len(data):
                self._inode.content += data[:room]
                raise OSError(errno.ENOSPC, "No space left on device")
        self._inode.content += data

    def flush(self) -> None:
        """See `File`."""
        self._disk.step("flush")
        self._disk.flush(self._inode)

    def cut(self, size_bytes: int) -> None:
        """See `File`."""
        self._disk.step("cut")
        del self._inode.content[size_bytes:]
        self._inode.durable_bytes = len(self._inode.content)

    def close(self) -> None:
        """See `File`."""
        self._on_close()


def _change(
    names: dict[Path, Inode], directory: Path, word: str, path: Path, inode: Inode | None
) -> None:
    match word.split(" "):
        case ["unlink"]:
            names.pop(path, None)
        case ["link"] if inode is not None:
            names[path] = inode
        case ["rename", new] if inode is not None:
            names.pop(path, None)
            names[directory / new] = inode
        case _:
            raise AssertionError(f"no such change: {word}")


def _survives(inode: Inode, keep: float, rng: random.Random) -> bytes:
    written = bytes(inode.content)
    flushed = written[: inode.durable_bytes]
    added = bytearray(written[len(flushed) :])
    if keep >= 1 or not added:
        return written
    if keep <= 0:
        return flushed
    if rng.random() < 0.5:
        return flushed + bytes(added[: rng.randrange(len(added) + 1)])
    # The length is there, but some sectors were never written.
    start = len(flushed)
    for sector in range(start - start % SECTOR_BYTES, len(written), SECTOR_BYTES):
        if rng.random() < 0.5:
            low, high = max(sector, start) - start, min(sector + SECTOR_BYTES, len(written)) - start
            added[low:high] = bytes(high - low)
    return flushed + bytes(added)
