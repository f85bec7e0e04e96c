"""One run at a time on a host: who has it, and for as long as that one is connected.

The standard library only, and nothing of ours: this very file is sent to a host and run there, as
the head of the process that then serves scripts (see `shell`). That process holds a lock on a
file, which the kernel lifts however it ends; in the file stands whose lock it is, which outlives
it. So there are three cases: nobody's; somebody's who is connected; somebody's who is not, because
it died, or lost the connection just now. Whether that one lives, its own machine must tell.

Standard input brings a line with the wish, and, after an answer that names another tenant, a second
one that says `take` if that one is over. Nothing of the host is touched before that.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from typing import Any

_POLL_S = 0.02
_KILLED_WITHIN_S = 10.0


def main() -> None:
    """Take the lock for the tenant in the wish, then run the program in the wish."""
    wish = json.loads(sys.stdin.readline())
    record, path = wish["record"], wish["path"]
    lock = _try_lock(path)
    there = _read(path)
    if lock is None and there is None:  # somebody is about to write
        time.sleep(0.5)
        there = _read(path)
    if there is None and wish["only_if_there"]:
        if lock is not None:
            os.unlink(path)
        _answer(absent=True)
        return
    if there is not None and not _is_same(there, record):
        _answer(tenant=there, is_connected=lock is None)
        if sys.stdin.readline().strip() != "take":
            return
    deadline = time.monotonic() + wish["patience_s"]
    while lock is None:
        # Our own earlier connection, whose script goes on, or a dead run's. It ends by itself as
        # soon as it sees the end of its input, unless nobody told this host that it was lost.
        if time.monotonic() > deadline and there is not None:
            _end(there)
        if time.monotonic() > deadline + _KILLED_WITHIN_S:
            sys.exit(f"{path} is locked by a process that does not end: {there}")
        time.sleep(_POLL_S)
        lock = _try_lock(path)
    holder = {"pid": os.getpid(), "born": _born(os.getpid())}
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({**record, "holder": holder}).encode(), 0)
    _answer(taken=True)
    exec(wish["program"], {"__name__": "__main__"})


def _answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _is_same(there: dict[str, Any], record: dict[str, Any]) -> bool:
    return all(there.get(key) == record[key] for key in ("token", "node"))


def _try_lock(path: str) -> "int | None":
    """Return the open and locked file, or None if somebody holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)  # it was removed between the two calls


def _read(path: str) -> "dict[str, Any] | None":
    try:
        with open(path) as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _end(there: dict[str, Any]) -> None:
    """Kill the process that holds the lock for `there`, with the script that it runs."""
    holder = there.get("holder", {})
    pid = holder.get("pid")
    if not isinstance(pid, int) or _born(pid) != holder.get("born"):
        return
    children = [entry for entry in os.listdir("/proc") if entry.isdecimal()]
    for child in map(int, children):
        if _fields(child)[1:2] == [str(pid)]:
            _kill(-child)  # scripts are leaders of groups of their own
    _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _born(pid: int) -> "str | None":
    fields = _fields(pid)
    return fields[19] if fields else None


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    main()
