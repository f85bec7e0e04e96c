"""Containers that stand still, are slow, and run out of memory; and are as before in the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.control.probes import Sleepers

from labrys.control import process
from labrys.control.environments.base import on_nodes
from labrys.control.environments.docker import DockerEnvironment, _quota
from labrys.control.errors import ClusterError
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.freeze import Freeze
from labrys.control.nemesis.oom import Oom, OomOptions
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.slow_cpu import SlowCpu, SlowCpuOptions
from labrys.control.process import State

NODES = ("n1", "n2")


class Busy(Sleepers):
    """Databases that use all the CPU they get, and 30 MiB."""

    def start(self, node: str) -> None:
        argv = ["python3", "-c", "taken = bytearray(b'x') * (30 << 20)\nwhile True: pass"]
        process.start(self.env, node, "db", argv, f"{self.env.log_dir(node)}/log")

    def ticks(self, node: str) -> int:
        """The CPU time that the database has used."""
        pid_file = process.pid_file(self.env, node, "db")
        script = f"read -r pid born <{pid_file}; cut -d ' ' -f 14 /proc/$pid/stat"
        return int(self.env.run(node, script).out)


@pytest.fixture(scope="module")
def env(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEnvironment]:
    made = DockerEnvironment(NODES, tmp_path_factory.mktemp("resources"), print)
    try:
        made.provision()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def system(env: DockerEnvironment) -> Iterator[Busy]:
    """Databases that run, and are gone after the test."""
    made = Busy(env, leader="n1")
    on_nodes(NODES, made.start)
    yield made
    with suppress(ClusterError):
        on_nodes(NODES, made.kill)


def eventually(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def test_frozen_node_stands_still_refuses_scripts_and_goes_on(
    env: DockerEnvironment, system: Busy
) -> None:
    freeze = Freeze(env, system, AimedOptions())
    freeze.set_up()
    outcome = freeze.apply(Planned(("n1",), {}))
    assert outcome.errors == {}
    assert outcome.bit is True
    assert outcome.observed["n1"]["processes"] >= 2
    with pytest.raises(ClusterError, match="n1: stands still; nothing runs in it"):
        env.run("n1", "true")
    with pytest.raises(ClusterError, match="n1: stands still"):
        env.upload("n1", {"x": b""})
    before = system.ticks("n2")
    eventually(lambda: system.ticks("n2") > before + 20, "CPU time of the other")
    assert freeze.apply(Planned(("n1",), {})).errors == {}, "twice is once"
    assert freeze.undo().done == {"n1": "goes on", "n2": "goes on as before"}
    before = system.ticks("n1")
    eventually(lambda: system.ticks("n1") > before, "CPU time after the thaw")
    assert freeze.undo().done["n1"] == "goes on as before"


def test_slow_node_can_be_frozen_and_is_slow_afterwards(
    make_env: Callable[[], DockerEnvironment],
) -> None:
    """The kernel does not freeze a process that waits for its share of the CPU."""
    env = make_env()
    for _ in range(4):
        env.run("n1", "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 &")
    env.limit_cpu("n1", 0.05)
    for _ in range(5):
        env.freeze("n1")
        env.thaw("n1")
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
    assert env.run("n1", quota, timeout_s=60).out.split()[0] == "1000", "of 20 ms"


def test_a_share_below_what_the_kernel_takes_is_one_of_a_longer_period() -> None:
    assert [_quota(share) for share in (None, 0.5, 0.05, 0.01)] == [
        (20_000, -1),
        (20_000, 10_000),
        (20_000, 1_000),
        (100_000, 1_000),
    ]


def test_frozen_node_can_be_destroyed_and_its_logs_saved(
    make_env: Callable[[], DockerEnvironment], tmp_path: Path
) -> None:
    env = make_env()
    env.run("n1", f"echo last words >{env.log_dir('n1')}/log")
    env.freeze("n1")
    env.collect_logs("n1", tmp_path / "logs")
    assert (tmp_path / "logs" / "log").read_text() == "last words\n"
    env.destroy()


@pytest.fixture
def make_env(image: str, tmp_path: Path) -> Iterator[Callable[[], DockerEnvironment]]:
    """Return a function that makes one node."""
    made = DockerEnvironment(("n1",), tmp_path, print)

    def provision() -> DockerEnvironment:
        made.provision()
        return made

    yield provision
    made.destroy()


def test_slow_node_waits_for_its_share_and_has_all_of_it_again(
    env: DockerEnvironment, system: Busy
) -> None:
    slow = SlowCpu(env, system, SlowCpuOptions())
    slow.set_up()
    assert slow.apply(Planned(("n1",), {"share": 0.1})).errors == {}
    began, before = time.monotonic(), system.ticks("n1")
    eventually(lambda: system.ticks("n1") > before + 20, "CPU time of the slow one")
    used_s = (system.ticks("n1") - before) / 100
    took_s = time.monotonic() - began
    undone = slow.undo()
    assert used_s <= 0.1 * took_s + 0.1, "a tenth, and what was left of a period"
    assert (undone.bit, list(undone.observed), undone.errors) == (True, ["n1"], {})
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
    assert env.run("n1", quota).out.split()[0] in ("-1", "max")
    assert slow.undo().bit is False


def test_database_is_killed_for_lack_of_memory_and_comes_back(
    env: DockerEnvironment, system: Busy
) -> None:
    oom = Oom(env, system, OomOptions())
    oom.set_up()
    outcome = oom.apply(Planned(("n1",), {"room_mib": 16.0}))
    assert outcome.errors == {}
    eventually(lambda: system.state("n1") is State.DEAD, "the database is killed")
    assert system.state("n2") is State.RUNNING
    undone = oom.undo()
    assert undone.bit is True
    assert undone.observed["n1"]["oom_kills"] >= 1
    assert undone.errors == {}
    assert system.state("n1") is State.RUNNING
    assert env.run("n1", "python3 -c 'bytearray(200 << 20)'").code == 0, "there is room again"
    assert process.state(env, "n1", "hog") is State.DEAD
    assert oom.undo().bit is None
