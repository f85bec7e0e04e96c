"""The compose file in docker/: a control container and five nodes, as somebody would use it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from tests.whole_runs import eventually

DOCKER = Path(__file__).parents[2] / "docker"
FILES = [f"-f{DOCKER / name}" for name in ("compose.yaml", "compose.disks.yaml")]
Compose = Callable[..., "subprocess.CompletedProcess[str]"]


def command() -> list[str] | None:
    """The compose command of this machine, old or new."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = ["docker", "compose"]
    if (
        shutil.which("docker")
        and subprocess.run([*plugin, "version"], capture_output=True).returncode == 0
    ):
        return plugin
    return None


@pytest.fixture
def compose(image: str) -> Iterator[Compose]:
    """Return a function that calls compose for a project of our own; removed after the test."""
    words = command()
    if words is None:
        pytest.skip("no docker-compose (apt-get install docker-compose)")
    project = f"labrys-test-{token_hex(4)}"

    def call(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*words, "-p", project, *FILES, *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    yield call
    gone = call("down", "-v")
    assert gone.returncode == 0, gone.stderr


@pytest.mark.slow
def test_a_test_runs_from_the_control_container(compose: Compose) -> None:
    made = subprocess.run(
        [str(DOCKER / "make-cluster")], capture_output=True, text=True, timeout=900
    )
    assert made.returncode == 0, made.stderr
    up = compose("up", "-d")
    assert up.returncode == 0, up.stderr
    known = "ls /public-keys/n1 /public-keys/n2 /public-keys/n3 /public-keys/n4 /public-keys/n5"
    eventually(
        lambda: compose("exec", "-T", "control", "sh", "-c", known).returncode == 0,
        "all nodes have told their keys",
    )
    test = "labrys test --env ssh --faults partition,kill,disk --time-limit 12 --fault-interval 2"
    run = compose("exec", "-T", "control", *test.split(), "--seed", "4")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "labrys: seed 4  VALID  exit 0"
    left = compose("exec", "-T", "n1", "sh", "-c", "iptables -S | grep LABRYS; ls /run/labrys.lock")
    assert left.stdout == ""
