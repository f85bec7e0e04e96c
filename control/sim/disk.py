"""A disk in memory that loses what was not flushed, tears writes, runs full, lies and breaks.

Files and names are kept twice: as programs see them, and as they would be found after a power cut.
Changes of names become durable in their order, so a crash keeps a prefix of those that were not
flushed; of the bytes that were appended and not flushed it keeps a prefix, or leaves holes.
"""

import errno
import random
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from labrys.control.disks import volume

SECTOR_BYTES = 512


class Crash(Exception):
    """The machine lost its power."""


def sound(what: str) -> None:
    """Nothing is wrong with an operation."""


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
        self.refused = self.short = 0
        """How often there was no room for a write, and how often there was for a part of it."""
        self.fail: Callable[[str], None] = sound
        """Called before each operation with its name; may raise OSError."""
        self.lies: Callable[[], bool] | None = None
        """Asked at each flush whether it does nothing; None: flushes are honest."""
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
        if self.lies is None or not self.lies():
            inode.durable_bytes = len(inode.content)

    def flush_all(self) -> None:
        """Make everything durable."""
        for change in self._changes:
            _change(self._names_durable, *change)
        self._changes.clear()
        for inode in self.names_now.values():
            inode.durable_bytes = len(inode.content)

    def unflushed_bytes(self, prefix: str) -> int:
        """How much of the files whose names begin so a power cut would take."""
        return sum(
            len(inode.content) - inode.durable_bytes
            for path, inode in self.names_now.items()
            if path.name.startswith(prefix)
        )

    def used_bytes(self) -> int:
        """What all files hold."""
        return sum(len(inode.content) for inode in self.names_now.values())

    def after_crash(self, keep: float, rng: random.Random) -> "SimDisk":
        """What is found when the power is back.

        Of what was not flushed `keep` is there: 0 nothing, 1 all, in between a part, with holes.
        """
        kept = round(keep * len(self._changes))
        return self._survivor(kept, lambda inode: _survives(inode, keep, rng))

    def after_power_failure(self, unsynced: str, seed: str) -> tuple["SimDisk", dict[str, int]]:
        """What is found after one, and what is not: as `volume.Volume.power_failure` has it."""
        rng = random.Random(seed)
        pending = len(self._changes)
        lost_names = {volume.LOSE: pending, volume.KEEP: 0}.get(unsynced)
        if lost_names is None:
            lost_names = rng.randint(0, pending)
        facts = {"lost_names": lost_names, "lost_bytes": 0, "torn_files": 0}
        lost = {id(inode): inode for inode in self.names_now.values()}

        def survives(inode: Inode) -> bytearray:
            lost.pop(id(inode), None)
            file = volume.File(0, 0, 0, 0)
            file.content, file.synced_size = inode.content, inode.durable_bytes
            content, lost_bytes, is_torn = volume.surviving(file, unsynced, rng)
            facts["lost_bytes"] += lost_bytes
            facts["torn_files"] += is_torn
            return content

        found = self._survivor(pending - lost_names, survives)
        facts["lost_bytes"] += sum(len(inode.content) for inode in lost.values())
        return found, facts

    def be_as_broken_as(self, other: "SimDisk") -> None:
        """Have the faults of another disk, in whose place this one comes."""
        self.capacity_bytes, self.refused = other.capacity_bytes, other.refused
        self.short, self.fail, self.lies = other.short, other.fail, other.lies

    def unlock(self) -> None:
        """The process that held locks is gone."""
        self._locks.clear()
        self.crash_at = None

    def matching(self, patterns: Sequence[str]) -> list[Path]:
        """The files whose paths match one of these, sorted, but for empty ones."""
        return sorted(
            path
            for path, inode in self.names_now.items()
            if inode.content and any(fnmatch(str(path), pattern) for pattern in patterns)
        )

    def change(self, path: Path, change: Callable[[bytearray], dict[str, Any]]) -> dict[str, Any]:
        """Change what a file holds, durably and behind everybody's back; what `change` tells."""
        inode = self._inode(path)
        told = change(inode.content)
        inode.durable_bytes = len(inode.content)
        return told

    def _survivor(
        self, names_kept: int, survives: Callable[[Inode], bytes | bytearray]
    ) -> "SimDisk":
        found = SimDisk()
        names = dict(self._names_durable)
        for directory, word, path, inode in self._changes[:names_kept]:
            _change(names, directory, word, path, inode)
        fresh: dict[int, Inode] = {}
        for path, inode in names.items():
            if id(inode) not in fresh:
                survivor = fresh[id(inode)] = Inode()
                survivor.content = bytearray(survives(inode))
                survivor.durable_bytes = len(survivor.content)
            found.names_now[path] = found._names_durable[path] = fresh[id(inode)]
        return found

    # ---- labrys.node.disk.Disk ----------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Directories are always there."""

    def lock(self, path: Path) -> "SimFile | None":
        """The lock of a process that crashed is gone with it."""
        self.fail("open")
        if path in self._locks:
            return None
        self._locks.add(path)
        return SimFile(self, Inode(), on_close=lambda: self._locks.discard(path))

    def names(self, directory: Path) -> list[str]:
        """See `Disk`."""
        self.fail("read")
        return sorted(path.name for path in self.names_now if path.parent == directory)

    def size(self, path: Path) -> int:
        """See `Disk`."""
        return len(self._inode(path).content)

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """See `Disk`."""
        self.fail("read")
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
        inode = self._inode(path)
        self.fail("open")
        return SimFile(self, inode)

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
        if self.lies is not None and self.lies():
            return
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
                disk.refused += 1
                disk.short += room > 0
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
        self._inode.durable_bytes = min(self._inode.durable_bytes, size_bytes)
        self._disk.flush(self._inode)

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
