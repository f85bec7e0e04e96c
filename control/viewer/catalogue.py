"""All runs below a runs directory, kept in memory and read again only where files changed."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from labrys.control.errors import UsageError
from labrys.control.store import HISTORY, RESULTS, SPEC
from labrys.control.suite.running import SUITES
from labrys.control.viewer.entry import Entry, State, read_entry
from labrys.control.viewer.progress import Progress

_RUN_FILES: Final = (SPEC, HISTORY, RESULTS)
_Signature = tuple[tuple[int, int, int] | None, ...]
"""Of each of the files: inode, time of the last change and size; None where it is absent."""


class Listing(msgspec.Struct, frozen=True):
    """The runs at one moment."""

    version: int
    """Higher than that of every earlier listing that differs."""
    entries: list[Entry]
    """The newest first."""
    changed_at: dict[str, int]
    """By id: the version in which the entry became what it is."""
    removed_at: dict[str, int]
    """By id: the version in which it was no longer there."""


class Catalogue:
    """Lists the runs below `root`. May be used from several threads."""

    def __init__(self, root: Path) -> None:
        """Nothing is read yet."""
        self._root = root
        self._lock = threading.Lock()
        self._version = 0
        self._signatures: dict[str, _Signature] = {}
        self._entries: dict[str, Entry] = {}
        self._progress: dict[str, Progress] = {}
        self._changed_at: dict[str, int] = {}
        self._removed_at: dict[str, int] = {}

    def listing(self) -> Listing:
        """Look what is new and return all runs. Raises UsageError if there is no such directory."""
        with self._lock:
            self._refresh()
            return Listing(
                version=self._version,
                entries=sorted(self._entries.values(), key=_age, reverse=True),
                changed_at=dict(self._changed_at),
                removed_at=dict(self._removed_at),
            )

    def _refresh(self) -> None:
        found = dict(_folders(self._root))
        version = self._version + 1
        for id_ in self._entries.keys() - found.keys():
            del self._entries[id_], self._signatures[id_], self._changed_at[id_]
            self._progress.pop(id_, None)
            self._removed_at[id_] = self._version = version
        for id_, folder in found.items():
            signature = tuple(map(_stamp, (folder / name for name in _RUN_FILES)))
            before = self._entries.get(id_)
            if (
                before is not None
                and not self._is_live(before)
                and (self._signatures[id_] == signature)
            ):
                continue
            if self._is_another(id_, signature):
                self._progress.pop(id_, None)
            entry = read_entry(folder, id_, self._progress.setdefault(id_, Progress()))
            self._signatures[id_] = signature
            if entry != before:
                self._entries[id_] = entry
                self._changed_at[id_] = self._version = version
                self._removed_at.pop(id_, None)

    def _is_live(self, entry: Entry) -> bool:
        """Whether it may have become another without any of its files changing.

        A run that goes on ends so when it is killed: its lock is gone then.
        """
        return entry.state is State.RUNNING or self._progress[entry.id].is_behind

    def _is_another(self, id_: str, signature: _Signature) -> bool:
        """Whether the history is not the one that was read before, or was cut."""
        old = self._signatures.get(id_, (None, None, None))[1]
        new = signature[1]
        return old is not None and (new is None or new[0] != old[0] or new[2] < old[2])


def _age(entry: Entry) -> tuple[str, str]:
    return entry.started, entry.id


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield id and path of all that may be a run: two levels down, or one with its files in it."""
    try:
        tests = list(_subfolders(root))
    except OSError as error:
        raise UsageError(
            f"{root}: cannot be listed: {error.strerror}; name the directory with --runs-dir"
        ) from error
    for test in tests:
        if test.name == SUITES:
            continue
        if any((test / name).exists() for name in _RUN_FILES):
            yield _id(test.name), test
            continue
        try:
            for run in _subfolders(test):
                yield _id(f"{test.name}/{run.name}"), run
        except OSError:
            yield _id(test.name), test


def _id(path: str) -> str:
    """Names of files are bytes; what is no text cannot be in a page."""
    return path.encode(errors="replace").decode()


def _subfolders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        for each in found:
            if each.is_dir(follow_symlinks=False):
                yield folder / each.name
