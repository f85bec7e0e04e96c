"""What killed runs leave behind is removed; what belongs to living ones stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labrys.control.environments import engine, owner
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.heal import heal

MakeEnvironment = Callable[..., DockerEnvironment]

_CONTROLLER = """
import signal, sys
from pathlib import Path
from labrys.control.environments.docker import DockerEnvironment
env = DockerEnvironment(("n1", "n2"), Path(sys.argv[1]), lambda line: None)
env.provision()
env.run("n1", f"echo last words >{env.log_dir('n1')}/log")
env.freeze("n1")
env.limit_cpu("n2", 0.05)
print("ready", flush=True)
signal.pause()
"""


def names_of(run_dir: Path) -> set[str]:
    """The names of what a run has on the engine."""
    client = engine.connect()
    containers, networks = engine.labelled(client, f"{engine.RUN}={run_dir.resolve()}")
    client.close()
    return set(engine.names(containers, networks))


def killed_run(run_dir: Path) -> set[str]:
    """Provision two nodes in another process, kill it, and return what it left."""
    with subprocess.Popen(
        [sys.executable, "-c", _CONTROLLER, str(run_dir)], stdout=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout is not None
        try:
            assert controller.stdout.readline() == "ready\n"
        finally:
            os.kill(controller.pid, signal.SIGKILL)
    return names_of(run_dir)


def test_a_killed_run_is_removed_even_frozen_after_its_logs_were_saved_and_a_live_one_stays(
    make_environment: MakeEnvironment, tmp_path: Path
) -> None:
    alive = make_environment("n1", run_dir=tmp_path / "alive")
    alive.provision()
    dead = tmp_path / "dead"
    dead.mkdir()
    left = killed_run(dead)
    assert len(left) == 3
    told: list[str] = []
    healed = heal(told.append)
    assert left <= set(healed.removed)
    assert healed.failures == ()
    assert any(str(dead) in line for line in told)
    assert names_of(dead) == set()
    assert (dead / "nodes" / "n1" / "log").read_text() == "last words\n"
    assert names_of(tmp_path / "alive").isdisjoint(healed.removed)
    assert alive.run("n1", "echo alive").out == "alive\n"


def test_a_run_whose_directory_is_gone_is_removed_all_the_same(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    left = killed_run(gone)
    healed = heal(print)
    assert left <= set(healed.removed)
    assert names_of(gone) == set()
    assert not gone.exists()


def test_a_run_of_a_controller_we_cannot_see_is_kept_until_its_containers_have_stopped(
    make_environment: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(owner, "_process_table", lambda: "another/pid:[1]")
        env = make_environment("n1")
        env.provision()
    left = names_of(tmp_path)
    healed = heal(print)
    assert names_of(tmp_path) == left
    assert any("cannot be seen from here" in line and str(tmp_path) in line for line in healed.kept)
    client = engine.connect()
    for container in engine.labelled(client, f"{engine.RUN}={tmp_path.resolve()}")[0]:
        container.kill()
    client.close()
    assert left <= set(heal(print).removed)
    assert names_of(tmp_path) == set()
