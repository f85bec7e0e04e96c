"""The lock on a host, with processes of this machine in the place of hosts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labrys.control.environments import scripts, tenant
from labrys.control.environments.shell import BOOT

Start = Callable[..., "Process"]


class Process:
    """What runs on a host for a controller."""

    def __init__(self, path: Path, token: str, more: dict[str, Any]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        wish = {
            "path": str(path),
            "record": {"token": token, "node": "n1"},
            "only_if_there": False,
            "patience_s": 0.2,
            "program": Path(scripts.__file__).read_text(),
        }
        self.say(json.dumps(Path(tenant.__file__).read_text()))
        self.say(json.dumps(wish | more))

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def answer(self) -> Any:
        assert self.popen.stdout is not None
        return json.loads(self.popen.stdout.readline())

    def close(self) -> None:
        with self.popen:
            pass


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a tenant's process."""
    made: list[Process] = []

    def start(token: str, **more: Any) -> Process:
        made.append(Process(tmp_path / "lock", token, more))
        return made[-1]

    yield start
    for process in made:
        process.close()


def test_the_first_one_gets_it_and_serves_scripts(start: Start, tmp_path: Path) -> None:
    process = start("a")
    assert process.answer() == {"taken": True}
    process.say(json.dumps(["echo hello", 5]))
    assert process.answer() == [0, "hello\n", ""]
    assert json.loads((tmp_path / "lock").read_text())["token"] == "a"


def test_another_one_learns_who_has_it_and_leaves_it_alone(start: Start) -> None:
    first = start("a")
    assert first.answer() == {"taken": True}
    second = start("b")
    found = second.answer()
    assert (found["tenant"]["token"], found["is_connected"]) == ("a", True)
    second.close()
    first.say(json.dumps(["echo still here", 5]))
    assert first.answer() == [0, "still here\n", ""]


def test_one_that_died_is_known_by_what_it_left(start: Start) -> None:
    first = start("a")
    first.answer()
    first.popen.kill()
    first.close()
    second = start("b")
    found = second.answer()
    assert (found["tenant"]["token"], found["is_connected"]) == ("a", False)
    second.say("take")
    assert second.answer() == {"taken": True}


def test_one_that_is_over_but_connected_is_killed_with_its_script(
    start: Start, tmp_path: Path
) -> None:
    first = start("a")
    first.answer()
    first.say(json.dumps([f"echo $$ >{tmp_path}/pid; exec sleep 1000", 1000]))
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert first.popen.poll() is None
    second = start("b")
    second.answer()
    second.say("take")
    assert second.answer() == {"taken": True}
    assert first.popen.wait(10) == -signal.SIGKILL
    script = int((tmp_path / "pid").read_text())
    assert not _runs(script)


def test_a_second_connection_of_the_same_run_waits_for_the_end_of_the_first(
    start: Start,
) -> None:
    first = start("a")
    first.answer()
    second = start("a", patience_s=60)
    first.close()
    assert second.answer() == {"taken": True}
    assert first.popen.returncode == 0


def test_whoever_wants_only_what_is_its_own_leaves_nothing_where_there_is_none(
    start: Start, tmp_path: Path
) -> None:
    assert start("a", only_if_there=True).answer() == {"absent": True}
    assert not (tmp_path / "lock").exists()
    start("a").answer()
    assert start("a", only_if_there=True).answer() == {"taken": True}


def test_a_lock_that_was_removed_is_not_taken_for_the_new_one(start: Start, tmp_path: Path) -> None:
    first = start("a")
    first.answer()
    (tmp_path / "lock").unlink()  # as a run does that goes
    assert start("b").answer() == {"taken": True}


def test_what_the_scripts_start_does_not_hold_the_lock(start: Start) -> None:
    first = start("a")
    first.answer()
    first.say(json.dumps(["setsid sleep 1000 & echo $!", 5]))
    pid = int(first.answer()[1])
    try:
        first.close()
        second = start("b")
        assert second.answer()["is_connected"] is False
        second.close()
    finally:
        os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
