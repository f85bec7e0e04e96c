"""Slows a process down in a node: stops it and lets it go on, many times a second.

The standard library only, and nothing of ours: this very file is put into the node and run there.

    python3 slower.py PID_FILE SHARE PERIOD_MS STATS

Of each period the process group gets a share to run. The process is looked up again for each, since
it may be killed and started meanwhile. One that somebody else stopped (PID_FILE.held is there) is
left asleep. On SIGTERM the process is left running, and STATS tells how often it was stopped and
how much of one core it used.
"""

import json
import os
import signal
import sys
import threading
import time

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Slower:
    """One process and its share."""

    def __init__(self, pid_file: str) -> None:
        self._pid_file = pid_file
        self._born = ""
        self._ticks = 0
        self.stops = 0
        self.used_s = 0.0
        """CPU time that it used while it was slowed down."""

    def look(self) -> int | None:
        """Return the pid, if the process lives, and add up the CPU time that it used."""
        try:
            with open(self._pid_file) as file:
                pid, born = file.read().split()
            with open(f"/proc/{pid}/stat") as file:
                # proc(5): the name, field 2, may itself hold spaces and brackets; CPU time of user
                # and system are fields 14 and 15, the start time is field 22.
                fields = file.read().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        if fields[19] != born or fields[0] in "ZX":
            return None
        ticks = int(fields[11]) + int(fields[12])
        if born == self._born:
            self.used_s += (ticks - self._ticks) * _TICK_S
        self._born, self._ticks = born, ticks
        return int(pid)

    def stop(self) -> None:
        """Stop the process if there is one."""
        pid = self.look()
        if pid is not None and _signal(pid, signal.SIGSTOP):
            self.stops += 1

    def go_on(self) -> None:
        """Let the process go on, unless it is somebody else's wish that it sleeps."""
        pid = self.look()
        if pid is None or os.path.exists(f"{self._pid_file}.held"):
            return
        _signal(pid, signal.SIGCONT)
        if os.path.exists(f"{self._pid_file}.held"):
            _signal(pid, signal.SIGSTOP)  # the wish came in between


def main(argv: list[str]) -> None:
    """Slow it down until SIGTERM."""
    pid_file, share, period_ms, stats = argv
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    period_s = float(period_ms) / 1e3
    run_s = float(share) * period_s
    slower = Slower(pid_file)
    slower.look()
    began = time.monotonic()
    _write(stats, slower, began)
    try:
        with open(f"{pid_file}.slowed", "w"):
            pass
        while not told.is_set():
            slower.stop()
            told.wait(period_s - run_s)
            slower.go_on()
            told.wait(run_s)
    finally:
        slower.go_on()
        _write(stats, slower, began)


def _signal(pid: int, number: int) -> bool:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def _write(path: str, slower: Slower, began: float) -> None:
    used = slower.used_s / max(time.monotonic() - began, 1e-9)
    with open(f"{path}.new", "w") as file:
        json.dump({"stops": slower.stops, "used_share": round(used, 3)}, file)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main(sys.argv[1:])
