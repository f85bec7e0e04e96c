"""The terminal twin: stable lines that can be grepped."""

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from tests.control.report_runs import RERUN, make_run

from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import CheckResult, Finding, Verdict
from labrys.control.report import text
from labrys.control.report.data import report_data
from labrys.control.report.run_files import Results, read_run


def results_of(**parts: Any) -> dict[str, Any]:
    results: dict[str, Any] = msgspec.to_builtins(Results(**parts))
    return results


def test_the_first_line_says_what_is_run() -> None:
    spec = {
        "seed": 8817, "workload": "register", "faults": ["partition", "kill"],
        "time_limit": 60.0, "nodes": 5, "env": "netns", "bug": None,
    }  # fmt: skip
    line = "labrys: seed 8817  register  partition,kill  60 s  5 nodes  netns"
    assert text.first_line(spec) == line
    spec["faults"], spec["fault_plan"] = [], [{"kind": "kill"}, {"kind": "loss"}, {"kind": "kill"}]
    assert text.first_line(spec) == line.replace("partition,kill", "kill,loss")


def test_the_verdict_block_of_an_invalid_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = msgspec.json.decode((run / "results.json").read_bytes())
    block = text.verdict_block(run, results, exit_code=1).splitlines()
    assert block[0] == "verdict INVALID"
    assert block[1].startswith("  linearizable  INVALID  1 of 20 keys is not linearizable")
    assert "cannot be explained" in block[2]
    assert "  coverage      UNKNOWN  1 of 3 faults was never seen to bite" in block
    assert "    hint: raise --fault-interval so that each fault holds longer" in block
    assert "  stats         valid    1147 ok, 41 fail, 17 info in the main phase" in block
    assert block[-4:] == [
        f"re-run     {RERUN}",
        "re-check   labrys check runs/register-partition-kill/20260304T050607Z-8817",
        f"report     {run}/report.html",
        "labrys: seed 8817  INVALID  exit 1",
    ]


def test_a_verdict_is_the_same_word_with_and_without_colour() -> None:
    results = results_of(
        verdict=Verdict.UNKNOWN, seed=1, checkers={"stats": CheckResult(Verdict.VALID, "fine")}
    )
    plain = text.verdict_block("r", results, exit_code=3)
    colored = text.verdict_block("r", results, exit_code=3, color=True)
    assert colored != plain
    assert click.unstyle(colored) == plain


def test_many_findings_are_cut_and_counted() -> None:
    findings = tuple(Finding(f"finding {i}") for i in range(25))
    check = CheckResult(Verdict.INVALID, "bad", findings=findings)
    results = results_of(verdict=Verdict.INVALID, checkers={"x": check})
    block = text.verdict_block("r", results, exit_code=1)
    assert "finding 2\n" in block
    assert "finding 3" not in block
    assert "... and 22 more findings, all in results.json" in block


def test_values_cannot_drive_the_terminal() -> None:
    check = CheckResult(Verdict.INVALID, "\x1b[2Jgone\nlabrys: seed 1  VALID  exit 0")
    results = results_of(verdict=Verdict.INVALID, seed=1, checkers={"x": check})
    block = text.verdict_block("r", results, exit_code=1)
    assert "\x1b" not in block
    assert block.count("\nlabrys: ") == 1


@pytest.mark.parametrize(
    ("op", "line"),
    [
        (
            Op(OpType.OK, 13, "read", 1219, 12_410_123_000, "k7", 5, node="n3"),
            "    1219     12.410123       13 n3   ok     read     k7     5" + 24 * " " + "-",
        ),
        (
            Op(OpType.INFO, 3, "cas", index=7, time=0, value=[1, 2], error=["timeout", "1 s"]),
            "       7      0.000000        3 -    info   cas      -      [1,2]                    "
            "timeout: 1 s",
        ),
    ],
)
def test_an_op_is_one_aligned_line(op: Op, line: str) -> None:
    assert text.op_line(op) == line
    assert "\t" not in line


def test_an_op_list_begins_with_the_names_of_its_columns() -> None:
    header, line = text.op_lines([Op(OpType.INVOKE, 0, "read", index=0, time=5)])
    assert header.split() == [
        "index",
        "time",
        "process",
        "node",
        "type",
        "f",
        "key",
        "value",
        "error",
    ]
    assert line.split()[:5] == ["0", "0.000000", "0", "-", "invoke"]


def test_an_anomaly_is_drawn_as_lanes_of_text(tmp_path: Path) -> None:
    data = report_data(read_run(make_run(tmp_path / "run")))
    drawn = text.anomaly_text(data, data.anomalies[0])
    lanes = [line for line in drawn.splitlines() if line.startswith("process")]
    for label in ("[1:w 1201]", "[2:r→1201]", "[3:w 1202]", "[4:r→1202]", "[X:r→1201]"):
        assert sum(label in lane for lane in lanes) == 1
    ends = [drawn.index(label) for label in ("1: ", "4: ", "X: ")]
    assert ends == sorted(ends)
    assert "  4: 2407 r→1202  state 1202" in drawn
    assert "  X: 2409 r→1201 rejected: the state is 1202; the read needs 1201" in drawn
    assert max(map(len, lanes)) <= 100


def test_lanes_that_do_not_fit_lose_their_past_and_keep_the_rejected_op(tmp_path: Path) -> None:
    data = report_data(read_run(make_run(tmp_path / "run")))
    drawn = text.anomaly_text(data, data.anomalies[0], width=50)
    assert "[X:r→1201]" in drawn
    assert "[1:w 1201]" not in drawn
    assert "earlier operations of the window are left out" in drawn
    lanes = [line for line in drawn.splitlines() if line.startswith("process")]
    assert max(map(len, lanes)) <= 50


def test_an_unknown_outcome_is_drawn_without_an_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", operation_count=50)
    path = run / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    index = next(i for i, line in enumerate(lines) if '"ok"' in line and '"value":51' in line)
    lines[index] = lines[index].replace('"ok"', '"info"')
    path.write_text("".join(lines))
    data = report_data(read_run(run))
    assert "[1:w 51~~~" in text.anomaly_text(data, data.anomalies[0])


def test_show_prints_the_anomaly_between_first_and_last_line(tmp_path: Path) -> None:
    page = text.run_page(make_run(tmp_path / "run")).splitlines()
    assert page[0].startswith("labrys: seed 8817  register")
    assert any(line.startswith("anomaly of key k") for line in page)
    assert page[-1] == "labrys: seed 8817  INVALID  exit 1"


def test_show_of_a_dead_run_names_what_is_missing(tmp_path: Path) -> None:
    page = text.run_page(tmp_path)
    assert "notice: history.jsonl is missing" in page
    assert page.endswith("NO VERDICT  exit 4\n")


def test_show_of_an_interrupted_run_says_so_and_has_its_exit_code(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = msgspec.json.decode((run / "results.json").read_bytes())
    (run / "results.json").write_bytes(msgspec.json.encode({**results, "interrupted": True}))
    page = text.run_page(run).splitlines()
    assert "verdict INVALID  (interrupted)" in page
    assert page[-1] == "labrys: seed 8817  INVALID  exit 130"
