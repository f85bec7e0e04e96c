"""Faults in reads that go to a majority."""

from typing import Any

import msgspec

from labrys.node.bugs.careless import Careless
from labrys.node.bugs.variant import variant
from labrys.node.effects import Effects


class StaleRead(Careless):
    """Answers reads at once, whether or not it leads.

    Seen in: etcd and Consul of 2014, where a deposed leader answered; jgroups-raft #208.
    Seen by: raft (reads), linearizable
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_once: list[int] = []

    def read(self, read_id: int, now_ms: int, *, lease: bool = False) -> bool:
        self._at_once.append(read_id)
        return True

    def effects(self) -> Effects:
        effects = super().effects()
        reads, self._at_once = (*effects.reads, *self._at_once), []
        return msgspec.structs.replace(effects, reads=reads)


class ReadBeforeOwnCommit(Careless):
    """A new leader names an index for reads before it has committed an entry of its term.

    It may not know yet that its predecessor committed more.

    Seen in: a class of bugs, against section 6.4 of the Raft dissertation; etcd holds such reads
    back.
    Seen by: raft (reads), linearizable
    """

    def _open_term(self) -> None:
        super()._open_term()
        self._term_start = 0


class ReadBeforeApply(Careless):
    """Answers when the index of a read is confirmed, and does not wait until it is applied.

    Seen in: a class of bugs, against section 6.4 of the Raft dissertation.
    Seen by: raft (reads), linearizable
    """

    def _take_reads(self) -> tuple[int, ...]:
        ready = tuple(read_id for _, read_id in self._answerable)
        self._answerable.clear()
        return ready


BUGS = {
    "stale-read": variant("reads are answered from the local state of any node", StaleRead),
    "read-before-own-commit": variant(
        "a new leader answers reads before it knows what is committed", ReadBeforeOwnCommit
    ),
    "read-before-apply": variant("reads do not wait until their index is applied", ReadBeforeApply),
}
