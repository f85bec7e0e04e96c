"""The run store: nothing recorded is lost, and runs are found again."""

import errno
import os
from pathlib import Path

import pytest

from labrys.checkers.history import decode_op, read_history
from labrys.checkers.op import Op, OpType
from labrys.control.errors import MachineError, UsageError
from labrys.control.spec import resolve
from labrys.control.store import (
    KEPT_BACK_MAX,
    Recorder,
    all_runs,
    create_run,
    find_run,
    write_atomically,
)


def op(value: int) -> Op:
    kind = OpType.INVOKE if value % 2 == 0 else OpType.OK
    return Op(type=kind, process=0, f="write", value=value, time=value)


def test_recorded_ops_are_on_disk_at_once_and_numbered(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history.jsonl")
    assert recorder.append(op(0)).index == 0
    assert recorder.append(op(1)).index == 1
    assert [o.value for o in read_history(tmp_path / "history.jsonl").ops] == [0, 1]
    assert recorder.close() == b""


def test_recorder_that_is_not_prompt_keeps_a_few_ops_back(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path, is_prompt=False)
    for value in range(KEPT_BACK_MAX - 1):
        assert recorder.append(op(value)).index == value
    assert path.read_bytes() == b""
    recorder.append(op(KEPT_BACK_MAX - 1))
    assert len(read_history(path).ops) == KEPT_BACK_MAX
    recorder.append(op(KEPT_BACK_MAX))
    recorder.flush()
    assert len(read_history(path).ops) == KEPT_BACK_MAX + 1
    recorder.append(op(KEPT_BACK_MAX + 1))
    assert recorder.close() == b""
    assert len(read_history(path).ops) == KEPT_BACK_MAX + 2


def test_full_disk_leaves_whole_lines_and_later_ops_are_saved_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path)
    recorder.append(op(0))
    whole = path.read_bytes()
    really_write = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for value in (1, 2, 3):
        recorder.append(op(value))
    assert recorder.failure is not None
    assert recorder.failure.errno == errno.ENOSPC
    assert path.read_bytes() == whole
    monkeypatch.setattr(os, "write", really_write)
    assert recorder.close() == b""
    assert [o.value for o in read_history(path).ops] == [0, 1, 2, 3]


def test_half_written_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path)
    recorder.append(op(0))
    whole = path.read_bytes()
    really_write = os.write
    writes = 0

    def short_then_full(fd: int, data: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 1:
            return really_write(fd, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", short_then_full)
    recorder.append(op(1))
    assert path.read_bytes() == whole
    rest = recorder.close()
    assert path.read_bytes() == whole
    assert decode_op(rest).value == 1


def test_run_directory_lies_under_its_name_and_latest_points_to_it(tmp_path: Path) -> None:
    spec = resolve({"seed": 42, "name": "demo"})
    run = create_run(tmp_path / "runs", spec)
    assert run.path.parent.name == "demo"
    assert run.path.name.endswith("-42")
    assert run.spec() == spec
    assert (tmp_path / "runs" / "latest").resolve() == run.path
    assert (tmp_path / "runs" / "demo" / "latest").resolve() == run.path


def test_two_runs_of_one_second_and_seed_do_not_share_a_directory(tmp_path: Path) -> None:
    spec = resolve({"seed": 42})
    first, second = create_run(tmp_path, spec), create_run(tmp_path, spec)
    assert first.path != second.path
    assert (tmp_path / "latest").resolve() == second.path


def test_unwritable_runs_directory_is_one_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "runs"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(MachineError, match="--runs-dir") as caught:
        create_run(blocked, resolve({}))
    assert caught.value.exit_code == 4


def test_runs_are_found_by_path_number_and_latest(tmp_path: Path) -> None:
    made = [create_run(tmp_path, resolve({"seed": seed, "name": "a"})) for seed in (1, 2, 3)]
    assert [run.path.resolve() for run in all_runs(tmp_path)] == [run.path for run in made]
    assert find_run("latest", tmp_path).path.resolve() == made[2].path
    assert find_run("-2", tmp_path).path.resolve() == made[1].path
    assert find_run(str(made[0].path), tmp_path).path == made[0].path


@pytest.mark.parametrize("reference", ["7", "-9", "no/such/run"])
def test_run_that_is_not_there_is_a_usage_error(tmp_path: Path, reference: str) -> None:
    create_run(tmp_path, resolve({}))
    with pytest.raises(UsageError, match=reference):
        find_run(reference, tmp_path)


def test_empty_and_absent_stores_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no runs in it yet"):
        find_run("latest", tmp_path)
    with pytest.raises(UsageError, match="no such runs directory"):
        find_run("latest", tmp_path / "absent")


def test_results_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path, resolve({}))
    assert run.read_results() is None
    run.write_results({"verdict": "valid"})

    def fails(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(MachineError, match="No space left"):
        run.write_results({"verdict": "invalid"})
    assert run.read_results() == {"verdict": "valid"}
    assert sorted(p.name for p in run.path.iterdir()) == ["nodes", "results.json", "test.yaml"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"verdict":7}', b'{"verdict":"fine"}', b"\xff",
     b'{"verdict":"valid","checkers":[]}', b'{"verdict":"valid","checkers":{"stats":{}}}'],
)  # fmt: skip
def test_damaged_results_are_one_clear_error_that_names_the_file(
    tmp_path: Path, content: bytes
) -> None:
    run = create_run(tmp_path, resolve({"seed": 1}))
    assert run.read_results() is None
    run.results.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.json: not the results of a run"):
        run.read_results()


def test_spec_of_a_run_that_cannot_be_run_is_refused_with_its_file(tmp_path: Path) -> None:
    run = create_run(tmp_path, resolve({"seed": 1}))
    (run.path / "test.yaml").write_text("nodes: 4\n")
    with pytest.raises(UsageError, match=r"test\.yaml: .*use 3 or 5"):
        run.spec()


def test_atomic_write_leaves_a_readable_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (tmp_path / "file").stat().st_mode & 0o444 == 0o444


def test_run_goes_on_for_as_long_as_it_is_recorded(tmp_path: Path) -> None:
    run = create_run(tmp_path, resolve({}))
    assert not run.goes_on()
    recorder = Recorder(run.history)
    assert run.goes_on()
    recorder.close()
    assert not run.goes_on()
