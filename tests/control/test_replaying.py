"""`labrys replay`: a simulated run to the byte, and its faults in another environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from labrys.checkers.op import OpType
from labrys.control.interruption import Interruption
from labrys.control.lifecycle import run_test
from labrys.control.replaying import as_recorded, compared
from labrys.control.store import RunDirectory

LABRYS = str(Path(sys.executable).with_name("labrys"))


def labrys(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LABRYS, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one simulated run."""
    folder = tmp_path_factory.mktemp("runs")
    done = labrys(
        "test", "--env", "sim", "--nodes", "3", "--time-limit", "4", "--rate", "50", "--seed", "2",
        "--faults", "kill,pause", "--fault-interval", "1", "--runs-dir", str(folder),
    )  # fmt: skip
    assert "labrys: seed 2" in done.stdout, done.stderr
    return folder


def test_a_simulated_run_comes_again_to_the_byte(runs_dir: Path) -> None:
    first = (runs_dir / "latest").resolve()
    done = labrys("replay", str(first), "--runs-dir", str(runs_dir))
    assert f"replay     the same to the byte as {first}" in done.stdout, done.stdout + done.stderr


def test_its_faults_and_operations_can_be_played_elsewhere(runs_dir: Path) -> None:
    run = RunDirectory((runs_dir / "latest").resolve())
    spec = as_recorded(run, "netns")
    assert (spec.env, spec.seed, spec.faults) == ("netns", 2, [])
    assert {fault.kind for fault in spec.fault_plan} == {"kill", "pause"}
    assert all(fault.plan for fault in spec.fault_plan)
    begun = [op for op in run.read_history().ops if op.is_client and op.type is OpType.INVOKE]
    assert spec.operations
    assert [(op.f, op.key, op.value) for op in spec.operations] == [
        (op.f, op.key, op.value) for op in begun[: len(spec.operations)]
    ]


def test_the_lists_of_a_simulated_run_make_the_same_run(runs_dir: Path, tmp_path: Path) -> None:
    first = RunDirectory((runs_dir / "latest").resolve())
    again = run_test(
        as_recorded(first, "sim"), tmp_path, interruption=Interruption(), say=lambda line: None
    ).run
    one, other = (run.history.read_text().partition('"final"') for run in (first, again))
    assert one[1]
    assert other[0] == one[0]  # the final reads are drawn, and drawn anew


def test_a_difference_is_told_with_its_line(runs_dir: Path, tmp_path: Path) -> None:
    run = RunDirectory((runs_dir / "latest").resolve())
    other = RunDirectory(tmp_path)
    lines = run.history.read_bytes().splitlines(keepends=True)
    other.ledger.write_bytes(run.ledger.read_bytes())
    other.history.write_bytes(b"".join(lines[:4]) + b"{}\n" + b"".join(lines[5:]))
    assert "history.jsonl from line 5 on" in compared(run, other)
    other.history.write_bytes(b"".join(lines[:-1]))
    assert f"has {len(lines) - 1} lines, not {len(lines)}" in compared(run, other)


def test_what_cannot_be_replayed_is_refused(runs_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("")
    done = labrys("replay", str(tmp_path))
    assert (done.returncode, "only a run can be replayed" in done.stderr) == (2, True)
    done = labrys("replay", "latest", "--env", "nowhere", "--runs-dir", str(runs_dir))
    assert (done.returncode, "unknown environment 'nowhere'" in done.stderr) == (2, True)
