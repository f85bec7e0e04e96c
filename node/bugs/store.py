"""Faults in how the store executes what is committed."""

from typing import Any

from labrys.node.bugs.variant import variant
from labrys.node.commands import Cas, Command
from labrys.node.machine import Machine
from labrys.node.outcome import Outcome


class LocalCache(Machine):
    """Judges a compare-and-set by a cache of what this process has executed itself.

    After a start from a snapshot the cache is empty, so nodes come to different results.

    Seen in: etcd #14571, where what was applied depended on a cache that was not loaded again.
    Seen by: raft (state machine safety)
    """

    def __init__(self) -> None:
        super().__init__()
        self._cached: set[str] = set()

    def _execute(self, command: Command) -> Outcome:
        match command:
            case Cas(key) if key not in self._cached:
                return Outcome("mismatch", self.revision, self.get(key).value)
            case _:
                return super()._execute(command)

    def _set(self, key: str, cell: Any) -> Outcome:
        self._cached.add(key)
        return super()._set(key, cell)


BUGS = {
    "local-cache": variant("what is executed depends on a cache of the process", LocalCache),
}
