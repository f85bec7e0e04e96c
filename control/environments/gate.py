"""The gate of each node: who is frozen gets no scripts, and is frozen only when none runs there.

A script in a node that stands still would stand still as well, and whoever waits for it with it.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from labrys.control.errors import ClusterError

_CLOSED_WITHIN_S: Final = 30.0
"""Longer than scripts take that are not meant to hang."""


class Gate:
    """Lets scripts into nodes; may be used from several threads."""

    def __init__(self) -> None:
        """All nodes are open."""
        self._changed = threading.Condition()
        self._closed: set[str] = set()
        self._inside: Counter[str] = Counter()

    @contextmanager
    def passed(self, node: str) -> Iterator[None]:
        """Be inside for the length of a block. Raises ClusterError where it is closed."""
        with self._changed:
            if node in self._closed:
                raise ClusterError(f"{node}: stands still; nothing runs in it until it is thawed")
            self._inside[node] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[node] -= 1
                self._changed.notify_all()

    def close(self, node: str) -> None:
        """Let nobody in any more and wait until all are out; raises ClusterError if they stay."""
        with self._changed:
            self._closed.add(node)
            if not self._changed.wait_for(lambda: not self._inside[node], _CLOSED_WITHIN_S):
                self._closed.discard(node)
                raise ClusterError(
                    f"{node}: a script has been running for {_CLOSED_WITHIN_S:g} s: not frozen"
                )

    def open(self, node: str) -> None:
        """Let everybody in again."""
        with self._changed:
            self._closed.discard(node)
