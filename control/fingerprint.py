"""Which labrys this is: a seed is the same run only with the very same code."""

import functools
import hashlib
from pathlib import Path

from labrys import checkers, control, node, workloads


@functools.cache
def fingerprint() -> str:
    """Return a checksum of all our source files, as they are when this is called first."""
    digest = hashlib.sha256()
    for package in (node, checkers, workloads, control):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
