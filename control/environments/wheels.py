"""The Python packages that a node needs, as wheels: fetched where the controller runs.

Proxies and certificates are set up there; nodes need no network. pip comes as a wheel too and runs
out of it, since Debian's Python has none.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from labrys.control.errors import InternalError, MachineError

NODE_NEEDS: Final = ("httptools", "msgspec")
WHICH_PYTHON: Final = "import platform as p; print(*p.python_version_tuple()[:2], p.machine())"
"""Prints what `parse_python` reads."""
_SAID_AT_MOST: Final = 1500  # characters of a failed program's output in a message


class Python(NamedTuple):
    """An interpreter for which wheels are wanted."""

    version: str
    machine: str


def parse_python(told: str) -> Python:
    """Return the interpreter that `WHICH_PYTHON` told of."""
    major, minor, machine = told.split()
    return Python(f"{major}.{minor}", machine)


def requirements() -> list[str]:
    """Return what the node needs, as pyproject.toml states it for labrys as a whole."""
    stated = metadata.requires("labrys") or []
    needed = sorted(line for line in stated if re.split(r"[^\w-]", line)[0] in NODE_NEEDS)
    if len(needed) != len(NODE_NEEDS):
        raise InternalError(f"the node needs {NODE_NEEDS}, but labrys requires only {needed}")
    return needed


def fetch(python: Python, into: Path, whose: str) -> None:
    """Put wheels of pip and of what the node needs into a folder.

    Raises MachineError, which begins with `whose` they were to be.
    """
    platforms = [f"manylinux_2_{glibc}_{python.machine}" for glibc in (17, 28, 34)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(into)),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", python.version),
        *(word for platform in platforms for word in ("--platform", platform)),
        *("pip", *requirements()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip()[-_SAID_AT_MOST:] or "it said nothing"
        raise MachineError(
            f"{whose}: pip could not fetch wheels for Python {python.version} on {python.machine} "
            f"(is the package index reachable?): {said}"
        )
