"""The clock shim, compiled on the machine of the controller.

For nodes with the same processor and a C library that is not older: whether it loads there is for
the nodes to say. Compiling takes a tenth of a second, so nothing is kept from one run to the next.
"""

import functools
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from labrys.control.environments.scripts import search_path
from labrys.control.errors import MachineError

_MEND: Final = "(apt install gcc libc6-dev)"
_TIMEOUT_S: Final = 60.0


def compiler() -> str | None:
    """Return the C compiler of this machine, None if it has none."""
    return shutil.which("cc", path=search_path())


@functools.cache
def build() -> bytes:
    """Return the shared library. Raises MachineError without a compiler that works."""
    cc = compiler()
    if cc is None:
        raise MachineError(f"no C compiler `cc` to build the clock shim with {_MEND}")
    source = resources.files("labrys.control.nemesis").joinpath("clock_shim.c").read_bytes()
    with tempfile.TemporaryDirectory(prefix="labrys-shim-") as folder:
        target = Path(folder, "clock_shim.so")
        argv = [cc, "-O2", "-shared", "-fPIC", "-o", str(target), "-x", "c", "-", "-ldl"]
        try:
            done = subprocess.run(
                [*argv, "-pthread"], input=source, capture_output=True, timeout=_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MachineError(f"{cc} does not compile the clock shim: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[:500]
            raise MachineError(f"{cc} does not compile the clock shim {_MEND}: {said}")
        return target.read_bytes()
