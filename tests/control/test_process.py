"""Processes are started, signalled and watched by pid file, on this machine with /bin/sh."""

import os
import shutil
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from labrys.control import process
from labrys.control.environments.base import Output
from labrys.control.errors import ClusterError
from labrys.control.process import State

SHELLS = [shell for shell in ("/bin/dash", "/bin/bash") if shutil.which(shell)]


class LocalEnvironment:
    """One node that is this machine: scripts run here, with the shell under test."""

    name = "local"
    nodes = ("n1",)

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder = folder
        self.shell = shell

    def require(self, needs: frozenset[str]) -> None: ...

    def provision(self) -> None: ...

    def destroy(self) -> None: ...

    def address(self, node: str) -> str:
        return "127.0.0.1"

    def home(self, node: str) -> str:
        return str(self.folder)

    def log_dir(self, node: str) -> str:
        return str(self.folder / "it's a log")

    def python(self, node: str) -> str:
        return sys.executable

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        done = subprocess.run(
            [self.shell], input=script, capture_output=True, text=True, timeout=timeout_s
        )
        return Output(done.returncode, done.stdout, done.stderr)

    def upload(self, node: str, files: Mapping[str, bytes]) -> None: ...

    def collect_logs(self, node: str, into: Path) -> None: ...

    @property
    def log(self) -> str:
        return f"{self.log_dir('n1')}/log"

    def pid(self, name: str = "db") -> int:
        return int((self.folder / f"{name}.pid").read_text().split()[0])


@pytest.fixture(params=SHELLS)
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalEnvironment]:
    local = LocalEnvironment(tmp_path, request.param)
    yield local
    for pid_file in tmp_path.glob("*.pid"):
        process.kill(local, "n1", pid_file.stem)


def start_sleeper(env: LocalEnvironment, name: str = "db") -> bool:
    return process.start(env, "n1", name, ["sleep", "1000"], env.log)


def eventually(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.005)


def test_process_outlives_the_script_that_started_it(env: LocalEnvironment) -> None:
    assert start_sleeper(env)
    assert process.state(env, "n1", "db") is State.RUNNING
    os.kill(env.pid(), 0)
    assert os.getsid(env.pid()) == env.pid(), "it has a session of its own"


def test_starting_what_runs_starts_no_second_one(env: LocalEnvironment) -> None:
    start_sleeper(env)
    first = env.pid()
    assert start_sleeper(env) is False
    assert env.pid() == first


def test_output_is_appended_over_restarts_and_input_is_empty(env: LocalEnvironment) -> None:
    argv = ["/bin/sh", "-c", 'cat; echo "it is $1" >&2', "sh", "a 'quoted' $word"]
    for _ in range(2):
        process.start(env, "n1", "db", argv, env.log)
        process.wait_gone(env, "n1", "db")
    assert Path(env.log).read_text() == "it is a 'quoted' $word\n" * 2


def test_process_begins_in_its_home(env: LocalEnvironment) -> None:
    process.start(env, "n1", "db", ["pwd"], env.log)
    process.wait_gone(env, "n1", "db")
    assert Path(env.log).read_text().strip() == env.home("n1")


def test_missing_program_is_a_clear_error(env: LocalEnvironment) -> None:
    with pytest.raises(ClusterError, match=r"n1: starting db failed .*no program no-such-program"):
        process.start(env, "n1", "db", ["no-such-program"], env.log)
    assert process.state(env, "n1", "db") is State.DEAD


def test_never_started_process_is_dead_and_takes_no_signal(env: LocalEnvironment) -> None:
    assert process.state(env, "n1", "db") is State.DEAD
    assert process.signal(env, "n1", "db", "CONT") is False
    assert process.kill(env, "n1", "db") is False
    process.wait_gone(env, "n1", "db")


def test_kill_waits_until_the_process_is_gone(env: LocalEnvironment) -> None:
    start_sleeper(env)
    pid = env.pid()
    assert process.kill(env, "n1", "db") is True
    assert process.state(env, "n1", "db") is State.DEAD
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(") ")[2].startswith("Z")


def test_killed_process_starts_again_under_a_new_pid(env: LocalEnvironment) -> None:
    start_sleeper(env)
    first = env.pid()
    process.kill(env, "n1", "db")
    assert start_sleeper(env)
    assert env.pid() != first
    assert process.state(env, "n1", "db") is State.RUNNING


def test_pause_and_resume_are_seen_and_idempotent(env: LocalEnvironment) -> None:
    start_sleeper(env)
    for _ in range(2):
        assert process.signal(env, "n1", "db", "STOP")
        eventually(lambda: process.state(env, "n1", "db") is State.STOPPED, "it is stopped")
    for _ in range(2):
        assert process.signal(env, "n1", "db", "CONT")
        eventually(lambda: process.state(env, "n1", "db") is State.RUNNING, "it runs on")


