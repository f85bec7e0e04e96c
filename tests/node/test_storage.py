"""The durable log: flushed entries come back, a torn tail is cut, damage is refused."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrys.node.bugs import ForgetVote, LoseTail
from labrys.node.effects import Persist
from labrys.node.errors import CorruptLog, MachineError
from labrys.node.messages import Entry, HardState
from labrys.node.storage import HEADER_BYTES, StateRecord, Storage, encode_frame


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


def test_many_batches_share_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    flush = os.fdatasync

    def counted(descriptor: int) -> None:
        flushes.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(index, b"x") for index in range(1, 50)])
    assert len(flushes) == 1
    assert len(read(tmp_path)[1]) == 49


def test_a_torn_tail_is_cut_at_every_length(tmp_path: Path) -> None:
    found = filled(tmp_path)
    log = tmp_path / "log"
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
    log = tmp_path / "log"
    log.write_bytes(log.read_bytes()[:-1])
    with Storage(tmp_path, "n1") as storage:
        assert storage.cut_bytes > 0
        storage.write([batch(3, b"e", term=3)])
    assert [entry.command for entry in read(tmp_path)[1]] == [b"a", b"other", b"e"]


def test_a_flipped_bit_is_refused_at_every_offset(tmp_path: Path) -> None:
    filled(tmp_path)
    log = tmp_path / "log"
    data = log.read_bytes()
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << (offset % 8)
        log.write_bytes(flipped)
        with pytest.raises(CorruptLog, match="is damaged at byte") as caught:
            read(tmp_path)
        assert str(log) in str(caught.value)
        assert "Restore the file" in str(caught.value)
        assert log.read_bytes() == flipped, "a refused log must stay as it is, as evidence"


def test_a_damaged_middle_names_the_offset_of_its_record(tmp_path: Path) -> None:
    filled(tmp_path)
    log = tmp_path / "log"
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
    log = tmp_path / "log"
    data = bytearray(log.read_bytes())
    data[sector * 512 : (sector + 1) * 512] = bytes(512)
    log.write_bytes(data)
    assert [entry.command for entry in read(tmp_path)[1]] == [b"a"]


def test_an_unwritten_sector_before_the_last_write_is_damage(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"x" * 2000)])
        storage.write([batch(2, b"b")])
    log = tmp_path / "log"
    data = bytearray(log.read_bytes())
    data[512:1024] = bytes(512)
    log.write_bytes(data)
    with pytest.raises(CorruptLog):
        read(tmp_path)


def test_zeros_where_the_last_write_should_be_are_a_torn_tail(tmp_path: Path) -> None:
    found = filled(tmp_path)
    log = tmp_path / "log"
    log.write_bytes(log.read_bytes() + bytes(300))
    assert read(tmp_path) == found[-1]


def test_missing_entries_are_damage(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a")])
        storage.write([batch(5, b"b")])
    with pytest.raises(CorruptLog, match="entries before 5 are missing"):
        read(tmp_path)


def test_a_log_without_its_identity_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("log").write_bytes(encode_frame([StateRecord(HardState(3, None))]))
    with pytest.raises(CorruptLog, match="identity"):
        read(tmp_path)
    tmp_path.joinpath("log").write_bytes(b"")
    with pytest.raises(CorruptLog, match="identity"):
        read(tmp_path)


def test_the_log_of_another_node_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(MachineError, match="belongs to node n1"):
        Storage(tmp_path, "n2")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with Storage(tmp_path, "n1"), pytest.raises(MachineError, match="in use by another node"):
        Storage(tmp_path, "n1")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(MachineError, match="cannot use the data directory"):
        Storage(tmp_path / "file" / "data", "n1")


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failed_write_or_flush_is_reported_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    calls: list[str] = []

    def fail(*_: object) -> int:
        calls.append(call)
        raise OSError(5, "Input/output error")

    with Storage(tmp_path, "n1") as storage:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(MachineError, match="this node stops"):
            storage.write([batch(1, b"a")])
    assert calls == [call]


commands = st.lists(st.binary(max_size=30), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), commands), max_size=12))
def test_any_sequence_of_batches_round_trips(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, list[bytes]]]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    state, entries = HardState(), list[Entry]()
    with Storage(directory, "n1") as storage:
        for number, (back, term, added) in enumerate(steps):
            first = max(1, len(entries) + 1 - back)
            new_state = HardState(number, "n2") if term > 4 else None
            state = new_state or state
            each = batch(first, *added, term=term, state=new_state)
            storage.write([each])
            if added:
                entries = entries[: first - 1] + list(each.entries)
    assert read(directory) == (state, entries)


def test_bug_forget_vote_keeps_entries_only(tmp_path: Path) -> None:
    with ForgetVote(tmp_path, "n1") as storage:
        storage.write([batch(1, b"a", term=3, state=HardState(3, "n2"))])
    assert read(tmp_path) == (HardState(), [Entry(3, b"a")])


def test_bug_lose_tail_forgets_the_newest_entries(tmp_path: Path) -> None:
    with LoseTail(tmp_path, "n1") as storage:
        storage.write([batch(1, *[b"%d" % n for n in range(LoseTail.LOST_COUNT + 3)])])
    with LoseTail(tmp_path, "n1") as storage:
        assert [entry.command for entry in storage.entries] == [b"0", b"1", b"2"]


def _frame_ends(data: bytes) -> list[int]:
    ends: list[int] = []
    offset = 0
    while offset < len(data):
        offset += HEADER_BYTES + int.from_bytes(data[offset : offset + 4], "little")
        ends.append(offset)
    return ends
