"""Random file operations, played on two file systems: whatever one says the other must say."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/a", "d", "d/e", "x" * 256)


def differences(here: Path, there: Path, seed: int, count: int = 400) -> list[str]:
    """Play `count` operations in both folders; return where they differ, the last tree included."""
    found = []
    outcomes = []
    for folder in (here, there):
        folder.mkdir()
        rng = random.Random(seed)
        outcomes.append([_outcome(_draw(folder, rng)) for _ in range(count)])
        outcomes[-1].append(("tree", _tree(folder)))
    for number, (one, other) in enumerate(zip(*outcomes, strict=True)):
        if one != other:
            found.append(f"{number}: {one} here, {other} there")
    return found


def _draw(folder: Path, rng: random.Random) -> tuple[str, Callable[[], Any]]:
    path, other = (str(folder / rng.choice(_NAMES)) for _ in range(2))
    offset, size = rng.randrange(5000), rng.choice((1, 100, 700, 5000, 200_000))
    data = rng.randbytes(16) * (size // 16 + 1)
    operations: dict[str, Callable[[], Any]] = {
        "create": lambda: _with(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, lambda fd: 0),
        "write": lambda: _with(
            path, os.O_RDWR | os.O_CREAT, lambda fd: os.pwrite(fd, data, offset)
        ),
        "append": lambda: _with(path, os.O_WRONLY | os.O_APPEND, lambda fd: _flushed(fd, data)),
        "shorten": lambda: _with(path, os.O_WRONLY | os.O_TRUNC, lambda fd: os.fsync(fd)),
        "truncate": lambda: os.truncate(path, offset),
        "allocate": lambda: _with(path, os.O_RDWR, lambda fd: os.posix_fallocate(fd, offset, 9)),
        "read": lambda: _with(path, os.O_RDONLY, lambda fd: os.pread(fd, size, offset)),
        "through": lambda: _through(path, data),
        "rename": lambda: os.rename(path, other),
        "link": lambda: os.link(path, other),
        "symlink": lambda: os.symlink(rng.choice(_NAMES), path),
        "readlink": lambda: os.readlink(path),
        "unlink": lambda: os.unlink(path),
        "mkdir": lambda: os.mkdir(path),
        "rmdir": lambda: os.rmdir(path),
        "list": lambda: sorted(os.listdir(path)),
        "chmod": lambda: os.chmod(path, 0o640),
        "utime": lambda: os.utime(path, ns=(5, 1_000_000_007)),
        "stat": lambda: _facts(path),
    }
    word = rng.choice(list(operations))
    return word, operations[word]


def _outcome(drawn: tuple[str, Callable[[], Any]]) -> tuple[str, Any]:
    word, operation = drawn
    try:
        return word, operation()
    except OSError as error:
        return word, f"errno {error.errno}"


def _with(path: str, flags: int, action: Callable[[int], Any]) -> Any:
    descriptor = os.open(path, flags, 0o644)
    try:
        return action(descriptor)
    finally:
        os.close(descriptor)


def _flushed(descriptor: int, data: bytes) -> int:
    written = os.write(descriptor, data)
    os.fsync(descriptor)
    return written


def _through(path: str, data: bytes) -> Any:
    """A file that lost its name goes on for whoever has it open."""

    def use(descriptor: int) -> Any:
        os.unlink(path)
        os.write(descriptor, data)
        return os.pread(descriptor, 100, 50), os.fstat(descriptor).st_nlink

    return _with(path, os.O_RDWR, use)


def _facts(path: str) -> Any:
    found = os.lstat(path)
    links = found.st_nlink
    size = found.st_size if not os.path.isdir(path) else 0
    return oct(found.st_mode), size, links, found.st_uid


def _tree(folder: Path) -> list[Any]:
    found: list[Any] = []
    for place, folders, files in os.walk(folder):
        for name in sorted(folders + files):
            path = os.path.join(place, name)
            content = None
            if os.path.isfile(path) and not os.path.islink(path):
                content = hash(Path(path).read_bytes())
            found.append((os.path.relpath(path, folder), _facts(path), content))
    return sorted(found, key=str)
