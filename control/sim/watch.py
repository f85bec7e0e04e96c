"""Looks after the promises of Raft while a simulation goes on, at every step of every node."""

from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from labrys.control.sim.kept import Kept
from labrys.control.sim.promises import Promises
from labrys.control.sim.replica import Replica
from labrys.control.sim.violation import Violation
from labrys.node.answers import Answer
from labrys.node.api import Call
from labrys.node.effects import Effects, Persist
from labrys.node.engine import Engine
from labrys.node.machine import Machine
from labrys.node.messages import NodeId, RaftMessage
from labrys.node.probes import Probe
from labrys.node.raft import Raft, Role
from labrys.node.settings import Settings
from labrys.node.storage import Storage
from labrys.node.surroundings import Surroundings


class ProbeCounts:
    """How often the nodes of one simulation got into which rare state."""

    def __init__(self) -> None:
        self._counts: Counter[Probe] = Counter()

    def reach(self, probe: Probe) -> None:
        """Implements `labrys.node.probes.Reach`."""
        self._counts[probe] += 1

    def by_label(self) -> dict[str, int]:
        """Those that were reached, in the order in which they are declared."""
        return {probe.label: self._counts[probe] for probe in Probe if self._counts[probe]}


KV: Final = b"/v1/kv/"
STALE: Final = b"=stale"
"""How reads of a key begin, and how those end that may see an old value."""


class Watch:
    """Who looks after what all nodes promise, at every step of theirs; see `promises`."""

    def __init__(
        self, has_broken: Callable[[str], None], clocks_are_even: Callable[[], bool]
    ) -> None:
        """`has_broken` is told of the first promise that was broken.

        Leases promise something only as long as clocks run at about the same rate, which faults may
        end: `clocks_are_even` says whether they always did.
        """
        self.promises = Promises()
        self.disks: dict[NodeId, Kept] = {}
        self.rafts: dict[NodeId, Raft] = {}
        """Those that run."""
        self.probes = ProbeCounts()
        self.replica: Replica | None = None
        """There as soon as a node has begun."""
        self.broken: str | None = None
        self._offices: dict[NodeId, int] = {}
        self._clocks: dict[NodeId, Callable[[], int]] = {}
        self._clocks_are_even = clocks_are_even
        self._has_broken = has_broken
        self._excused: set[NodeId] = set()
        self._to_regain: dict[NodeId, int] = {}
        """Up to which index a node that lost its data must know the log before it takes part."""

    def begin(
        self, raft: Raft, storage: Storage, settings: Settings, now_ms: Callable[[], int]
    ) -> None:
        """A node has started from what is on its disk."""
        self._clocks[raft.id] = now_ms
        if self.replica is None:
            self.replica = Replica(settings.parts.machine())
        found = Kept.found(storage.restored(settings.initial))
        before = self.disks.get(raft.id)
        self.disks[raft.id] = found
        self.rafts[raft.id] = raft
        if before is not None and raft.id not in self._excused:
            found.follows(raft.id, before)
        self._excused.discard(raft.id)
        self.promises.find(raft.id, found)
        if found.hard_state.is_observer:
            self._to_regain.setdefault(raft.id, len(self.promises.committed))

    def end(self, node: NodeId) -> None:
        """A node is no more."""
        self.rafts.pop(node, None)

    def excuse(self, node: NodeId) -> None:
        """A fault has damaged or taken away what the node's disk holds."""
        self._excused.add(node)

    def store(self, node: NodeId, batches: Sequence[Persist], unflushed_bytes: int = 0) -> None:
        """A node's disk holds these batches, and so much of its log is not flushed."""
        if batches and unflushed_bytes:
            raise Violation(
                f"persisted state: {node} takes its log for durable, and {unflushed_bytes} bytes "
                "of it are not flushed"
            )
        disk, raft = self.disks[node], self.rafts[node]
        for batch in batches:
            was_observer = disk.hard_state.is_observer
            self.promises.store(node, disk, batch)
            if was_observer and not disk.hard_state.is_observer:
                disk.take_part(node, self._to_regain.pop(node, 0))
            if raft.role is Role.LEADER and raft.term == batch.term:
                disk.vouch(batch.term, batch.last_index)
        disk.snapshot = max(disk.snapshot, raft.snapshot, key=lambda meta: meta.index)

    def lead(self, raft: Raft) -> None:
        """A node leads, as far as it knows."""
        self.promises.see(raft)
        if self._offices.get(raft.id) != raft.term:
            self._offices[raft.id] = raft.term
            if any(each.role is Role.LEADER and each is not raft for each in self.rafts.values()):
                self.probes.reach(Probe.TWO_LEADERS)
            for each in self.rafts.values():
                self._look_at_lease(each)
        else:
            self._look_at_lease(raft)

    def _look_at_lease(self, raft: Raft) -> None:
        newest = self.promises.newest_term
        if raft.role is not Role.LEADER or raft.term >= newest:
            return
        if raft.has_lease(self._clocks[raft.id]()) and self._clocks_are_even():
            raise Violation(
                f"leases: {raft.id} trusts its lease in term {raft.term}, and "
                f"{self.promises.leaders[newest]} leads term {newest}"
            )

    def say(self, raft: Raft, peer: NodeId, message: RaftMessage) -> None:
        """A node is about to send a message."""
        self.promises.say(raft.id, self.disks[raft.id], peer, message)

    def apply(self, raft: Raft, applied: int, effects: Effects) -> None:
        """A node that has applied so much is about to apply what is committed."""
        first, replica = effects.first_committed, self.replica
        assert replica is not None, "a node applies something before it began"
        new = self.promises.apply(raft, applied, first, effects.committed)
        known = (each.configuration for each in self.rafts.values())
        self.promises.is_there_to_stay(raft, new, self.disks, known)
        for index in new:
            replica.execute(index, self.promises.committed[index - 1][0])
        if new:
            replica.remember(new[-1])

    def ask(self, call: Call) -> int:
        """A client asks something: up to which index the answer must know the log."""
        is_read = call.method == "GET" and call.url.startswith(KV)
        return len(self.promises.committed) if is_read and not call.url.endswith(STALE) else 0

    def answer(self, raft: Raft, must_know: int, answer: Answer) -> None:
        """A node answers what must know the log up to an index."""
        is_value = answer.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        if is_value and raft.applied < must_know:
            raise Violation(
                f"reads: {raft.id} answers from the state at {raft.applied}, and {must_know} was "
                "committed before it was asked"
            )

    def compare(self, raft: Raft, index: int, machine: Machine) -> None:
        """A node has this state after the index."""
        if self.replica is not None:
            self.replica.compare(raft.id, index, machine)

    def tell(self, violation: Violation) -> None:
        """A promise was broken; the nodes go on, whoever runs them stops."""
        if self.broken is None:
            self.broken = str(violation)
            self._has_broken(self.broken)


