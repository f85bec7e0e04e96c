"""Whole simulated runs: the same seed is the same run, wherever and however often."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labrys.control.errors import UsageError
from labrys.control.nemesis.nemesis import PACKAGES, assert_possible, obstacle
from labrys.control.sim.faults import SIM_PACKAGES

LABRYS = Path(sys.executable).with_name("labrys")
SEEDS = range(1, 1 + int(os.environ.get("LABRYS_SIM_SEEDS", "8")))
"""How many are run twice; 50 take a minute."""
_MANY = """\
import sys
from pathlib import Path
from labrys.control.interruption import Interruption
from labrys.control.lifecycle import run_test
from labrys.control.spec import resolve
kinds = sys.argv[1].split(",")
for seed in map(int, sys.argv[2:]):
    some = [kinds[(5 * seed + place) % len(kinds)] for place in range(5)]
    spec = resolve({
        "env": "sim", "seed": seed, "nodes": 3 + 2 * (seed % 2), "time_limit": 4.0, "rate": 100.0,
        "fault_interval": 1.0, "faults": some, "name": f"seed-{seed}",
        "system_options": {"snapshot-entries": 50} if seed % 3 == 0 else {},
    })
    run_test(spec, Path("runs"), interruption=Interruption(), say=lambda line: None)
"""


def _begin(folder: Path, hash_seed: str, seeds: range) -> "subprocess.Popen[bytes]":
    folder.mkdir()
    kinds = ",".join(SIM_PACKAGES)
    return subprocess.Popen(
        [sys.executable, "-c", _MANY, kinds, *map(str, seeds)],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )


def _facts(folder: Path, seed: int) -> dict[str, Any]:
    run = folder / f"runs/seed-{seed}/latest"
    results = json.loads((run / "results.json").read_text())
    return {
        "history": hashlib.sha256((run / "history.jsonl").read_bytes()).hexdigest(),
        "faults": hashlib.sha256((run / "faults.jsonl").read_bytes()).hexdigest(),
        "verdict": results["verdict"],
        "errors": results["errors"],
        "end_states": {
            node: state and {**state, "started_at": None}
            for node, state in results["end_states"].items()
        },
    }


def test_a_seed_is_the_same_run_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    processes = [_begin(tmp_path / seed, seed, SEEDS) for seed in ("0", "4711")]
    assert [process.wait() for process in processes] == [0, 0]
    histories = set()
    for seed in SEEDS:
        once, again = (_facts(tmp_path / hash_seed, seed) for hash_seed in ("0", "4711"))
        assert once == again
        assert once["errors"] == []
        assert once["verdict"] in ("valid", "unknown"), f"seed {seed}: the correct node failed"
        histories.add(once["history"])
    assert len(histories) == len(SEEDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _labrys(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(LABRYS), "test", "--env", "sim", "--runs-dir", str(folder), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_run_as_a_user_starts_it(folder: Path) -> None:
    words = ("--faults", "partition,kill,pause", "--fault-interval", "2", "--time-limit", "15")
    done = _labrys(folder, *words, "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times as fast as time" in done.stdout
    run = folder / "latest"
    results = json.loads((run / "results.json").read_text())
    assert results["environment"] == "sim"
    assert results["checkers"]["coverage"]["verdict"] == "valid"
    assert {path.name for path in run.iterdir()} >= {
        "history.jsonl", "faults.jsonl", "report.html", "junit.xml", "test.yaml", "run.log",
    }  # fmt: skip
    assert {path.name for path in (run / "nodes").glob("*/log")} == {"log"}
    again = _labrys(folder, str(run / "test.yaml"))
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_planted_bug_is_found(folder: Path) -> None:
    done = _labrys(
        folder, "--bug", "stale-read", "--faults", "partition", "--time-limit", "15",
        "--fault-interval", "2", "--seed", "1",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "INVALID" in done.stdout


def test_a_broken_promise_ends_the_run_at_that_step(folder: Path) -> None:
    done = _labrys(folder, "--bug", "early-ack", "--time-limit", "15", "--seed", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a promise of Raft is broken: durability: 1 is committed" in done.stdout
    results = json.loads((folder / "latest/results.json").read_text())
    assert results["checkers"]["raft"]["verdict"] == "invalid"
    assert results["duration_s"] < 10
    assert "violation: n" in results["checkers"]["raft"]["findings"][0]["message"]


def test_what_cannot_be_simulated_is_refused_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _labrys(folder, "--leave-cluster")
    assert (done.returncode, "--leave-cluster" in done.stderr) == (2, True)
    monkeypatch.setitem(PACKAGES, "eclipse", PACKAGES["kill"])
    assert obstacle("kill", "sim") is None
    with pytest.raises(UsageError, match="--faults eclipse: not with --env sim here: it cannot be"):
        assert_possible(["kill", "eclipse"], "sim")
