"""The few file operations on which the durable log and the snapshots stand.

Behind a protocol, so that tests can put a disk in its place that forgets what was not flushed.
What a directory holds (a name that was made, changed or removed) survives a power cut only after
the directory itself was flushed, as with any POSIX file system.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file that grows at its end."""

    def append(self, data: bytes | memoryview) -> None:
        """Write all of it; raises OSError, and then some of it may be there."""
        ...

    def flush(self) -> None:
        """Make what was written durable."""
        ...

    def cut(self, size_bytes: int) -> None:
        """Shorten the file to this size and make that durable."""
        ...

    def close(self) -> None:
        """Give the file up."""
        ...


class Disk(Protocol):
    """A file system; every method raises OSError."""

    def make_directory(self, path: Path) -> None:
        """Make the directory, and those above it, durably; one that exists is fine."""
        ...

    def lock(self, path: Path) -> File | None:
        """Keep other processes out until it is closed; None when another one has it."""
        ...

    def names(self, directory: Path) -> list[str]:
        """The files in the directory, sorted."""
        ...

    def size(self, path: Path) -> int:
        """Length of the file."""
        ...

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """That part of the file, less where it ends before; all the rest if the size is -1."""
        ...

    def create(self, path: Path) -> File:
        """A new, empty file, in the place of one that may be there."""
        ...

    def open(self, path: Path) -> File:
        """A file that exists, to be continued."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give the file another name, durable after `flush_directory`."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the file, durably after `flush_directory`; one that is not there is fine."""
        ...

    def flush_directory(self, path: Path) -> None:
        """Make durable which names the directory holds."""
        ...


class _OsFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        os.fdatasync(self._descriptor)

    def cut(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class OsDisk:
    """The disk of this machine."""

    def make_directory(self, path: Path) -> None:
        """See `Disk`."""
        missing = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for each in missing:
            self.flush_directory(each.parent)

    def lock(self, path: Path) -> File | None:
        """See `Disk`."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return _OsFile(descriptor)

    def names(self, directory: Path) -> list[str]:
        """See `Disk`."""
        return sorted(os.listdir(directory))

    def size(self, path: Path) -> int:
        """See `Disk`."""
        return path.stat().st_size

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """See `Disk`."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    def create(self, path: Path) -> File:
        """See `Disk`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        return _OsFile(os.open(path, flags, 0o644))

    def open(self, path: Path) -> File:
        """See `Disk`."""
        return _OsFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))

    def rename(self, old: Path, new: Path) -> None:
        """See `Disk`."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """See `Disk`."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    def flush_directory(self, path: Path) -> None:
        """See `Disk`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
