"""The ledger is written ahead, survives a torn end, and says what is still in force."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.control.errors import MachineError, UsageError
from labrys.control.ledger import Ledger, in_force, read_ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faults.jsonl"


def ticking() -> int:
    return 7


def write_three(path: Path) -> tuple[FaultEvent, ...]:
    with Ledger(path, ticking) as ledger:
        fault = ledger.new_id()
        return (
            ledger.record(
                fault, FaultStage.PLANNED, "kill", targets=["n1"], plan={"targets": "one"}
            ),
            ledger.record(fault, FaultStage.EVIDENCE, "kill", observed={"n1": "dead"}, bit=True),
            ledger.record(fault, FaultStage.UNDONE, "kill"),
        )


def test_events_come_back_as_they_were_written(path: Path) -> None:
    written = write_three(path)
    assert read_ledger(path) == written
    assert written[0].time == 7
    assert written[0].targets == ("n1",)


def test_event_is_in_the_file_before_record_returns(path: Path) -> None:
    with Ledger(path, ticking) as ledger:
        ledger.record(ledger.new_id(), FaultStage.PLANNED, "kill")
        assert len(read_ledger(path)) == 1


def test_event_is_synced_before_record_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(path, ticking) as ledger:
        calls: list[str] = []
        write, sync = os.write, os.fsync

        def noted_write(fd: int, data: bytes) -> int:
            calls.append("write")
            return write(fd, data)

        def noted_sync(fd: int) -> None:
            calls.append("fsync")
            sync(fd)

        monkeypatch.setattr(os, "write", noted_write)
        monkeypatch.setattr(os, "fsync", noted_sync)
        ledger.record(ledger.new_id(), FaultStage.PLANNED, "kill")
        assert calls == ["write", "fsync"]


def test_run_without_a_ledger_has_no_faults(path: Path) -> None:
    assert read_ledger(path) == ()


@given(cut=st.integers(min_value=0))
def test_every_torn_end_loses_the_torn_event_only(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "faults.jsonl"
    written = write_three(path)
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)
    whole = kept.count(b"\n")
    assert read_ledger(path) == written[:whole]
    # Whoever goes on with it (`labrys heal`) starts on a fresh line.
    with Ledger(path, ticking) as ledger:
        ledger.record(ledger.new_id(), FaultStage.UNDONE, "kill")
    assert len(read_ledger(path)) == whole + 1


def test_end_that_a_power_cut_filled_with_zeros_is_torn(path: Path) -> None:
    written = write_three(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_ledger(path) == written


@pytest.mark.parametrize(
    "broken",
    [
        b'{"id":1,"stage":"planned"\n',
        b'{"id":1,"stage":"bitten","time":0,"kind":"kill"}\n',
        b'{"id":1,"stage":"planned","time":0,"kind":"kill","colour":1}\n',
        b"\xff\xfe\n",
        b"\n",
    ],
)
def test_broken_line_in_the_middle_is_named(path: Path, broken: bytes) -> None:
    write_three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + broken + lines[1])
    with pytest.raises(UsageError, match=r"faults\.jsonl:2: not a fault event"):
        read_ledger(path)
    with pytest.raises(UsageError, match=r"faults\.jsonl:2: "):
        Ledger(path, ticking)


def test_full_disk_is_a_machine_error_and_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(path, ticking) as ledger:
        fault = ledger.new_id()
        ledger.record(fault, FaultStage.PLANNED, "kill")
        before = path.read_bytes()
        write = os.write
        room = [10]

        def full(fd: int, data: bytes) -> int:
            if room[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(fd, data[: room[0]])  # a short write first, as real disks do
            room[0] -= written
            return written

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(MachineError, match=r"faults\.jsonl: .*No space left on device"):
                ledger.record(fault, FaultStage.APPLIED, "kill")
        assert path.read_bytes() == before, "no half line is left"
        ledger.record(fault, FaultStage.UNDONE, "kill")  # there is room again
    assert [event.stage for event in read_ledger(path)] == [FaultStage.PLANNED, FaultStage.UNDONE]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_really_full_device_is_a_machine_error(path: Path) -> None:
    with Ledger(path, ticking) as ledger:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, ledger._fd)
        os.close(full)
        with pytest.raises(MachineError, match="No space left"):
            ledger.record(1, FaultStage.PLANNED, "kill")


def test_unwritable_place_is_a_machine_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot open the fault ledger"):
        Ledger(tmp_path / "absent" / "faults.jsonl", ticking)


def test_reopened_ledger_gives_new_numbers(path: Path) -> None:
    write_three(path)
    with Ledger(path, ticking) as ledger:
        assert ledger.new_id() == 2


def test_in_force_is_what_was_planned_and_never_undone(path: Path) -> None:
    with Ledger(path, ticking) as ledger:
        for stages in (
            (FaultStage.PLANNED,),
            (FaultStage.PLANNED, FaultStage.APPLIED, FaultStage.UNDONE),
            (FaultStage.PLANNED, FaultStage.APPLIED, FaultStage.FAILED),
        ):
            fault = ledger.new_id()
            for stage in stages:
                ledger.record(fault, stage, "kill")
    left = in_force(read_ledger(path))
    assert [(event.id, event.stage) for event in left] == [
        (1, FaultStage.PLANNED),
        (3, FaultStage.FAILED),
    ]
