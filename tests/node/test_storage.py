"""The durable log: flushed entries come back, a torn tail is cut, damage is refused."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrys.control.sim.disk import SimDisk
from labrys.node.bugs.disk import LoseTail, SkipChecksum, SkipFsync
from labrys.node.bugs.elections import ForgetVote
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, Restored, SnapshotMeta
from labrys.node.errors import CorruptLog, DiskFull, MachineError
from labrys.node.frames import HEADER_BYTES, encode_frame
from labrys.node.messages import Entry, HardState
from labrys.node.storage import Storage

FIRST = "log-0000000001"
INITIAL = Configuration(("n1",))


def batch(
    first_index: int = 1, *commands: bytes, term: int = 1, state: HardState | None = None
) -> Persist:
    entries = tuple(Entry(term, command) for command in commands)
    return Persist(term, first_index + len(entries) - 1, state, first_index, entries)


def filled(directory: Path) -> list[tuple[HardState, list[Entry]]]:
    """Write a small log; what must be found after each of its frames."""
    found = [(HardState(), list[Entry]())]
    with Storage(directory, "n1") as storage:
        for each in (
            batch(1, b"a", b"b", state=HardState(1, "n1")),
            batch(3, b"c"),
            batch(2, b"other", term=2, state=HardState(2, None)),
            batch(3, b"d" * 40, b"", term=2),
        ):
            storage.write([each])
            state, entries = found[-1]
            entries = entries[: each.first_index - 1] + list(each.entries)
            found.append((each.hard_state or state, entries))
    return found


def read(directory: Path) -> tuple[HardState, list[Entry]]:
    with Storage(directory, "n1") as storage:
        return storage.hard_state, storage.entries


def test_a_new_directory_is_an_empty_log(tmp_path: Path) -> None:
    assert read(tmp_path / "deep" / "new") == (HardState(), [])


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    assert read(tmp_path) == (HardState(), [])
    assert filled(tmp_path)[-1] == read(tmp_path)


def test_a_new_directory_begins_with_the_state_it_is_given_and_keeps_it(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1", first_state=HardState(is_observer=True)) as storage:
        assert storage.hard_state.is_observer
    with Storage(tmp_path, "n1") as storage:
        assert storage.hard_state.is_observer
        storage.write([batch(state=HardState(1, None))])
    assert read(tmp_path) == (HardState(1, None), [])


def test_many_batches_share_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    flush = os.fdatasync

    def counted(descriptor: int) -> None:
        flushes.append(descriptor)
        flush(descriptor)

    with Storage(tmp_path, "n1") as storage:
        monkeypatch.setattr(os, "fdatasync", counted)
        storage.write([batch(index, b"x") for index in range(1, 50)])
    assert len(flushes) == 1
    assert len(read(tmp_path)[1]) == 49


def test_a_torn_tail_is_cut_at_every_length(tmp_path: Path) -> None:
    found = filled(tmp_path)
    log = tmp_path / FIRST
    data = log.read_bytes()
    ends = _frame_ends(data)
    assert len(ends) == len(found)
    for length in range(ends[0], len(data)):
        log.write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        assert read(tmp_path) == found[whole - 1], f"cut to {length} of {len(data)} bytes"
        assert log.stat().st_size == ends[whole - 1]


def test_a_log_goes_on_after_its_torn_tail_was_cut(tmp_path: Path) -> None:
    filled(tmp_path)
    log = tmp_path / FIRST
    log.write_bytes(log.read_bytes()[:-1])
    with Storage(tmp_path, "n1") as storage:
        assert storage.cut_bytes > 0
        storage.write([batch(3, b"e", term=3)])
    assert [entry.command for entry in read(tmp_path)[1]] == [b"a", b"other", b"e"]


def test_a_flipped_bit_is_refused_at_every_offset_of_every_file(tmp_path: Path) -> None:
    segmented(tmp_path)
    checked = 0
    for path in [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"]:
        data = path.read_bytes()
        for offset in range(len(data)):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << (offset % 8)
            path.write_bytes(flipped)
            with pytest.raises(CorruptLog, match="is damaged at byte") as caught:
                read(tmp_path)
            assert "Restore the file" in str(caught.value)
            assert path.read_bytes() == flipped, "a refused log must stay as it is, as evidence"
            checked += 1
        path.write_bytes(data)
    assert checked > 700
    assert read(tmp_path)[1]


def segmented(directory: Path) -> None:
    """Several segments, the oldest of them deleted, behind a snapshot."""
    with Storage(directory, "n1", segment_bytes=120) as storage:
        for index in range(1, 21):
            state = HardState(index, "n2") if index % 3 == 0 else None
            storage.write([batch(index, b"entry %d" % index, state=state)])
        storage.snapshots.write(SnapshotMeta(6, 1, INITIAL), [b"a" * 20, b"b"])
        storage.compact(6)
    names = sorted(path.name for path in directory.glob("log-*"))
    assert len(names) > 3
    assert FIRST not in names


def test_segments_come_back_as_one_log(tmp_path: Path) -> None:
    segmented(tmp_path)
    with Storage(tmp_path, "n1") as storage:
        restored = storage.restored(INITIAL)
    assert restored == Restored(
        HardState(18, "n2"),
        SnapshotMeta(6, 1, INITIAL),
        [Entry(1, b"entry %d" % index) for index in range(7, 21)],
    )


def test_a_missing_segment_is_named_wherever_it_was(tmp_path: Path) -> None:
    segmented(tmp_path)
    for path in sorted(tmp_path.glob("log-*")):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(CorruptLog, match=r"missing|snapshot should end"):
            read(tmp_path)
        path.write_bytes(data)


def test_without_its_log_a_snapshot_is_refused(tmp_path: Path) -> None:
    segmented(tmp_path)
    for path in (*tmp_path.glob("log-*"), tmp_path / "newest"):
        path.unlink()
    with pytest.raises(CorruptLog, match="the log is missing"):
        read(tmp_path)


def test_a_segment_that_lost_whole_records_at_its_end_is_refused(tmp_path: Path) -> None:
    segmented(tmp_path)
    path = sorted(tmp_path.glob("log-*"))[1]
    data = path.read_bytes()
    path.write_bytes(data[: _frame_ends(data)[-2]])
    with pytest.raises(CorruptLog, match="has not the end that it had"):
        read(tmp_path)


def test_a_torn_end_before_a_newer_segment_is_refused(tmp_path: Path) -> None:
    segmented(tmp_path)
    path = sorted(tmp_path.glob("log-*"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptLog, match="torn"):
        read(tmp_path)


def test_a_segment_under_another_name_is_refused(tmp_path: Path) -> None:
    segmented(tmp_path)
    first, second = sorted(tmp_path.glob("log-*"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(CorruptLog, match="under another name"):
        read(tmp_path)


def test_a_damaged_middle_names_the_offset_of_its_record(tmp_path: Path) -> None:
    filled(tmp_path)
    log = tmp_path / FIRST
    data = bytearray(log.read_bytes())
    start = _frame_ends(bytes(data))[1]
    data[start + HEADER_BYTES + 2] ^= 0xFF
    log.write_bytes(data)
    with pytest.raises(CorruptLog, match=f"at byte {start}:"):
        read(tmp_path)


@pytest.mark.parametrize("sector", [1, 2])
def test_an_unwritten_sector_of_the_last_write_is_a_torn_tail(tmp_path: Path, sector: int) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a")])
        storage.write([batch(2, b"x" * 2000)])
    log = tmp_path / FIRST
    data = bytearray(log.read_bytes())
    data[sector * 512 : (sector + 1) * 512] = bytes(512)
    log.write_bytes(data)
    assert [entry.command for entry in read(tmp_path)[1]] == [b"a"]


@pytest.mark.parametrize("before", [0, 1, 4, 8, 11, 12, 300])
def test_an_unwritten_sector_with_the_header_of_the_last_write_is_a_torn_tail(
    tmp_path: Path, before: int
) -> None:
    """Found by the simulation: the sector was there, its new end and all that follows was not."""
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a")])
    log = tmp_path / FIRST
    fill = 1024 - before - len(log.read_bytes()) - HEADER_BYTES
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(2, b"y" * (fill - 15))])
    start = len(log.read_bytes())
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(3, b"x" * 2000)])
    data = bytearray(log.read_bytes())
    # A header that crosses the edge of a sector is torn where a run of zeros is long enough to
    # prove it; where only a few bytes of it are missing, the node would rather not start.
    edge = -(-(start + 1) // 512) * 512
    data[start:edge] = bytes(edge - start)
    log.write_bytes(data)
    if edge - start >= 8:
        assert len(read(tmp_path)[1]) == 2
    else:
        with pytest.raises(CorruptLog, match=f"at byte {start}:"):
            read(tmp_path)


def test_a_header_that_is_gone_before_a_whole_frame_is_damage(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a")])
    start = len((tmp_path / FIRST).read_bytes())
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(2, b"x" * 2000)])
        storage.write([batch(3, b"b")])
    log = tmp_path / FIRST
    data = bytearray(log.read_bytes())
    edge = -(-(start + 1) // 512) * 512
    data[start:edge] = bytes(edge - start)
    log.write_bytes(data)
    with pytest.raises(CorruptLog, match=f"at byte {start}:"):
        read(tmp_path)


def test_an_unwritten_sector_before_the_last_write_is_damage(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"x" * 2000)])
        storage.write([batch(2, b"b")])
    log = tmp_path / FIRST
    data = bytearray(log.read_bytes())
    data[512:1024] = bytes(512)
    log.write_bytes(data)
    with pytest.raises(CorruptLog):
        read(tmp_path)


def test_zeros_where_the_last_write_should_be_are_a_torn_tail(tmp_path: Path) -> None:
    found = filled(tmp_path)
    log = tmp_path / FIRST
    log.write_bytes(log.read_bytes() + bytes(300))
    assert read(tmp_path) == found[-1]


def test_missing_entries_are_damage(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a")])
        storage.write([batch(5, b"b")])
    with pytest.raises(CorruptLog, match="entries before 5 are missing"):
        read(tmp_path)


def test_a_log_without_its_header_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath(FIRST).write_bytes(encode_frame(b"\x91\x92\x01\x93\x03\xc0\xc2"))
    with pytest.raises(CorruptLog, match="header"):
        read(tmp_path)
    tmp_path.joinpath(FIRST).write_bytes(b"")
    with pytest.raises(CorruptLog, match="header"):
        read(tmp_path)


def test_the_log_of_another_node_or_cluster_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(MachineError, match="belongs to node n1"):
        Storage(tmp_path, "n2")
    with pytest.raises(MachineError, match="belongs to cluster 'labrys'"):
        Storage(tmp_path, "n1", cluster="other")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1"), pytest.raises(MachineError, match="in use by another node"):
        Storage(tmp_path, "n1")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(MachineError, match="cannot use the data directory"):
        Storage(tmp_path / "file" / "data", "n1")


@pytest.mark.parametrize("call", ["append", "flush"])
def test_a_failed_write_or_flush_is_reported_and_not_tried_again(call: str) -> None:
    calls: list[str] = []
    disk = SimDisk()

    def fail(what: str) -> None:
        if what == call:
            calls.append(what)
            raise OSError(errno.EIO, "Input/output error")

    with Storage(Path("/d"), "n1", disk=disk) as storage:
        disk.fail = fail
        with pytest.raises(MachineError, match="this node stops") as caught:
            storage.write([batch(1, b"a")])
    assert not isinstance(caught.value, DiskFull)
    assert calls == [call]


def test_a_flush_that_finds_no_room_is_final_too() -> None:
    disk = SimDisk()

    def fail(what: str) -> None:
        if what == "flush":
            raise OSError(errno.ENOSPC, "No space left on device")

    with Storage(Path("/d"), "n1", disk=disk) as storage:
        disk.fail = fail
        with pytest.raises(MachineError, match="flushing") as caught:
            storage.write([batch(1, b"a")])
    assert not isinstance(caught.value, DiskFull)


@pytest.mark.parametrize("room_bytes", range(0, 400, 7))
def test_a_write_without_room_is_taken_back_and_may_be_tried_again(room_bytes: int) -> None:
    disk = SimDisk()
    with Storage(Path("/d"), "n1", disk=disk, segment_bytes=100) as storage:
        storage.write([batch(1, b"a" * 50)])
        disk.capacity_bytes = disk.used_bytes() + room_bytes
        second = [batch(2, b"b" * 90, state=HardState(5, "n2"))]
        is_full = False
        try:
            storage.write(second)
        except DiskFull:
            is_full = True
            disk.capacity_bytes = None
            storage.write(second)
        disk.capacity_bytes = None
        assert is_full == (room_bytes < 160), "the sizes above no longer show both"
        storage.write([batch(3, b"c")])
    with Storage(Path("/d"), "n1", disk=disk) as storage:
        assert [entry.command[:1] for entry in storage.entries] == [b"a", b"b", b"c"]
        assert storage.hard_state == HardState(5, "n2")
    assert not [path for path in disk.names_now if "draft" in path.name]


commands = st.lists(st.binary(max_size=30), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), commands), max_size=12))
def test_any_sequence_of_batches_round_trips(
    steps: list[tuple[int, int, list[bytes]]],
) -> None:
    disk = SimDisk()
    state, entries = HardState(), list[Entry]()
    with Storage(Path("/d"), "n1", disk=disk, segment_bytes=150) as storage:
        for number, (back, term, added) in enumerate(steps):
            first = max(1, len(entries) + 1 - back)
            new_state = HardState(number, "n2") if term > 4 else None
            state = new_state or state
            each = batch(first, *added, term=term, state=new_state)
            storage.write([each])
            if added:
                entries = entries[: first - 1] + list(each.entries)
    with Storage(Path("/d"), "n1", disk=disk) as storage:
        assert (storage.hard_state, storage.entries) == (state, entries)


def test_bug_forget_vote_forgets_term_and_vote_and_nothing_else(tmp_path: Path) -> None:
    with ForgetVote(tmp_path, "n1", first_state=HardState(is_observer=True)) as storage:
        storage.write([batch(1, b"a", term=3, state=HardState(3, "n2"))])
    assert read(tmp_path) == (HardState(), [Entry(3, b"a")])


def test_bug_lose_tail_forgets_the_newest_entries(tmp_path: Path) -> None:
    with LoseTail(tmp_path, "n1") as storage:
        storage.write([batch(1, *[b"%d" % n for n in range(LoseTail.LOST_COUNT + 3)])])
    with LoseTail(tmp_path, "n1") as storage:
        assert [entry.command for entry in storage.entries] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("kind", [Storage, SkipFsync])
def test_bug_skip_fsync_flushes_nothing_that_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Storage]
) -> None:
    flushed: list[int] = []
    with kind(tmp_path, "n1") as storage:
        monkeypatch.setattr("labrys.node.disk.os.fdatasync", flushed.append)
        storage.write([batch(1, b"a")])
        assert len(flushed) == (0 if kind is SkipFsync else 1)
    with kind(tmp_path, "n1") as storage:
        assert [entry.command for entry in storage.entries] == [b"a"], "a kill loses nothing"


def test_bug_skip_checksum_believes_a_changed_command_and_passes_over_nonsense(
    tmp_path: Path,
) -> None:
    commands = [b'["put","k",1]', b'["put","l",2]', b'["put","m",3]']
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, *commands)])
    log = tmp_path / FIRST
    log.write_bytes(
        log.read_bytes().replace(b'"k",1', b'"k",5').replace(b'["put","l"', b'{"put","l"')
    )
    with pytest.raises(CorruptLog):
        read(tmp_path)
    with SkipChecksum(tmp_path, "n1") as storage:
        found = [entry.command for entry in storage.entries]
    assert found == [b'["put","k",5]', b"", commands[2]]


def _frame_ends(data: bytes) -> list[int]:
    ends: list[int] = []
    offset = 0
    while offset < len(data):
        offset += HEADER_BYTES + int.from_bytes(data[offset : offset + 4], "little")
        ends.append(offset)
    return ends
