"""Disks of containers: each fault bites and heals there, and dies with the container."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.control.disk_scenarios import ALWAYS, EXPECTED, PLANS, Scenarios
from tests.whole_runs import eventually

from labrys.control.disks import fuse
from labrys.control.environments import engine
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.heal import heal

MakeEnvironment = Callable[..., DockerEnvironment]


@pytest.fixture(scope="module")
def play(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Two nodes that may mount file systems."""
    env = DockerEnvironment(("n1", "n2"), tmp_path_factory.mktemp("disks"), print)
    env.require(frozenset({"fuse"}))
    try:
        env.provision()
        yield Scenarios(env)
    finally:
        env.destroy()


@pytest.mark.parametrize("mode", fuse.MODES)
def test_spoiled_disk_is_felt_where_it_is_and_mended(play: Scenarios, mode: str) -> None:
    assert play.spoiled(mode, **PLANS[mode]) == {**ALWAYS, **EXPECTED[mode]}


def test_process_on_a_hung_disk_can_be_killed(play: Scenarios) -> None:
    assert play.killed_on_a_hung_disk() == {"killed": "dead", "goes on": True}


def test_power_failure_loses_what_was_not_flushed_and_nothing_else(play: Scenarios) -> None:
    found = play.without_power("lose")
    assert found["errors"] == {}
    assert found["nothing that was flushed is lost"]
    assert found["left"] == ["flushed", "log", "old"]
    assert found["bit"]
    assert found["goes on"]


def test_nothing_is_left_at_the_end(play: Scenarios) -> None:
    assert play.torn_down() == {
        "running": {"mounts": [1, 1], "goes on": True},
        "mounts": [0, 0],
        "processes": ["dead", "dead"],
    }


def test_only_faults_of_disks_let_a_node_mount(make_environment: MakeEnvironment) -> None:
    env = make_environment("n1")
    env.provision()
    assert env.run("n1", "test -e /dev/fuse").code != 0
    assert env.run("n1", "mount -t tmpfs none /mnt").code != 0


_CONTROLLER = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.disk import Disk, DiskOptions
from tests.control.disk_scenarios import Scenarios
env = DockerEnvironment(("n1", "n2"), Path(sys.argv[1]), lambda line: None)
env.require(frozenset({"fuse"}))
env.provision()
play = Scenarios(env)
disk = Disk(env, play.system, DiskOptions())
disk.set_up()
play.begin()
disk.apply(Planned(env.nodes, {"mode": "hang"}))
print("ready", flush=True)
signal.pause()
"""


def processes_of(run_dir: Path) -> list[int]:
    """The ids, on this machine, of what runs in the containers of a run."""
    client = engine.connect()
    containers, _ = engine.labelled(client, f"{engine.RUN}={run_dir.resolve()}")
    found = [int(row[1]) for c in containers for row in c.top()["Processes"]]
    client.close()
    return found


def test_killed_rig_leaves_nothing_that_heal_does_not_remove(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _CONTROLLER, str(tmp_path), root],
        stdout=subprocess.PIPE,
        text=True,
    ) as controller:
        assert controller.stdout is not None
        try:
            assert controller.stdout.readline() == "ready\n"
        finally:
            os.kill(controller.pid, signal.SIGKILL)
    pids = processes_of(tmp_path)
    assert len(pids) >= 6, "databases, disks, and what keeps the containers up"
    healed = heal(print)
    assert healed.failures == ()
    client = engine.connect()
    assert engine.labelled(client, f"{engine.RUN}={tmp_path.resolve()}") == ([], [])
    client.close()
    eventually(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all processes are gone"
    )
