"""The disk that forgets: what was flushed survives a power failure, the rest as it is told."""

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrys.control.disks.volume import (
    CAPACITY_BYTES,
    HOLES,
    KEEP,
    LOSE,
    SECTOR_BYTES,
    TEAR,
    UNSYNCED,
    Directory,
    File,
    Volume,
)

NAMES = (b"a", b"b", b"c")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(NAMES)),
        st.tuples(
            st.just("write"),
            st.sampled_from(NAMES),
            st.integers(0, 3000),
            st.integers(1, 1500),
            st.integers(1, 255),
        ),
        st.tuples(st.just("resize"), st.sampled_from(NAMES), st.integers(0, 3000)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("unlink"), st.sampled_from(NAMES)),
        st.tuples(st.just("sync"), st.sampled_from(NAMES)),
        st.tuples(st.just("sync names")),
    ),
    max_size=30,
)


class Plain:
    """The same with copies of everything: what programs see, and what is durable."""

    def __init__(self) -> None:
        self.volume = Volume()
        self.now: dict[bytes, File] = {}
        self.durable_names: dict[bytes, File] = {}
        self.durable: dict[File, bytes] = {}

    def do(self, step: tuple[Any, ...]) -> None:
        volume, root = self.volume, self.volume.root
        word, name, *more = (*step, b"a")[: max(2, len(step))]
        file = self.now.get(name)
        if word == "create" and file is None:
            made = self.now[name] = volume.create(root, name, 0o644, 0, 0)
            self.durable[made] = b""
        elif word == "sync names":
            volume.sync_directory(root)
            self.durable_names = dict(self.now)
        elif file is None:
            return
        elif word == "write":
            offset, size, byte = more
            data = bytes([byte]) * size
            before = bytes(file.content)
            assert volume.write(file, offset, data) == size
            padded = before.ljust(offset, b"\0")
            assert file.content == padded[:offset] + data + padded[offset + size :]
        elif word == "resize":
            volume.resize(file, more[0])
        elif word == "rename":
            volume.rename(root, name, root, more[0])
            self.now[more[0]] = self.now.pop(name)
        elif word == "unlink":
            volume.unlink(root, name)
            del self.now[name]
        elif word == "sync":
            file.sync()
            self.durable[file] = bytes(file.content)

    def played(self, steps: list[tuple[Any, ...]]) -> "Plain":
        for step in steps:
            self.do(step)
        return self


def contents(volume: Volume) -> dict[bytes, bytes]:
    return {
        name: bytes(node.content)
        for name, node in volume.root.names.items()
        if isinstance(node, File)
    }


@given(_STEPS)
def test_what_was_not_flushed_is_lost_and_nothing_else(steps: list[tuple[Any, ...]]) -> None:
    plain = Plain().played(steps)
    assert contents(plain.volume) == {name: bytes(f.content) for name, f in plain.now.items()}
    assert plain.volume.used_bytes == sum(len(file.content) for file in plain.now.values())
    plain.volume.power_failure(LOSE, "seed")
    expected = {name: plain.durable[file] for name, file in plain.durable_names.items()}
    assert contents(plain.volume) == expected
    assert plain.volume.used_bytes == sum(map(len, expected.values()))


@given(_STEPS, st.sampled_from(UNSYNCED), st.integers(0, 9))
def test_what_was_flushed_is_never_lost(
    steps: list[tuple[Any, ...]], unsynced: str, seed: int
) -> None:
    plain = Plain().played(steps)
    before = contents(plain.volume)
    plain.volume.sync_all()
    facts = plain.volume.power_failure(unsynced, str(seed))
    assert contents(plain.volume) == before
    assert facts == {"lost_names": 0, "lost_bytes": 0, "torn_files": 0}


@given(_STEPS)
def test_kept_is_all_as_it_was(steps: list[tuple[Any, ...]]) -> None:
    plain = Plain().played(steps)
    before = contents(plain.volume)
    plain.volume.power_failure(KEEP, "seed")
    assert contents(plain.volume) == before


@settings(max_examples=300)
@given(_STEPS, st.sampled_from([TEAR, HOLES]), st.integers(0, 9))
def test_files_are_torn_at_the_borders_of_sectors_only(
    steps: list[tuple[Any, ...]], unsynced: str, seed: int
) -> None:
    plain = Plain().played(steps)
    plain.volume.sync_directory(plain.volume.root)
    before = {name: (plain.durable[f], bytes(f.content)) for name, f in plain.now.items()}
    plain.volume.power_failure(unsynced, str(seed))
    for name, found in contents(plain.volume).items():
        old, new = before[name]
        size = len(found)
        low, high = sorted((len(old), len(new)))
        assert low <= size <= high
        assert size in (len(old), len(new)) or size % SECTOR_BYTES == 0
        for start in range(0, size, SECTOR_BYTES):
            end = min(start + SECTOR_BYTES, size)
            either = {part[start:end].ljust(end - start, b"\0") for part in (old, new)}
            mixed = new[start:end] + old[start + len(new[start:end]) : end]
            assert found[start:end] in {*either, mixed}
        if unsynced == TEAR and len(new) > len(old):
            assert found[len(old) :] == new[len(old) : size], "data comes before the size"


