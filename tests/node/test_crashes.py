"""The data directory after a crash at every operation on the disk, with every kind of torn write.

A small life of a node runs on `SimDisk` until the power goes, and is read again: what is found
is what was there before the step that was interrupted, or after it, and nothing else.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from labrys.control.sim.disk import Crash, Inode, SimDisk
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, Restored, SnapshotMeta
from labrys.node.errors import CorruptLog, MachineError
from labrys.node.messages import Entry, HardState, InstallRequest
from labrys.node.snapshots import Snapshots
from labrys.node.storage import Storage

HERE = Path("/data")
INITIAL = Configuration(("n1", "n2", "n3"))
SEGMENT_BYTES = 160
Step = tuple[Callable[[Storage], object], list[Restored]]
"""What to do, and what may be found if it was begun: the last is what is found if it was done."""


def seen(state: HardState, snapshot_index: int, snapshot_term: int, *entries: Entry) -> Restored:
    return Restored(state, SnapshotMeta(snapshot_index, snapshot_term, INITIAL), list(entries))


def entry(term: int, index: int) -> Entry:
    return Entry(term, b"%d-%d " % (term, index) * (index % 4 + 1))


def entries(term: int, first: int, last: int) -> tuple[Entry, ...]:
    return tuple(entry(term, index) for index in range(first, last + 1))


def writing(persist: Persist) -> Callable[[Storage], object]:
    return lambda storage: storage.write([persist])


def append(now: Restored, first: int, last: int, term: int, state: HardState | None = None) -> Step:
    """Entries that replace the log from `first` on."""
    kept = list(now.entries)[: first - 1 - now.snapshot.index]
    added = entries(term, first, last)
    then = Restored(state or now.hard_state, now.snapshot, [*kept, *added])
    return writing(Persist(term, last, state, first, added)), [now, then]


def snapshot(now: Restored, index: int) -> Step:
    """The node's own, of what it has applied."""
    place = index - now.snapshot.index
    meta = SnapshotMeta(index, now.entries[place - 1].term, INITIAL)
    then = Restored(now.hard_state, meta, list(now.entries)[place:])
    return lambda storage: storage.snapshots.write(meta, [b"state" * 20]), [now, then]


def install(now: Restored, meta: SnapshotMeta, state: HardState) -> Iterator[Step]:
    """A leader's, in pieces, and then the log begins anew behind it."""
    source = Snapshots(HERE, "labrys", SimDisk())
    source.write(meta, [b"sent" * 50, b"more"])
    raised = HardState(max(now.hard_state.term, meta.term), None)
    state_then = now.hard_state if raised.term == now.hard_state.term else raised
    on_disk = Restored(state_then, meta, [])
    offset, is_last = 0, False
    while not is_last:
        data, is_last = source.read_chunk(meta.index, offset, 70)
        piece = InstallRequest(9, 1, meta.index, meta.term, offset, data, is_last)
        offset += len(data)
        persist = Persist(meta.term, 0, None, 1, (), chunks=(piece,))
        yield writing(persist), [now, on_disk] if is_last else [now]
    base = Persist(state.term, meta.index, state, meta.index + 1, (), base=meta)
    yield writing(base), [on_disk, Restored(state, meta, [])]


def life() -> Iterator[Step]:
    """Elections, entries, conflicts, full segments, snapshots of both kinds, compaction."""
    now = seen(HardState(is_observer=True), 0, 0)

    def do(step: Step) -> Iterator[Step]:
        nonlocal now
        now = step[1][-1]
        yield step

    yield from do(append(now, 1, 0, 0, HardState()))
    yield from do(append(now, 1, 4, 1, HardState(1, "n2")))
    yield from do(append(now, 5, 9, 1))
    yield from do(append(now, 7, 8, 2, HardState(2, None)))  # 9 is gone.
    yield from do(append(now, 9, 14, 2, HardState(2, "n3")))
    yield from do(snapshot(now, 10))
    yield from do((lambda storage: storage.compact(10), [now]))
    yield from do(append(now, 15, 18, 2))
    yield from do(append(now, 13, 19, 3, HardState(3, "n1")))
    yield from do(append(now, 20, 24, 3))
    yield from do(snapshot(now, 20))
    yield from do((lambda storage: storage.compact(20), [now]))
    yield from do((lambda storage: storage.snapshots.prune(20), [now]))
    meta = SnapshotMeta(40, 5, INITIAL)
    for step in install(now, meta, HardState(5, "n2")):
        yield from do(step)
    yield from do((lambda storage: storage.compact(40), [now]))
    yield from do(append(now, 41, 50, 5))
    yield from do(append(now, 45, 45, 6, HardState(6, None)))


