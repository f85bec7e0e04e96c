"""The numbers and words on the page, computed without a browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.control.report_runs import MS, make_run, simulate

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import CheckResult, Finding, Verdict
from labrys.control.report import data as report
from labrys.control.report.data import report_data
from labrys.control.report.labels import grudge_text, op_label, plan_text, value_text
from labrys.control.report.run_files import Results, RunFiles, read_run
from labrys.control.report.schema import FAIL, INFO, OK, OPEN


def op(
    kind: str,
    process: int,
    f: str,
    at_ms: int,
    value: Any = None,
    *,
    key: str = "k",
    error: Any = None,
) -> Op:
    return Op(OpType(kind), process, f, time=at_ms * MS, key=key, value=value, error=error)


def run_of(ops: Sequence[Op], tmp_path: Path, **parts: Any) -> RunFiles:
    numbered = tuple(msgspec.structs.replace(o, index=i) for i, o in enumerate(ops))
    return RunFiles(path=tmp_path, ops=numbered, **parts)


def test_operations_are_columns_with_outcome_time_and_label(tmp_path: Path) -> None:
    ops = [
        op("invoke", 0, "write", 1, 3),
        op("invoke", 1, "read", 2),
        op("ok", 0, "write", 4, 3),
        op("fail", 1, "read", 5, error="no-leader"),
        op("invoke", 0, "cas", 6, [3, 4]),
        op("invoke", 1, "read", 7),
        op("info", 0, "cas", 8, [3, 4], error=["timeout", "1 s"]),
        op("ok", 1, "read", 9, 4),
        op("invoke", 2, "write", 10, 5),
    ]
    columns = report_data(run_of(ops, tmp_path)).ops
    assert columns.label == ["w 3", "r", "cas 3→4", "r→4", "w 5"]
    assert columns.outcome == [OK, FAIL, INFO, OK, OPEN]
    assert columns.index == [0, 1, 4, 5, 8]
    assert columns.ret_index == [2, 3, 6, 7, -1]
    assert columns.call_delta == [1000, 1000, 4000, 1000, 3000]
    assert columns.took == [3000, 3000, 2000, 2000, -1]
    assert columns.error == [None, "no-leader", "timeout: 1 s", None, None]


def test_a_crashed_process_stays_in_the_lane_of_its_thread(tmp_path: Path) -> None:
    ops = [
        op("invoke", 0, "read", 1),
        op("invoke", 1, "write", 2, 1),
        op("ok", 0, "read", 3),
        op("info", 1, "write", 4, 1),
        op("invoke", 3, "read", 5),
    ]
    data = report_data(run_of(ops, tmp_path))
    assert data.concurrency == 2
    assert data.ops.thread == [0, 1, 1]


def test_integers_beyond_double_precision_keep_their_digits(tmp_path: Path) -> None:
    ops = [op("invoke", 0, "write", 1, 2**60 + 1), op("ok", 0, "write", 2, 2**60 + 1)]
    assert report_data(run_of(ops, tmp_path)).ops.value == [str(2**60 + 1)]


def test_an_anomaly_has_its_prefix_with_states_and_its_rejected_op(tmp_path: Path) -> None:
    data = report_data(read_run(make_run(tmp_path / "run")))
    (anomaly,) = data.anomalies
    labels = [data.ops.label[step.op] for step in anomaly.steps]
    assert labels == ["w 1201", "r→1201", "w 1202", "r→1202"]
    assert [step.state for step in anomaly.steps] == ["1201", "1201", "1202", "1202"]
    (rejected,) = anomaly.rejected
    assert data.ops.label[rejected.op] == "r→1201"
    assert rejected.reason == "the state is 1202; the read needs 1201"
    moments = [step.at for step in anomaly.steps]
    assert moments == sorted(moments)
    assert anomaly.start <= moments[0]
    assert rejected.at <= anomaly.end
    assert [data.ops.label[row] for row in anomaly.core] == ["w 1202", "r→1201"]


def test_states_that_do_not_end_where_the_checker_ended_are_not_shown(tmp_path: Path) -> None:
    ops = [
        op("invoke", 0, "write", 1, 3), op("ok", 0, "write", 2, 3),
        op("invoke", 0, "read", 3), op("ok", 0, "read", 4, 9),
    ]  # fmt: skip
    found = {"prefix": [0], "state": 7, "rejected": [{"op": 2, "reason": "no"}], "window": [0, 3]}
    finding = Finding("k is wrong", ops=(0, 2), key="k", data=found)
    check = CheckResult(Verdict.INVALID, "bad", findings=(finding,))
    results = Results(verdict=Verdict.INVALID, checkers={"linearizable": check})
    (anomaly,) = report_data(run_of(ops, tmp_path, results=results)).anomalies
    assert [step.state for step in anomaly.steps] == [None]
    assert anomaly.state == "7"


def test_a_finding_about_ops_that_are_not_there_is_still_told(tmp_path: Path) -> None:
    finding = Finding("gone", ops=(77,), data={"rejected": [{"op": 99, "reason": "x"}, 3]})
    check = CheckResult(Verdict.INVALID, "bad", findings=(finding,))
    results = Results(verdict=Verdict.INVALID, checkers={"linearizable": check})
    data = report_data(run_of([], tmp_path, results=results))
    assert data.anomalies == []
    assert data.checkers[0].findings[0].message == "gone"
    assert data.cause == "gone"


def test_the_worst_checker_comes_first(tmp_path: Path) -> None:
    checkers = {
        "a": CheckResult(Verdict.VALID, ""),
        "b": CheckResult(Verdict.UNKNOWN, ""),
        "c": CheckResult(Verdict.INVALID, ""),
        "d": CheckResult(Verdict.ERROR, ""),
    }
    results = Results(verdict=Verdict.INVALID, checkers=checkers)
    data = report_data(run_of([], tmp_path, results=results))
    assert [checker.name for checker in data.checkers] == ["c", "d", "b", "a"]


def test_a_fault_is_one_row_from_plan_to_undo(tmp_path: Path) -> None:
    events = (
        FaultEvent(4, FaultStage.PLANNED, 1 * MS, "kill", ("n3",), plan={"target": "leader"}),
        FaultEvent(4, FaultStage.APPLIED, 2 * MS, "kill", ("n3",)),
        FaultEvent(5, FaultStage.PLANNED, 3 * MS, "pause", ("n1",)),
        FaultEvent(4, FaultStage.EVIDENCE, 4 * MS, "kill", observed={"n3": "dead"}, bit=True),
        FaultEvent(4, FaultStage.UNDONE, 9 * MS, "kill", ("n3",)),
    )
    kill, pause = report_data(run_of([], tmp_path, faults=events)).faults
    assert (kill.planned, kill.applied, kill.undone) == (1000, 2000, 9000)
    assert (kill.plan, kill.evidence, kill.bit) == ("leader", "n3 dead", True)
    assert (pause.applied, pause.undone, pause.bit) == (None, None, None)


def test_more_operations_than_a_page_holds_are_sampled_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "OPS_DRAWN_MAX", 100)
    run = read_run(make_run(tmp_path / "run"))
    data = report_data(run)
    assert len(data.ops.index) <= 110
    assert sum(data.counts.values()) == 1205
    assert [len(a.steps) for a in data.anomalies] == [4]
    assert any("one in 13 is drawn" in notice for notice in data.notices)


def test_rates_and_latencies_count_every_operation(tmp_path: Path) -> None:
    data = report_data(read_run(make_run(tmp_path / "run")))
    assert sum(data.rate.ok) == data.counts["ok"]
    assert sum(data.rate.fail) == data.counts["fail"]
    assert sum(row.ok for row in data.latencies) == data.counts["ok"]
    for row in data.latencies:
        quantiles = [value or 0 for value in (row.p50, row.p95, row.p99, row.max)]
        assert quantiles == sorted(quantiles)
        assert quantiles[0] > 0


def test_phases_begin_with_the_setup(tmp_path: Path) -> None:
    data = report_data(read_run(make_run(tmp_path / "run")))
    assert [phase.name for phase in data.phases] == ["setup", "main", "heal", "final"]


def test_log_lines_are_placed_on_the_clock_of_the_history(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", operation_count=50)
    (folder / "nodes" / "n1" / "log").write_text(
        "2026-03-04T05:06:08.250Z ERROR boom\n  Traceback line\n"
        "2026-03-04 06:06:09,250+01:00 INFO zone\n"
    )
    log = report_data(read_run(folder)).logs[0]
    assert log.at == [1_000_000, 1_000_000, 2_000_000]


@pytest.mark.parametrize(
    "damage",
    ["results.json", "faults.jsonl", "history.jsonl", "test.yaml", "nodes"],
)
def test_a_missing_file_is_named_in_a_notice(tmp_path: Path, damage: str) -> None:
    folder = make_run(tmp_path / "run", operation_count=50)
    (folder / damage).rename(tmp_path / "gone")
    data = report_data(read_run(folder))
    assert any(damage in notice for notice in data.notices)


@pytest.mark.parametrize("garbage", [b"\xff\xfe{", b"[]", b"null", b'{"verdict": 7}', b""])
@pytest.mark.parametrize("name", ["results.json", "faults.jsonl", "history.jsonl", "test.yaml"])
def test_a_damaged_file_still_gives_a_report(tmp_path: Path, name: str, garbage: bytes) -> None:
    folder = make_run(tmp_path / "run", operation_count=50)
    (folder / name).write_bytes(garbage + b"\n")
    data = report_data(read_run(folder))
    assert data.title == "register-partition-kill"


def test_results_with_a_broken_part_keep_their_verdict(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", operation_count=50)
    (folder / "results.json").write_text('{"verdict": "invalid", "checkers": 3}')
    data = report_data(read_run(folder))
    assert data.verdict is Verdict.INVALID
    assert any("results.json is damaged" in notice for notice in data.notices)


def test_a_torn_history_shows_what_was_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", operation_count=50)
    path = folder / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    data = report_data(read_run(folder))
    assert len(data.ops.index) == 55
    assert "history.jsonl ends in half a line: the writer was stopped there" in data.notices


def test_an_empty_directory_gives_a_report_without_a_verdict(tmp_path: Path) -> None:
    data = report_data(read_run(tmp_path))
    assert data.verdict is None
    assert len(data.notices) == 5


@pytest.mark.parametrize(
    ("grudge", "text"),
    [
        ({"n1": ["n3"], "n2": ["n3"], "n3": ["n1", "n2"]}, "n1,n2 | n3"),
        ({"n2": ["n1"]}, "n2 drops n1"),
        ({"n1": ["n2"], "n2": ["n1"]}, "n1 drops n2; n2 drops n1"),
    ],
)
def test_a_clean_cut_is_told_by_its_sides(grudge: dict[str, list[str]], text: str) -> None:
    assert grudge_text(grudge, ["n1", "n2", "n3"]) == text


def test_a_plan_says_what_is_done_and_not_how() -> None:
    plan = {"shape": "halves", "nodes": ["n1"], "mechanism": "iptables", "grudge": {"n1": ["n2"]}}
    assert plan_text(plan, ["n1", "n2"]) == "halves  n1 drops n2"
    assert plan_text({"targets": "minority", "rate": 3}, []) == "minority  rate 3"


def test_values_are_compact_and_cut() -> None:
    assert value_text({"a": [1, None]}) == '{"a":[1,null]}'
    assert value_text("x" * 1000).endswith("…")
    assert op_label("enqueue", 5, OpType.OK, 5) == "enqueue 5"


def test_the_simulated_run_is_what_the_tests_believe() -> None:
    ops, finding = simulate(300)
    assert [op.index for op in ops] == list(range(len(ops)))
    assert [op.time for op in ops] == sorted(op.time for op in ops)
    assert finding["data"]["rejected"][0]["op"] < len(ops)


def test_an_interrupted_run_says_so_and_why_nothing_was_judged(tmp_path: Path) -> None:
    cut = Results(verdict=Verdict.UNKNOWN, interrupted=True)
    data = report_data(run_of([], tmp_path, results=cut))
    assert "interrupted" in data.cause
    assert ("ended", "interrupted") in data.facts
    judged = msgspec.structs.replace(cut, checkers={"stats": CheckResult(Verdict.UNKNOWN, "few")})
    assert report_data(run_of([], tmp_path, results=judged)).cause == "stats: few"
