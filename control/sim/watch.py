"""Looks after the promises of Raft while a simulation goes on, at every step of every node."""

from collections import Counter
from collections.abc import Callable, Sequence

from labrys.control.sim.promises import Kept, Promises, Violation
from labrys.node.effects import Effects, Persist
from labrys.node.engine import Engine
from labrys.node.messages import NodeId
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


class Watch:
    """Who looks after what all nodes promise, at every step of theirs; see `promises`."""

    def __init__(self, has_broken: Callable[[str], None]) -> None:
        """`has_broken` is told of the first promise that was broken."""
        self.promises = Promises()
        self.disks: dict[NodeId, Kept] = {}
        self.rafts: dict[NodeId, Raft] = {}
        """Those that run."""
        self.probes = ProbeCounts()
        self.broken: str | None = None
        self._offices: dict[NodeId, int] = {}
        self._has_broken = has_broken

    def begin(self, raft: Raft, storage: Storage, settings: Settings) -> None:
        """A node has started from what is on its disk."""
        restored = storage.restored(settings.initial)
        disk = self.disks[raft.id] = Kept(restored.snapshot, restored.hard_state)
        disk.entries = list(restored.entries)
        self.rafts[raft.id] = raft

    def end(self, node: NodeId) -> None:
        """A node is no more."""
        self.rafts.pop(node, None)

    def store(self, node: NodeId, batches: Sequence[Persist]) -> None:
        """A node's disk holds these batches."""
        disk = self.disks[node]
        for batch in batches:
            self.promises.store(node, disk, batch)
        disk.snapshot = max(disk.snapshot, self.rafts[node].snapshot, key=lambda meta: meta.index)

    def lead(self, raft: Raft) -> None:
        """A node leads, as far as it knows."""
        self.promises.see(raft)
        if self._offices.get(raft.id) != raft.term:
            self._offices[raft.id] = raft.term
            if any(each.role is Role.LEADER and each is not raft for each in self.rafts.values()):
                self.probes.reach(Probe.TWO_LEADERS)

    def apply(self, raft: Raft, effects: Effects) -> None:
        """A node is about to apply what is committed."""
        first = effects.first_committed
        for index in self.promises.apply(raft, first - 1, first, effects.committed):
            configurations = (each.configuration for each in self.rafts.values())
            self.promises.is_held(index, self.disks.items(), configurations)

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
        self._watch.begin(self.raft, storage, settings)

    def _flush(self) -> None:
        super()._flush()
        if self.raft.role is Role.LEADER:
            self._watch.lead(self.raft)

    def _apply(self, effects: Effects) -> None:
        self._watch.apply(self.raft, effects)
        super()._apply(effects)
