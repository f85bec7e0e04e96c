"""The replicated log as the core sees it: entries counted from 1, in memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from labrys.node.messages import Entry


def _term_of(entry: Entry) -> int:
    return entry.term


class Log:
    """A sequence of entries with Raft's indexes; index 0, term 0 is the agreed beginning."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)

    @property
    def last_index(self) -> int:
        """Index of the newest entry, 0 when there is none."""
        return len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the newest entry, 0 when there is none."""
        return self._entries[-1].term if self._entries else 0

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`, 0 for index 0, None beyond the end."""
        if index == 0:
            return 0
        if 0 < index <= len(self._entries):
            return self._entries[index - 1].term
        return None

    def append(self, entry: Entry) -> None:
        """Add one entry at the end."""
        self._entries.append(entry)

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and everything after it."""
        assert index >= 1, f"cannot truncate from index {index}"
        del self._entries[index - 1 :]

    def since(self, index: int, count: int | None = None) -> tuple[Entry, ...]:
        """The entries from `index` on, at most `count` of them."""
        start = index - 1
        return tuple(self._entries[start : None if count is None else start + count])

    def batch(self, index: int, count: int, size_bytes: int) -> tuple[Entry, ...]:
        """The entries from `index` on within both bounds, but at least one if there is one."""
        chosen = self.since(index, count)
        total = 0
        for position, entry in enumerate(chosen):
            total += len(entry.command)
            if total > size_bytes and position > 0:
                return chosen[:position]
        return chosen

    def first_index_of(self, term: int) -> int:
        """Index of the first entry of `term` or later; terms never fall along a log."""
        return bisect_left(self._entries, term, key=_term_of) + 1

    def last_index_of(self, term: int) -> int:
        """Index of the last entry of `term` or earlier, 0 when there is none."""
        return bisect_right(self._entries, term, key=_term_of)
