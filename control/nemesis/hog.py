"""Takes memory in a node until a process there is killed for the lack of it.

The standard library only, and nothing of ours: this very file is put into the node and run there.

    python3 hog.py PID_FILE MIB_MAX STATS

It asks the kernel to kill that process first, and waits until the limit of its control group is
changed: to come up under a narrow limit it would itself need what is lacking. Then it takes memory,
at most MIB_MAX, and lets go of it once the process has gone. STATS tells how much it took.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress

_MIB = 1 << 20
_LIMITS = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
"""Of version 1 and version 2."""
_WAITS_S = 30.0
"""How long it holds all it may take, for a process that grows into the limit later."""
_POLL_S = 0.01


def main(argv: list[str]) -> None:
    """Take memory until the process has gone, or SIGTERM."""
    pid_file, mib_max, stats = argv
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with open(pid_file) as file:
        pid = int(file.read().split()[0])
    descriptor = os.pidfd_open(pid)
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write("1000")
    limit = before = _limit()
    _write(stats, 0)
    taken: list[bytearray] = []
    deadline = time.monotonic() + _WAITS_S
    while _lives(descriptor) and not told.is_set() and time.monotonic() < deadline:
        if limit == before:
            told.wait(_POLL_S)
            limit = _limit()
        elif len(taken) < int(mib_max):
            taken.append(bytearray(os.urandom(1)) * _MIB)  # written to, so that it is really taken
        else:
            told.wait(_POLL_S)
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write("0")
    _write(stats, len(taken))


def _limit() -> str:
    for path in _LIMITS:
        with suppress(OSError), open(path) as file:
            return file.read()
    raise SystemExit(f"no limit of memory is to be seen in {' or '.join(_LIMITS)}")


def _lives(descriptor: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return False
    return True


def _write(path: str, mib: int) -> None:
    with open(f"{path}.new", "w") as file:
        json.dump({"hog_mib": mib}, file)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main(sys.argv[1:])
