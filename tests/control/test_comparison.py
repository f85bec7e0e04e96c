"""Two runs side by side."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.control.report_runs import make_run

from labrys.checkers.fault import FaultEvent
from labrys.checkers.history import encode_op
from labrys.checkers.op import Op, OpType
from labrys.control.cli import main
from labrys.control.comparison import Comparison, compare
from labrys.control.report.run_files import read_run


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same run twice."""
    one = make_run(tmp_path / "one", operation_count=100)
    return one, Path(shutil.copytree(one, tmp_path / "other"))


def compared(pair: tuple[Path, Path]) -> Comparison:
    return compare(*(read_run(path, with_logs=False) for path in pair))


def edit_ops(run: Path, change: Any) -> None:
    path = run / "history.jsonl"
    ops = [msgspec.json.decode(line, type=Op) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(encode_op(op) + b"\n" for op in change(ops)))


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_run_does_not_differ_from_its_copy(pair: tuple[Path, Path]) -> None:
    found = compared(pair)
    assert found.spec == found.checkers == []
    assert found.same_seed
    assert found.asked is None
    assert found.seen is None
    assert [row.same for row in found.faults] == [True] * 3
    assert found.same_faults == found.a.faults == found.b.faults == 3
    assert found.a.counts == found.b.counts
    assert sum(found.a.counts.values()) == 105
    assert all(row.a == row.b for row in found.latencies)


def test_the_first_event_that_differs_is_named_and_times_do_not_count(
    pair: tuple[Path, Path],
) -> None:
    def change(ops: list[Op]) -> list[Op]:
        later = [msgspec.structs.replace(op, time=op.time + 5) for op in ops]
        place = next(p for p, op in enumerate(later) if p > 60 and op.type is OpType.OK)
        later[place] = msgspec.structs.replace(later[place], value="odd")
        return later

    edit_ops(pair[1], change)
    found = compared(pair)
    assert found.asked is None
    assert found.seen is not None
    assert found.seen.a is not None
    assert found.seen.b is not None
    assert found.seen.b.value == "odd"
    assert found.seen.place == found.seen.a.index == found.seen.b.index > 60


def test_what_was_asked_is_compared_by_itself(pair: tuple[Path, Path]) -> None:
    def swap_processes(ops: list[Op]) -> list[Op]:
        return [
            msgspec.structs.replace(op, process=op.process + 1)
            if isinstance(op.process, int)
            else op
            for op in ops
        ]

    edit_ops(pair[1], swap_processes)
    found = compared(pair)
    assert found.asked is None
    assert found.seen is not None


def test_a_history_that_ends_earlier_has_no_more(pair: tuple[Path, Path]) -> None:
    edit_ops(pair[1], lambda ops: ops[:50])
    found = compared(pair)
    assert found.seen is not None
    assert found.seen.place == 50
    assert found.seen.b is None


def test_the_message_of_an_error_does_not_count_its_code_does(pair: tuple[Path, Path]) -> None:
    def with_error(error: Any) -> Any:
        return lambda ops: [
            msgspec.structs.replace(op, error=error) if op.type is OpType.INFO else op for op in ops
        ]

    edit_ops(pair[0], with_error(["timeout", "port 40001"]))
    edit_ops(pair[1], with_error(["timeout", "port 40002"]))
    assert compared(pair).seen is None
    edit_ops(pair[1], with_error(["reset", "port 40002"]))
    assert compared(pair).seen is not None


def test_with_different_seeds_histories_are_not_compared(pair: tuple[Path, Path]) -> None:
    edit_json(pair[1] / "results.json", seed=2)
    spec = yaml.safe_load((pair[1] / "test.yaml").read_text())
    (pair[1] / "test.yaml").write_text(yaml.safe_dump({**spec, "seed": 2, "rate": 50}))
    found = compared(pair)
    assert not found.same_seed
    assert found.asked is None
    assert found.seen is None
    assert [(row.name, row.a, row.b) for row in found.spec] == [
        ("seed", 8817, 2),
        ("rate", None, 50),
    ]


def test_a_fault_that_hit_others_is_not_the_same(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "faults.jsonl"
    events = [msgspec.json.decode(line, type=FaultEvent) for line in path.read_bytes().splitlines()]
    path.write_bytes(
        b"".join(
            msgspec.json.encode(
                msgspec.structs.replace(event, targets=("n1",)) if event.kind == "kill" else event
            )
            + b"\n"
            for event in events
        )
    )
    found = compared(pair)
    assert [row.same for row in found.faults] == [True, False, True]
    assert found.same_faults == 2


def test_an_empty_folder_is_compared_as_such(pair: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    found = compared((pair[0], empty))
    assert found.b.verdict is None
    assert found.b.counts == {"ok": 0, "fail": 0, "info": 0}
    assert [row.b for row in found.faults] == [None] * 3
    assert "history.jsonl is missing: no operation is known" in found.b.notices


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    out = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.out, out.err


def test_compare_tells_people_and_programs(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(pair[1] / "results.json", verdict="valid", checkers={})
    edit_ops(pair[1], lambda ops: ops[:50])
    code, out, _ = said(capsys, "compare", *map(str, pair))
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("A  INVALID  ")
    assert any(line.startswith("B  VALID  ") for line in lines)
    assert "spec       the same" in lines
    assert "  linearizable: invalid | null" in lines
    assert "faults     3, the same ones in the same order" in lines
    assert "history    the first 50 events are the same, then" in lines
    assert lines[-1] == "  B  has no more"
    code, out, _ = said(capsys, "compare", *map(str, pair), "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["a"]["verdict"], facts["b"]["verdict"]) == ("invalid", "valid")
    assert facts["seen"]["place"] == 50


def test_compare_needs_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "compare", str(tmp_path / "a"), "-1", "--runs-dir", str(tmp_path))
    assert code == 2
    assert "no run there" in err
    assert said(capsys, "compare", "-1")[0] == 2
