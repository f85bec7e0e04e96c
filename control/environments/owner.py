"""Whose something is: the controller that made it, by marks that outlive it.

The controller's process id with its start time, and the process table it is in. A number alone
would not do: after the controller's death another process may get it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

OWNER = "labrys.owner"
PROCESS_TABLE = "labrys.process-table"


def marks() -> dict[str, str]:
    """Return the marks of this process."""
    return {OWNER: f"{os.getpid()}:{start_ticks(os.getpid())}", PROCESS_TABLE: _process_table()}


def lives(found: Mapping[str, str]) -> bool | None:
    """Whether the controller that left these marks is alive; None if it is not for us to see.

    It is not when it ran in another container, on another machine, or before a reboot, nor when
    /proc hides the process from us.
    """
    if found.get(PROCESS_TABLE) != _process_table():
        return None
    pid, _, started = found.get(OWNER, "").partition(":")
    if not pid.isdecimal() or not started:
        return False
    ticks = start_ticks(int(pid))
    if ticks is None and _is_hidden(int(pid)):
        return None
    return ticks == started


def start_ticks(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; None if it is none or a zombie.

    A killed controller stays a zombie until its parent takes note, which may be never.
    """
    try:
        # proc(5): field 2 is the name and may itself hold spaces and brackets; the state is
        # field 3, the start time field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] not in ("Z", "X") else None


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, of another user's (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False


def _process_table() -> str:
    """Name the process table in which our process ids mean something: the boot and namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
