"""Runs in the words of other tools."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.control.report_runs import NODES, make_run

from labrys.checkers.edn import read_forms
from labrys.control.cli import main
from labrys.control.report.roles import RoleSpan, role_spans
from labrys.control.report.run_files import NodeLog, read_run
from labrys.control.report.trace import trace


def labrys(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs/test/20260304T050607Z-8817", operation_count=200)


def test_edn_goes_to_standard_output_and_nothing_else_does(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = labrys(capsys, "export", str(run), "--format", "edn")
    assert (code, err) == (0, "")
    forms = [form for form, _ in read_forms(out)]
    assert len(forms) == len((run / "history.jsonl").read_bytes().splitlines())
    assert {form["process"] for form in forms if form["f"] == "phase"} == {"nemesis"}


@pytest.mark.parametrize("invalid", [False, True])
def test_an_exported_history_is_judged_as_the_run_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], invalid: bool
) -> None:
    run = make_run(tmp_path / "run", operation_count=300)
    lines = (run / "history.jsonl").read_bytes().splitlines(keepends=True)
    if not invalid:  # without the stale read at the end
        (run / "history.jsonl").write_bytes(b"".join(lines[:500]))
    edn = tmp_path / "history.edn"
    words = ("export", str(run), "--format", "edn", "--output", str(edn), "--json")
    code, out, _ = labrys(capsys, *words)
    facts = json.loads(out)
    assert (code, facts["bytes"]) == (0, edn.stat().st_size)
    recheck = facts["recheck"].split()
    assert recheck[:3] == ["labrys", "check", str(edn)]
    code, out, _ = labrys(capsys, *recheck[1:], "--all-keys", "--json")
    exported = json.loads(out)
    code, out, _ = labrys(
        capsys,
        "check",
        str(run / "history.jsonl"),
        "--workload",
        "register",
        "--all-keys",
        "--json",
    )
    stored = json.loads(out)
    assert exported["verdict"] == stored["verdict"] == ("invalid" if invalid else "valid")
    assert exported["checkers"] == stored["checkers"]


def test_one_key_is_exported_as_a_history_of_one_object(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    edn = tmp_path / "k3.edn"
    words = ("export", str(run), "--format", "edn", "--key", "k3", "-o", str(edn))
    code, out, _ = labrys(capsys, *words)
    assert code == 0
    assert "--keyed" not in out
    writes = [f for f, _ in read_forms(edn.read_text()) if f["f"] == "write"]
    assert writes
    assert all(isinstance(form["value"], int) for form in writes)
    how = ("--model", "cas-register", "--nil-read", "absent", "--json")
    assert json.loads(labrys(capsys, "check", str(edn), *how)[1])["verdict"] == "valid"


def test_html_is_the_report(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("export", str(run), "--format", "html", "-o", str(page), "--json")
    assert labrys(capsys, *words)[0] == 0
    assert page.read_text().startswith("<!doctype html>")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--format", "edn", "--json"], 2, "add --output FILE"),
        (["--format", "trace", "--key", "k1"], 2, "only with --format edn"),
        (["--format", "edn", "--key", "k99"], 2, "--key k99: there is no operation on it"),
        (["--format", "svg"], 2, "edn"),
        ([], 2, "--format"),
        (["--format", "edn", "-o", "absent/file.edn"], 4, "there is no directory"),
    ],
)
def test_what_cannot_be_exported_is_one_error(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, expected: str
) -> None:
    ended, out, err = labrys(capsys, "export", str(run), *words)
    assert ended == code
    assert out == ""
    assert expected in err


def test_a_full_disk_behind_standard_output_is_a_machine_error(run: Path) -> None:
    words = [str(Path(sys.executable).with_name("labrys")), "export", str(run), "--format", "edn"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert "standard output: cannot be written: No space left on device" in done.stderr


def test_a_history_that_cannot_have_happened_is_not_exported_as_edn(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "history.jsonl"
    path.write_bytes(b"{broken\n" + path.read_bytes())
    code, _, err = labrys(capsys, "export", str(run), "--format", "edn")
    assert code == 2
    assert "history.jsonl:1" in err
    assert labrys(capsys, "export", str(run), "--format", "trace")[0] == 0


def slices(events: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    (pid,) = (
        event["pid"]
        for event in events
        if event["name"] == "process_name" and event["args"]["name"] == group
    )
    return [event for event in events if event["pid"] == pid and event["ph"] == "X"]


def test_a_trace_has_a_track_for_each_process_and_a_band_for_each_fault(run: Path) -> None:
    files = read_run(run)
    found = json.loads(json.dumps(trace(files), default=str))
    events = found["traceEvents"]
    operations = slices(events, "clients")
    assert len(operations) == 205
    assert Counter(event["cat"] for event in operations).keys() == {"ok", "fail", "info"}
    last = max(op.time for op in files.ops) / 1000
    assert all(0 <= event["ts"] <= event["ts"] + event["dur"] <= last for event in operations)
    named = {
        event["tid"]
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"].startswith("process ")
    }
    assert named == {event["tid"] for event in operations}
    faults = slices(events, "faults")
    assert [event["name"] for event in faults] == [
        "partition n1,n2,n3,n4,n5",
        "kill n3",
        "partition n1,n2,n3,n4,n5",
    ]
    assert faults[0]["tid"] == faults[2]["tid"] != faults[1]["tid"]
    assert [event["args"]["seen to bite"] for event in faults] == [True, True, False]
    assert found["otherData"]["verdict"] == "invalid"


def test_slices_of_one_track_never_overlap(run: Path) -> None:
    log = run / "nodes/n1/log"
    log.write_text(
        "2026-03-04T05:06:07.300Z mono_ms=1 n1 role=follower term=1 leader=- last_index=0\n"
        "2026-03-04T05:06:07.900Z mono_ms=2 n1 role=leader term=2 leader=n1 last_index=0\n"
    )
    until: dict[tuple[int, int], float] = {}
    events = trace(read_run(run))["traceEvents"]
    for event in sorted((e for e in events if e["ph"] == "X"), key=lambda event: event["ts"]):
        track = event["pid"], event["tid"]
        assert event["ts"] >= until.get(track, 0) - 1e-6
        until[track] = event["ts"] + event["dur"]
    assert [event["name"] for event in slices(events, "nodes")] == ["follower 1", "leader 2"]


def test_a_trace_of_nothing_is_empty(tmp_path: Path) -> None:
    assert slices(trace(read_run(tmp_path))["traceEvents"], "clients") == []
    assert len(NODES) == 5


def test_a_node_that_was_killed_has_its_role_until_its_last_line() -> None:
    lines = (
        (10, "x mono_ms=1 n1 event=boot term=0 commit=0"),
        (20, "x mono_ms=1 n1 role=follower term=1 leader=- last_index=0"),
        (30, "x mono_ms=1 n1 role=leader term=2 leader=n1 last_index=0"),
        (40, "x mono_ms=1 n1 event=commit commit=1 applied=1 term=2"),
        (90, "x mono_ms=1 n1 event=boot term=2 commit=0"),
        (91, "x mono_ms=1 n1 role=follower term=2 leader=- last_index=1"),
        (95, "x mono_ms=1 n1 event=stop code=0 term=2 commit=1"),
    )
    assert list(role_spans(NodeLog("n1", lines), 100)) == [
        RoleSpan("follower", 1, 20, 30),
        RoleSpan("leader", 2, 30, 40),
        RoleSpan("follower", 2, 91, 95),
    ]
    assert list(role_spans(NodeLog("n1", lines[:3]), 100))[-1] == RoleSpan("leader", 2, 30, 100)
