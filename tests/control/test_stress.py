"""`labrys stress` on small loads: a sound cluster passes, one that loses entries is found."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labrys.control.insertion import entries
from labrys.control.loopback import Loopback
from labrys.control.stress import Load, Stress

COMMAND = [sys.executable, "-c", "from labrys.control.cli import main; main()", "stress"]
SMALL = ("--entries", "400", "--batch", "30", "--clients", "3")


def stress(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120)


def test_a_sound_cluster_passes_every_check_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = stress(*SMALL, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["passed"] is True
    assert facts["entries_per_s"] > 0
    assert len(facts["checks"]) == 12
    assert all(check["passed"] for check in facts["checks"])
    assert list(tmp_path.iterdir()) == []


def test_repeated_runs_are_summed_up_and_data_is_kept_on_request(tmp_path: Path) -> None:
    done = stress(*SMALL, "--repeat", "2", "--data", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("[2/2] ok ") == 12
    assert done.stdout.splitlines()[-1].endswith("in 2 runs; 0 of 2 failed")
    assert (tmp_path / "kept" / "run-2" / "n1" / "log-0000000001").is_file()
    again = stress(*SMALL, "--data", str(tmp_path / "kept"))
    assert again.returncode == 4
    assert "is there already" in again.stderr


def test_a_cluster_that_loses_its_tail_fails(tmp_path: Path) -> None:
    said: list[str] = []
    with Loopback(tmp_path, 3, ("--bug", "lose-tail")) as cluster:
        result = Stress(cluster, Load(200, 20, 2), said.append, patience_s=3).run()
    assert result.passed is False
    failed = [check for check in result.checks if not check.passed]
    assert len(failed) == 1
    assert "has the same entries" not in failed[0].name
    assert said[-1].startswith(f"FAIL  {failed[0].name}: ")


def test_a_server_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Loopback(tmp_path, 3, ("--heartbeat-ms", "1000")) as cluster:
        result = Stress(cluster, Load(10, 10, 1), lambda text: None).run()
    (check,) = result.checks
    assert "must be at least twice" in check.detail


@pytest.mark.parametrize(
    "words", [("--entries", "0"), ("--batch", "99999"), ("--clients", "x"), ("more",)]
)
def test_bad_words_exit_2(words: tuple[str, ...]) -> None:
    done = stress(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_directory_that_cannot_be_made_exits_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = stress(*SMALL, "--data", str(tmp_path / "file" / "below"))
    assert done.returncode == 4
    assert "cannot make a directory" in done.stderr


def test_ctrl_c_ends_the_servers_and_keeps_the_data(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--data", str(tmp_path / "kept")], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "kept" / "run-1" / "n3.log"
    deadline = time.monotonic() + 20
    while not (log.is_file() and "event=start" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert str(tmp_path / "kept") in said
    assert not [pid for pid in _running() if str(tmp_path) in _command(pid)]


def _running() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_entries_differ_and_have_their_lengths() -> None:
    made = entries(1000, 16, 16, prefix="k")
    assert len({entry.key for entry in made}) == len({entry.value for entry in made}) == 1000
    assert {(len(entry.key), len(entry.value)) for entry in made} == {(16, 16)}