def opened(disk: SimDisk) -> Storage:
    return Storage(
        HERE, "n1", first_state=HardState(is_observer=True), disk=disk, segment_bytes=SEGMENT_BYTES
    )


def found_on(disk: SimDisk) -> Restored:
    with opened(disk) as storage:
        return storage.restored(INITIAL)


def live(disk: SimDisk) -> list[Restored]:
    """Run until the crash; what may be found then."""
    allowed = [seen(HardState(is_observer=True), 0, 0)]
    try:
        with opened(disk) as storage:
            for do, outcomes in life():
                allowed = outcomes
                do(storage)
                allowed = outcomes[-1:]
    except Crash:
        pass
    return allowed


def test_without_a_crash_everything_is_as_told() -> None:
    with opened(disk := SimDisk()) as storage:
        for do, outcomes in life():
            do(storage)
            assert found_on(_copy(disk)) == outcomes[-1]
        assert len([name for name in disk.names(HERE) if name.startswith("log-")]) > 1
        assert "log-0000000001" not in disk.names(HERE)


def _copy(disk: SimDisk) -> SimDisk:
    return disk.after_crash(1, random.Random(0))


OPERATIONS = 400
"""More than a life takes; see the test that counts."""


def test_the_sweep_covers_a_whole_life() -> None:
    disk = SimDisk()
    live(disk)
    assert 100 < disk.operations < OPERATIONS


def sweep(make: type[SimDisk], keep: float) -> None:
    """Crash at every operation, and perhaps again while what is left is read."""
    rng = random.Random(f"crashes {keep}")
    for crash_at in range(1, OPERATIONS):
        for torn_bytes in (None, 0, rng.randrange(200)):
            disk = make()
            disk.crash_at, disk.torn_bytes = crash_at, torn_bytes
            allowed = live(disk)
            if disk.operations < crash_at:
                return
            survivor = disk.after_crash(keep, rng)
            survivor.crash_at = rng.randrange(1, 8)
            again = survivor
            try:
                found_on(survivor)
            except Crash:
                again = survivor.after_crash(rng.choice([0, 0.5, 1]), rng)
            again.crash_at = None
            context = f"crash at {crash_at}, torn {torn_bytes}, keep {keep}"
            found = found_on(again)
            assert found in allowed, context
            _goes_on(again, found, context)
    raise AssertionError("the sweep did not reach the end")


@pytest.mark.parametrize("keep", [0, 0.3, 0.6, 1])
def test_a_crash_at_any_operation_loses_and_invents_nothing(keep: float) -> None:
    sweep(SimDisk, keep)


def test_what_is_found_after_a_kill_survives_a_power_failure() -> None:
    """A killed process may have been about to flush; what the next one finds, it acknowledges."""
    for kill_at in range(1, OPERATIONS):
        disk = SimDisk()
        disk.crash_at = kill_at
        allowed = live(disk)
        if disk.operations < kill_at:
            return
        # Nothing is lost: the kernel still has it.
        disk.crash_at = None
        with opened(disk) as storage:
            found = storage.restored(INITIAL)
            assert found in allowed
            survivor = disk.after_crash(0, random.Random(0))
        assert found_on(survivor) == found, f"killed at {kill_at}"
    raise AssertionError("the sweep did not reach the end")


class _ForgetsFiles(SimDisk):
    def flush(self, inode: Inode) -> None:
        pass


class _ForgetsNames(SimDisk):
    def flush_directory(self, path: Path) -> None:
        self.step("flush_directory")


@pytest.mark.parametrize("lying", [_ForgetsFiles, _ForgetsNames])
def test_a_disk_that_does_not_flush_is_found_out(lying: type[SimDisk]) -> None:
    with pytest.raises((AssertionError, CorruptLog, MachineError)):
        sweep(lying, 0)


def _goes_on(disk: SimDisk, found: Restored, context: str) -> None:
    """It can be written to as ever."""
    last = found.snapshot.index + len(found.entries)
    more = append(found, last + 1, last + 3, 9, HardState(9, "n1"))
    with opened(disk) as storage:
        more[0](storage)
    assert found_on(disk) == more[1][-1], context


def test_every_torn_length_of_the_last_write_is_cut_or_whole() -> None:
    final = SimDisk()
    live(final)
    last_append = final.operations - 1
    outcomes = set()
    for torn_bytes in range(200):
        for keep in (0, 0.5, 1):
            disk = SimDisk()
            disk.crash_at, disk.torn_bytes = last_append, torn_bytes
            allowed = live(disk)
            found = found_on(disk.after_crash(keep, random.Random(torn_bytes)))
            assert found in allowed
            outcomes.add(msgspec.json.encode(found.hard_state))
    assert len(outcomes) == 2, "the last write was never whole, or never cut"
