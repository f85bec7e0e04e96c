"""Snapshots on disk: atomic, checked as a whole, received in pieces."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.control.sim.disk import SimDisk
from labrys.node.configuration import Configuration
from labrys.node.effects import SnapshotMeta
from labrys.node.errors import CorruptLog, DiskFull, MachineError
from labrys.node.messages import InstallRequest
from labrys.node.snapshots import Snapshots, Unsound

HERE = Path("/snapshots")
META = SnapshotMeta(7, 3, Configuration(("n1", "n2"), addresses={"n1": "h:1", "n2": "h:2"}))
RECORDS = [b"first", b"", b"x" * 1000]


def opened(disk: SimDisk, cluster: str = "labrys") -> Snapshots:
    return Snapshots(HERE, cluster, disk)


def pieces(source: Snapshots, meta: SnapshotMeta, size_bytes: int) -> list[InstallRequest]:
    """The snapshot as a leader sends it."""
    found: list[InstallRequest] = []
    offset = 0
    while not (found and found[-1].is_last):
        data, is_last = source.read_chunk(meta.index, offset, size_bytes)
        found.append(InstallRequest(9, 1, meta.index, meta.term, offset, data, is_last))
        offset += len(data)
    return found


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 300))
def test_what_is_written_travels_whole(records: list[bytes], size_bytes: int) -> None:
    source, target = opened(SimDisk()), opened(SimDisk())
    source.write(META, records)
    assert source.newest() == META
    *before, last = pieces(source, META, size_bytes)
    assert [target.receive(piece) for piece in before] == [None] * len(before)
    assert target.receive(last) == META
    assert target.newest() == META
    assert list(target.records(META.index)) == records


def test_the_newest_counts_and_older_ones_go_when_told() -> None:
    disk = SimDisk()
    snapshots = opened(disk)
    later = SnapshotMeta(100, 4, META.configuration)
    snapshots.write(META, [b"old"])
    snapshots.write(later, [b"new"])
    assert snapshots.newest() == later
    assert list(snapshots.records(7)) == [b"old"]
    snapshots.prune(100)
    assert disk.names(HERE) == ["snapshot-00000000000000000100"]
    assert snapshots.newest() == later


def test_a_piece_that_comes_twice_or_again_from_the_start_does_no_harm() -> None:
    source, target = opened(SimDisk()), opened(SimDisk())
    source.write(META, RECORDS)
    first, second, *rest = pieces(source, META, 100)
    for piece in (first, second, second, first, second, *rest[:-1], rest[-2]):
        assert target.receive(piece) is None
    assert target.receive(rest[-1]) == META


def test_a_gap_is_refused_and_everything_begins_anew() -> None:
    source, disk = opened(SimDisk()), SimDisk()
    target = opened(disk)
    source.write(META, RECORDS)
    every = pieces(source, META, 100)
    target.receive(every[0])
    with pytest.raises(Unsound, match="follows"):
        target.receive(every[2])
    assert disk.names_now == {}
    for piece in every[:-1]:
        target.receive(piece)
    assert target.receive(every[-1]) == META


def test_a_flipped_bit_is_found_at_every_offset() -> None:
    disk = SimDisk()
    snapshots = opened(disk)
    snapshots.write(META, [b"one", b"two"])
    (inode,) = disk.names_now.values()
    for offset in range(len(inode.content)):
        inode.content[offset] ^= 1 << (offset % 8)
        snapshots.unsound.clear()
        assert snapshots.newest() is None
        assert "damaged at byte" in snapshots.unsound[0]
        inode.content[offset] ^= 1 << (offset % 8)
    assert snapshots.newest() == META


def test_every_shortened_file_is_found() -> None:
    disk = SimDisk()
    snapshots = opened(disk)
    snapshots.write(META, [b"one", b"two"])
    (inode,) = disk.names_now.values()
    whole = bytes(inode.content)
    for length in range(len(whole)):
        inode.content[:] = whole[:length]
        assert snapshots.newest() is None
    inode.content[:] = whole
    assert snapshots.newest() == META


def test_a_damaged_record_is_an_honest_error() -> None:
    disk = SimDisk()
    snapshots = opened(disk)
    snapshots.write(META, RECORDS)
    (inode,) = disk.names_now.values()
    inode.content[-100] ^= 1
    with pytest.raises(CorruptLog, match="damaged"):
        list(snapshots.records(META.index))


def test_that_of_another_cluster_or_index_is_refused() -> None:
    source, disk = opened(SimDisk(), "other"), SimDisk()
    source.write(META, RECORDS)
    (piece,) = pieces(source, META, 1 << 20)
    with pytest.raises(Unsound, match="cluster 'other'"):
        opened(disk).receive(piece)
    wrong = InstallRequest(9, 1, 8, 3, 0, piece.data, True)
    with pytest.raises(Unsound, match="not of 8"):
        opened(disk, "other").receive(wrong)
    assert disk.names_now == {}


def test_without_room_nothing_is_left_and_it_may_be_tried_again() -> None:
    disk = SimDisk()
    snapshots = opened(disk)
    snapshots.write(META, [b"old"])
    later = SnapshotMeta(100, 4, META.configuration)
    disk.capacity_bytes = disk.used_bytes() + 50
    with pytest.raises(DiskFull, match="make room"):
        snapshots.write(later, RECORDS)
    assert len(disk.names_now) == 1
    assert snapshots.newest() == META
    disk.capacity_bytes = None
    snapshots.write(later, RECORDS)
    assert snapshots.newest() == later


def test_a_piece_without_room_may_come_again() -> None:
    source, disk = opened(SimDisk()), SimDisk()
    target = opened(disk)
    source.write(META, RECORDS)
    first, *rest = pieces(source, META, 400)
    target.receive(first)
    disk.capacity_bytes = disk.used_bytes() + 10
    with pytest.raises(DiskFull):
        target.receive(rest[0])
    disk.capacity_bytes = None
    assert [target.receive(piece) for piece in rest][-1] == META


def test_a_disk_that_breaks_is_an_error_that_names_the_file() -> None:
    disk = SimDisk()
    snapshots = opened(disk)

    def fail(what: str) -> None:
        if what == "flush":
            raise OSError(errno.EIO, "Input/output error")

    disk.fail = fail
    with pytest.raises(MachineError, match="draft-own") as caught:
        snapshots.write(META, RECORDS)
    assert not isinstance(caught.value, DiskFull)


def test_what_a_crash_left_half_done_is_removed() -> None:
    disk = SimDisk()
    disk.create(HERE / "draft-own").append(b"half")
    disk.create(HERE / "draft-received").append(b"half")
    opened(disk)
    assert disk.names_now == {}