class WatchedEngine(Engine):
    """An engine whose every step is looked at."""

    def __init__(
        self, settings: Settings, storage: Storage, around: Surroundings, watch: Watch
    ) -> None:
        super().__init__(settings, storage, around)
        self._watch = watch
        self._applied = self._committed = self.raft.applied
        self._watch.begin(self.raft, storage, settings, around.now_ms)
        self._watch.compare(self.raft, self._applied, self._service.machine)

    def _flush(self) -> None:
        self._watch.promises.see(self.raft)
        super()._flush()
        if self.raft.role is Role.LEADER:
            self._watch.lead(self.raft)
        if self.raft.commit < self._committed:
            raise Violation(
                f"monotone commit: {self.raft.id} committed {self._committed}, then "
                f"{self.raft.commit}"
            )
        self._committed = self.raft.commit

    def _send(self, peer: NodeId, message: RaftMessage) -> None:
        self._watch.say(self.raft, peer, message)
        super()._send(peer, message)

    def _apply(self, effects: Effects) -> None:
        self._watch.apply(self.raft, self._applied, effects)
        super()._apply(effects)
        self._applied += len(effects.committed)
        self._watch.compare(self.raft, self._applied, self._service.machine)

    def _install(self, machine: Machine) -> None:
        super()._install(machine)
        self._applied = self.raft.applied
        self._watch.compare(self.raft, self._applied, machine)
