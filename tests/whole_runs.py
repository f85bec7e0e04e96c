"""Runs of the real command as a user starts it, for every real environment."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABRYS = Path(sys.executable).with_name("labrys")
_MARK = "LABRYS_TEST_MARK"


class WholeRun:
    """One `labrys test` in a subprocess, with a runs directory of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.runs_dir = folder / "runs"
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [LABRYS, "test", "--runs-dir", str(self.runs_dir), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, _MARK: self._mark},
            start_new_session=True,
        )

    def end(self, timeout_s: float = 110) -> str:
        """Wait for the end and return everything that was printed."""
        try:
            out, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            out, _ = self.process.communicate(timeout=60)
            raise AssertionError(f"still running after {timeout_s} s: {out}") from None
        assert "Traceback" not in out
        return out

    @property
    def directory(self) -> Path:
        return (self.runs_dir / "latest").resolve()

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "results.json").read_text())
        return found

    def await_fault(self) -> None:
        """Wait until a fault is in force and ops have been recorded."""
        ledger = self.directory / "faults.jsonl"
        eventually(
            lambda: ledger.is_file() and '"stage":"applied"' in ledger.read_text(),
            "a fault is applied",
            alive=self.process,
        )

    def processes(self) -> list[int]:
        """Return all processes of this machine that stem from this run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environ = (folder / "environ").read_bytes()
            except OSError:
                continue  # gone meanwhile, or not ours
            if f"{_MARK}={self._mark}".encode() in environ:
                found.append(int(folder.name))
        return found


def eventually(
    fact: Callable[[], bool],
    what: str,
    *,
    timeout_s: float = 60,
    alive: "subprocess.Popen[str] | None" = None,
) -> None:
    """Wait until `fact` holds, at most `timeout_s`, and only as long as `alive` lives."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        if alive is not None and alive.poll() is not None:
            assert alive.stdout is not None
            raise AssertionError(f"never: {what}; the command ended: {alive.stdout.read()}")
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def labrys(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call another command and return what it said."""
    done = subprocess.run(
        [LABRYS, *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def check_correct_run(folder: Path, env: str) -> WholeRun:
    """All kinds of faults leave the correct node valid, and are seen to bite."""
    run = WholeRun(
        folder,
        *("--env", env, "--faults", "partition,delay,loss,reset,kill,pause,leadership"),
        *("--time-limit", "20", "--fault-interval", "2", "--faults-at-once", "7", "--seed", "4"),
    )
    out = run.end()
    assert run.process.returncode == 0, out
    lines = out.splitlines()
    assert lines[0].startswith("labrys: seed 4 ")
    assert lines[-1] == "labrys: seed 4  VALID  exit 0"
    results = run.results()
    assert results["errors"] == []
    kinds = results["checkers"]["coverage"]["data"]["kinds"]
    assert all(kinds[kind]["bit"] >= 1 for kind in ("partition", "kill", "pause")), kinds
    nodes = {
        node: (run.directory / "nodes" / node / "log").read_text() for node in results["nodes"]
    }
    assert len(nodes) == 5
    assert all("role=" in log for log in nodes.values())
    again = labrys("check", str(run.directory))
    assert again.returncode == 0, again.stdout + again.stderr
    return run


def check_changing_members(folder: Path, env: str) -> None:
    """Members that come and go, snapshots every 100 entries and kills leave the node valid."""
    run = WholeRun(
        folder,
        *("--env", env, "--faults", "membership,kill", "--system-option", "snapshot-entries=100"),
        *("--time-limit", "20", "--fault-interval", "2.5", "--seed", "7"),
    )
    out = run.end()
    assert run.process.returncode == 0, out
    results = run.results()
    kinds = results["checkers"]["coverage"]["data"]["kinds"]
    assert all(kinds[kind]["bit"] >= 1 for kind in ("membership", "kill")), kinds
    for node in results["nodes"]:
        log = (run.directory / "nodes" / node / "log").read_text()
        assert "event=snapshot index=" in log
        assert "event=members" in log


def check_hurt_machines(folder: Path, env: str, *kinds: str) -> WholeRun:
    """Machines that are slow, stand still and restart leave the node valid and bar no undo."""
    run = WholeRun(
        folder,
        *("--env", env, "--faults", ",".join(("partition", "pause", *kinds))),
        *("--time-limit", "20", "--fault-interval", "2", "--seed", "5"),
    )
    out = run.end(timeout_s=400)
    # On a machine with much else to do, some kind may not get its turn: then it is vacuous.
    assert run.process.returncode in (0, 3), out
    results = run.results()
    assert results["errors"] == []
    assert results["checkers"]["linearizable"]["verdict"] == "valid", out
    bit = results["checkers"]["coverage"]["data"]["kinds"]
    assert any(bit[kind]["bit"] >= 1 for kind in kinds), bit
    assert_ledger_is_closed(run)
    return run


def check_damaged_data(folder: Path, env: str) -> None:
    """Damaged and lost data leave the node valid; what is damaged is refused and replaced."""
    run = WholeRun(
        folder,
        *("--env", env, "--faults", "corrupt,membership", "--time-limit", "25"),
        *("--fault-interval", "2", "--seed", "3"),
    )
    out = run.end()
    assert run.process.returncode == 0, out
    kinds = run.results()["checkers"]["coverage"]["data"]["kinds"]
    assert all(kinds[kind]["bit"] >= 1 for kind in ("corrupt", "membership")), kinds
    assert_ledger_is_closed(run)


def check_bug_is_found(folder: Path, env: str) -> WholeRun:
    """A seeded bug ends in exit 1, is explained, and is found again in the stored run."""
    run = WholeRun(
        folder,
        *("--env", env, "--bug", "stale-read", "--faults", "partition"),
        *("--time-limit", "15", "--fault-interval", "2", "--seed", "4"),
    )
    out = run.end()
    assert run.process.returncode == 1, out
    assert "not linearizable" in out
    assert "INVALID" in (run.directory / "report.html").read_text()
    assert labrys("check", str(run.directory)).returncode == 1
    shown = labrys("show", "latest", "--runs-dir", str(run.runs_dir))
    assert "INVALID" in shown.stdout
    return run


def check_clocks(folder: Path, env: str) -> None:
    """Lease reads of the correct node bear clocks that are off, and are seen to have them."""
    run = WholeRun(
        folder,
        *("--env", env, "--faults", "clock,partition", "--option", "consistency=lease"),
        *("--time-limit", "20", "--fault-interval", "2", "--seed", "3"),
    )
    out = run.end()
    assert run.process.returncode == 0, out
    results = run.results()
    assert results["errors"] == []
    assert results["checkers"]["coverage"]["data"]["kinds"]["clock"]["bit"] >= 1
    stored = (run.directory / "test.yaml").read_text()
    assert "consistency: lease" in stored


def check_interrupted_run(folder: Path, env: str, number: int, *more: str) -> WholeRun:
    """Ctrl-C and SIGTERM undo the faults and keep, check and report what was recorded."""
    run = WholeRun(
        folder, *("--env", env, "--faults", "partition,kill"), *("--fault-interval", "2", *more)
    )
    run.await_fault()
    run.process.send_signal(number)
    out = run.end(timeout_s=60)
    assert run.process.returncode == 130, out
    results = run.results()
    assert results["interrupted"] is True
    assert results["checkers"]["linearizable"]["verdict"] in ("valid", "unknown")
    assert results["errors"] == []
    assert (run.directory / "report.html").is_file()
    assert_ledger_is_closed(run)
    return run


def check_two_runs_at_once(folder: Path, env: str) -> None:
    """Two runs on one machine do not touch each other: each hurts, and heals, its own nodes."""
    words = ("--env", env, "--faults", "partition,kill", "--fault-interval", "1")
    runs = [
        WholeRun(folder / str(seed), *words, "--time-limit", str(limit_s), "--seed", str(seed))
        for seed, limit_s in ((1, 4), (2, 9))
    ]
    for seed, run in zip((1, 2), runs, strict=True):
        out = run.end()
        assert out.splitlines()[-1] == f"labrys: seed {seed}  VALID  exit 0", out
        assert run.results()["errors"] == []
        assert_ledger_is_closed(run)


def kill_run(folder: Path, env: str) -> WholeRun:
    """SIGKILL a run in the middle of a fault."""
    run = WholeRun(
        folder, *("--env", env, "--faults", "partition,kill"), *("--fault-interval", "2")
    )
    run.await_fault()
    run.process.kill()
    run.process.communicate(timeout=30)
    return run


def check_heal_after_kill(run: WholeRun) -> None:
    """`labrys heal` finishes a killed run, whose history can still be judged."""
    healed = labrys("heal", "--runs-dir", str(run.runs_dir))
    assert healed.returncode == 0, healed.stdout + healed.stderr
    assert_ledger_is_closed(run)
    judged = labrys("check", str(run.directory))
    assert judged.returncode in (0, 3), judged.stdout + judged.stderr
    assert "linearizable" in judged.stdout


def assert_ledger_is_closed(run: WholeRun) -> None:
    """Every fault that was planned is undone."""
    lines = (run.directory / "faults.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    planned = {event["id"] for event in events}
    undone = {event["id"] for event in events if event["stage"] == "undone"}
    assert planned
    assert planned == undone
