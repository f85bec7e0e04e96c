"""Run Python code in a private world: pytest itself must never move into one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PRELUDE = """
import os, signal, socket, subprocess, sys, time
from pathlib import Path
from labrys.control.environments import netns
from labrys.control.environments.base import on_nodes

def environment(count=5):
    nodes = tuple(f"n{number}" for number in range(1, count + 1))
    return netns.NetnsEnvironment(nodes, Path(RUN_DIR), lambda line: None)

def say(*words):
    print(*words, flush=True)
"""


@contextmanager
def start_inside(run_dir: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Start a controller that enters a private world and runs `code`; it is gone at the end.

    `code` may call `environment(count)`, whose run directory is `run_dir`, and `say(...)`.
    """
    prelude = f"RUN_DIR = {str(run_dir)!r}\n{_PRELUDE}\nnetns.enter()\n"
    with subprocess.Popen(
        [sys.executable, "-c", prelude + code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as controller:
        try:
            yield controller
        finally:
            controller.kill()


def run_inside(run_dir: Path, code: str) -> str:
    """Run `code` as `start_inside` does and return what it printed; it must succeed."""
    with start_inside(run_dir, code) as controller:
        out, err = controller.communicate(timeout=60)
    assert controller.returncode == 0, f"exit {controller.returncode}: {err}"
    return out