def test_start_of_a_paused_process_neither_resumes_it_nor_starts_another(
    env: LocalEnvironment,
) -> None:
    start_sleeper(env)
    pid = env.pid()
    process.signal(env, "n1", "db", "STOP")
    eventually(lambda: process.state(env, "n1", "db") is State.STOPPED, "it is stopped")
    assert start_sleeper(env) is False
    assert env.pid() == pid
    assert process.state(env, "n1", "db") is State.STOPPED


def test_paused_process_can_be_killed(env: LocalEnvironment) -> None:
    start_sleeper(env)
    process.signal(env, "n1", "db", "STOP")
    assert process.kill(env, "n1", "db")
    assert process.state(env, "n1", "db") is State.DEAD
    assert process.signal(env, "n1", "db", "CONT") is False, "resuming the dead is fine"


def test_stranger_under_a_reused_pid_is_never_touched(env: LocalEnvironment) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        born = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        (env.folder / "db.pid").write_text(f"{stranger.pid} {int(born) - 1}\n")
        assert process.state(env, "n1", "db") is State.DEAD
        assert process.kill(env, "n1", "db") is False
        assert stranger.poll() is None
        # The near miss: with its own start time it is the very process.
        (env.folder / "db.pid").write_text(f"{stranger.pid} {born}\n")
        assert process.state(env, "n1", "db") is State.RUNNING
    finally:
        stranger.kill()
        stranger.wait()


def test_zombie_is_dead(env: LocalEnvironment) -> None:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        born = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        (env.folder / "db.pid").write_text(f"{child.pid} {born}\n")
        os.kill(child.pid, signals.SIGKILL)  # and nobody reaps it yet
        process.wait_gone(env, "n1", "db")
        assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
        assert process.state(env, "n1", "db") is State.DEAD
    finally:
        child.kill()
        child.wait()


LEADER_GONE = """
import ctypes, threading, time
def stay():
    print("ready", flush=True)
    time.sleep(1000)
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall({exit}, 0)   # exit(2): only this thread, the leader, ends
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="knows no exit(2) here")
def test_process_whose_first_thread_ended_is_not_dead_while_others_live(
    env: LocalEnvironment,
) -> None:
    number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    code = LEADER_GONE.format(exit=number)
    process.start(env, "n1", "db", [sys.executable, "-c", code], env.log)
    stat = Path(f"/proc/{env.pid()}/stat")
    eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("Z"), "the leader ended")
    assert process.state(env, "n1", "db") is State.RUNNING
    assert process.kill(env, "n1", "db")
    assert process.state(env, "n1", "db") is State.DEAD


def test_odd_command_names_do_not_confuse_the_state(env: LocalEnvironment) -> None:
    odd = env.folder / "a) T (b"
    odd.symlink_to(shutil.which("sleep") or "")
    process.start(env, "n1", "db", [str(odd), "1000"], env.log)
    comm = Path(f"/proc/{env.pid()}/comm")
    eventually(lambda: comm.read_text().strip() == "a) T (b", "it has become the program")
    assert process.state(env, "n1", "db") is State.RUNNING
    assert process.kill(env, "n1", "db")


def test_helpers_of_a_process_share_its_fate(env: LocalEnvironment) -> None:
    argv = ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"]
    process.start(env, "n1", "db", argv, env.log)
    eventually(lambda: Path(env.log).read_text().endswith("\n"), "the helper's pid is known")
    helper = Path(f"/proc/{int(Path(env.log).read_text())}/stat")
    process.kill(env, "n1", "db")

    def gone() -> bool:
        try:
            return helper.read_text().rpartition(") ")[2].startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(gone, "the helper is gone")


def test_two_names_are_two_processes(env: LocalEnvironment) -> None:
    start_sleeper(env, "one")
    start_sleeper(env, "two")
    process.kill(env, "n1", "one")
    assert process.state(env, "n1", "one") is State.DEAD
    assert process.state(env, "n1", "two") is State.RUNNING


def test_process_that_does_not_end_in_time_is_an_error_with_node_and_pid(
    env: LocalEnvironment,
) -> None:
    start_sleeper(env)
    with pytest.raises(ClusterError, match=rf"n1: db \(pid {env.pid()}\) is still running"):
        process.wait_gone(env, "n1", "db", timeout_s=0.02)


def test_torn_pid_file_is_a_dead_process(env: LocalEnvironment) -> None:
    for content in ("", "\n", "47", "x y\n", f"{os.getpid()}"):
        (env.folder / "db.pid").write_text(content)
        assert process.state(env, "n1", "db") is State.DEAD, content
