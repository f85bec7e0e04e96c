"""Clocks bite and heal in containers, which all share the clocks of the host."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.control.test_clock import SCENARIO, assert_bites_and_heals

from labrys.control.nemesis import shim

_CODE = """
import json, sys, time
from pathlib import Path
from labrys.control.environments.docker import DockerEnvironment
from tests.control.probes import Sleepers

def say(line):
    print(line, flush=True)

env = DockerEnvironment(("n1", "n2", "n3"), Path(sys.argv[1]), lambda line: None)
system = Sleepers(env, leader="n3")
try:
    env.provision()
    exec(sys.argv[2])
finally:
    env.destroy()
"""


@pytest.mark.skipif(shim.compiler() is None, reason="no C compiler")
def test_clocks_bite_and_heal_in_containers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(tmp_path), SCENARIO],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_bites_and_heals([json.loads(line) for line in done.stdout.splitlines()])