def test_every_fate_of_a_torn_file_is_met() -> None:
    fates = set()
    for seed in range(60):
        volume = Volume()
        file = volume.create(volume.root, b"log", 0o644, 0, 0)
        volume.write(file, 0, b"s" * 700)
        file.sync()
        volume.sync_directory(volume.root)
        volume.write(file, 700, b"n" * 2000)
        facts = volume.power_failure(TEAR, str(seed))
        found = contents(volume)[b"log"]
        assert found == (b"s" * 700 + b"n" * 2000)[: len(found)]
        assert facts["lost_bytes"] == 2700 - len(found)
        assert facts["torn_files"] == (700 < len(found) < 2700)
        fates.add(len(found))
    assert fates == {700, 1024, 1536, 2048, 2560, 2700}


def test_the_same_seed_is_the_same_loss() -> None:
    def lost(seed: str) -> tuple[dict[str, int], dict[bytes, bytes]]:
        volume = Volume()
        for name in NAMES:
            volume.write(volume.create(volume.root, name, 0o644, 0, 0), 0, name * 5000)
        volume.sync_directory(volume.root)
        return volume.power_failure(HOLES, seed), contents(volume)

    assert lost("1") == lost("1")
    assert len({str(lost(str(seed))) for seed in range(9)}) > 3


def test_names_survive_in_their_order() -> None:
    seen = set()
    for seed in range(40):
        volume = Volume()
        root = volume.root
        draft = volume.create(root, b"draft", 0o644, 0, 0)
        draft.sync()
        volume.rename(root, b"draft", root, b"final")
        volume.create(root, b"later", 0o644, 0, 0)
        volume.power_failure(TEAR, str(seed))
        seen.add(frozenset(volume.root.names))
    assert seen == {
        frozenset(),
        frozenset({b"draft"}),
        frozenset({b"final"}),
        frozenset({b"final", b"later"}),
    }


def test_flushing_a_file_does_not_flush_its_name_and_a_name_not_its_content() -> None:
    volume = Volume()
    flushed = volume.create(volume.root, b"flushed", 0o644, 0, 0)
    volume.write(flushed, 0, b"x")
    flushed.sync()
    volume.power_failure(LOSE, "seed")
    assert volume.root.names == {}
    named = volume.create(volume.root, b"named", 0o644, 0, 0)
    volume.write(named, 0, b"x")
    volume.sync_directory(volume.root)
    assert volume.power_failure(LOSE, "seed")["lost_bytes"] == 1
    assert contents(volume) == {b"named": b""}


def test_a_directory_takes_along_what_its_names_rest_upon() -> None:
    volume = Volume()
    left = volume.make_directory(volume.root, b"left", 0o755, 0, 0)
    right = volume.make_directory(volume.root, b"right", 0o755, 0, 0)
    volume.sync_directory(volume.root)
    volume.create(left, b"moved", 0o644, 0, 0)
    volume.rename(left, b"moved", right, b"moved")
    volume.create(left, b"other", 0o644, 0, 0)
    volume.sync_directory(right)
    volume.power_failure(LOSE, "seed")
    tree = {
        name: set(node.names)
        for name, node in volume.root.names.items()
        if isinstance(node, Directory)
    }
    assert tree == {b"left": set(), b"right": {b"moved"}}, "not in both, not in neither"


def test_removed_file_comes_back_if_the_removal_was_not_flushed() -> None:
    volume = Volume()
    file = volume.create(volume.root, b"old", 0o644, 0, 0)
    volume.write(file, 0, b"content")
    volume.sync_all()
    volume.unlink(volume.root, b"old")
    assert volume.used_bytes == 0
    volume.power_failure(LOSE, "seed")
    assert contents(volume) == {b"old": b"content"}
    assert volume.used_bytes == 7


def test_full_disk_takes_what_there_is_room_for_and_then_nothing() -> None:
    volume = Volume()
    assert volume.capacity_bytes == CAPACITY_BYTES
    file = volume.create(volume.root, b"log", 0o644, 0, 0)
    volume.capacity_bytes = 1000
    assert volume.write(file, 0, b"x" * 600) == 600
    assert volume.write(file, 600, b"y" * 600) == 400
    with pytest.raises(OSError, match="No space left") as refused:
        volume.write(file, 1000, b"z")
    assert refused.value.errno == errno.ENOSPC
    assert volume.write(file, 0, b"over") == 4, "what is there can be written again"
    with pytest.raises(OSError, match="No space left"):
        volume.resize(file, 1001)
    volume.resize(file, 0)
    assert volume.write(file, 0, b"y" * 600) == 600


def test_nodes_from_before_the_failure_are_not_those_after_it() -> None:
    volume = Volume()
    before = volume.create(volume.root, b"log", 0o644, 0, 0)
    volume.sync_all()
    volume.power_failure(LOSE, "seed")
    assert volume.root.names[b"log"].number > before.number
    assert volume.root.number == 1
