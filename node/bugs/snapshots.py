"""Faults in snapshots of the state."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from labrys.node import machine
from labrys.node.bugs.careless import Careless
from labrys.node.bugs.disk import NewUnflushed
from labrys.node.bugs.variant import variant
from labrys.node.disk import Disk
from labrys.node.effects import SnapshotMeta
from labrys.node.machine import Frozen, Machine
from labrys.node.snapshots import Snapshots, Unsound
from labrys.node.storage import Storage


class OffByOne(Careless):
    """Says that a snapshot ends one entry earlier than it does: that entry is applied twice.

    Seen in: RedisLabs/raft #49.
    Seen by: raft (state machine safety)
    """

    def meta_at_applied(self) -> SnapshotMeta:
        meta = super().meta_at_applied()
        before = self.log.term_at(meta.index - 1)
        if not before:
            return meta
        return SnapshotMeta(meta.index - 1, before, self._configuration_at(meta.index - 1))


class WithoutMembers(Careless):
    """Notes the oldest members that it remembers in a snapshot, not those of its index.

    Who starts from the snapshot follows members of old.

    Seen in: a class of bugs, against section 7 of the Raft paper.
    Seen by: raft (configuration safety)
    """

    def meta_at_applied(self) -> SnapshotMeta:
        meta = super().meta_at_applied()
        return SnapshotMeta(meta.index, meta.term, self._configurations[0][1])


class Fuzzy(Machine):
    """Copies its state while the snapshot is written, and goes on applying meanwhile.

    Later writes are in the snapshot already, and applied again after a restart.

    Seen in: a class of bugs; of the same kind is etcd #13766, whose data and applied index could be
    saved apart.
    Seen by: raft (state machine safety)
    """

    def freeze(self) -> Frozen:
        return _Unfrozen(self)


class _Unfrozen(Frozen):
    def __init__(self, state: Machine) -> None:
        self._state = state

    def records(self) -> Iterator[bytes]:
        return Machine.freeze(self._state).records()


class Torn(Storage):
    """Gives a snapshot its name before it is flushed, and believes what it finds under one.

    A power failure leaves half a snapshot, which is taken for the whole.

    Seen in: a class of bugs: files that get their name before their content is durable.
    Seen by: raft (state machine safety, persisted state), linearizable
    """

    def _open_snapshots(self) -> Snapshots:
        directory, cluster, disk = self._directory / "snapshots", self._cluster, self._disk
        return _TornSnapshots(directory, cluster, disk)


class _TornSnapshots(Snapshots):
    def _write_draft(self, draft: Path, meta: SnapshotMeta, records: Iterable[bytes]) -> int:
        disk = self._disk
        self._disk = cast(Disk, NewUnflushed(disk))
        try:
            return super()._write_draft(draft, meta, records)
        finally:
            self._disk = disk

    def _check(self, path: Path) -> SnapshotMeta:
        try:
            return super()._check(path)
        except Unsound:
            return self._meta(next(self._frames(path), b""))

    def _frames(self, path: Path) -> Iterator[bytes]:
        try:
            yield from super()._frames(path)
        except Unsound:
            yield b""  # In the place of the footer.


class _TornMachine(Machine):
    @classmethod
    def restored(cls, records: Iterable[bytes]) -> "Machine":
        try:
            return super().restored(records)
        except machine.Unsound:
            return cls()


BUGS = {
    "snapshot-off-by-one": variant("a snapshot holds one entry more than it says", OffByOne),
    "snapshot-without-members": variant(
        "a snapshot does not know the members of its time", WithoutMembers
    ),
    "snapshot-fuzzy": variant("a snapshot holds writes from after its index", Fuzzy),
    "snapshot-torn": variant("a snapshot that was never flushed is believed", Torn, _TornMachine),
}
