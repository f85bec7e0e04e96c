"""The replicated log as the core sees it: in memory, from the end of the newest snapshot on."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import attrgetter

from labrys.node.messages import Entry

_term_of = attrgetter("term")
_command_of = attrgetter("command")


class Log:
    """A sequence of entries with Raft's indexes behind a base, the last entry that was dropped.

    Index 0, term 0 is the agreed beginning and the base of a log that was never compacted.
    """

    def __init__(
        self, entries: Iterable[Entry] = (), base_index: int = 0, base_term: int = 0
    ) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries = list(entries)

    @property
    def first_index(self) -> int:
        """Index of the oldest entry that is still here, or would be if there were one."""
        return self.base_index + 1

    @property
    def last_index(self) -> int:
        """Index of the newest entry, that of the base when there is none."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the newest entry, that of the base when there is none."""
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index` or of the base, None before and beyond."""
        place = index - self.base_index
        if place == 0:
            return self.base_term
        if 0 < place <= len(self._entries):
            return self._entries[place - 1].term
        return None

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add entries at the end."""
        self._entries.extend(entries)

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and everything after it."""
        assert index > self.base_index, f"cannot truncate from {index}, base {self.base_index}"
        del self._entries[index - self.base_index - 1 :]

    def compact_to(self, index: int) -> None:
        """Drop everything up to `index`, which becomes the base."""
        term = self.term_at(index)
        assert term is not None, f"cannot compact to {index} of {self.base_index}-{self.last_index}"
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Drop everything and begin behind `index`, which had `term`."""
        self._entries.clear()
        self.base_index, self.base_term = index, term

    def since(self, index: int, count: int | None = None) -> tuple[Entry, ...]:
        """The entries from `index` on, at most `count` of them."""
        start = index - self.base_index - 1
        assert start >= 0, f"entry {index} was compacted, the log begins at {self.first_index}"
        return tuple(self._entries[start : None if count is None else start + count])

    def batch(self, index: int, count: int, size_bytes: int) -> tuple[Entry, ...]:
        """The entries from `index` on within both bounds, but at least one if there is one."""
        chosen = self.since(index, count)
        if len(chosen) < 2:
            return chosen
        totals = list(accumulate(map(len, map(_command_of, chosen))))
        if totals[-1] <= size_bytes:
            return chosen
        return chosen[: max(1, bisect_right(totals, size_bytes))]

    def first_index_of(self, term: int) -> int:
        """Index of the first entry here of `term` or later; terms never fall along a log."""
        return self.base_index + bisect_left(self._entries, term, key=_term_of) + 1

    def last_index_of(self, term: int) -> int:
        """Index of the last entry here of `term` or earlier, that of the base when none is."""
        return self.base_index + bisect_right(self._entries, term, key=_term_of)


def command_bytes(entries: Sequence[Entry]) -> int:
    """The length of all commands together."""
    return sum(map(len, map(_command_of, entries)))
