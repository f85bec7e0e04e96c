"""A private world: the controller in user, network, mount and PID namespaces of its own.

The problem. A partition needs iptables, and nodes need addresses of their own. Both take root, or
Docker, or leave rules and processes behind on the host when the controller dies. The idea: before
anything else the controller moves into fresh namespaces, where it is root over nothing but itself.
Whatever it makes in there (bridges, rules, mounts, databases) ends with the last process inside.

Three processes take part:

    outer        what the user started; stays outside, only passes signals on and waits
    └─ init      PID 1 of the new PID namespace; reaps orphans; if it dies, all inside die with it
       └─ controller    the process in which `enter` returns

Invariants
- Nothing survives. The controller ends: init ends with its exit code, and the kernel kills what is
  left inside. Outer is killed, even with SIGKILL: PDEATHSIG kills init, and so all the rest.
- A signal arrives once. init starts a session of its own, so a Ctrl-C of the terminal reaches outer
  alone, as does `kill PID` and `kill -- -PGID`; from there it is handed down, outer to init to
  controller. Both relays keep these signals blocked and fetch them with sigwait: nothing is lost
  between two instructions, and PID 1, which the kernel shields from unhandled signals, sees them.
- Ctrl-Z stops outer alone. The run inside goes on, since time goes on for it too; what is signalled
  meanwhile arrives once outer is continued.
- Without CAP_SYS_ADMIN a user namespace comes first, in which the user's id is mapped to 0. Files
  made inside belong to the user outside.

The cost is two idle processes and a few milliseconds.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from labrys.control.environments.scripts import search_path
from labrys.control.errors import InternalError, MachineError

# What faults and namespaces need on the machine, and the Debian package that brings it.
TOOLS = {
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "nsenter": "util-linux",
}

_PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_WATCHED = _PASSED_ON | {signal.SIGCHLD}

# <sched.h>, <sys/mount.h>, <sys/prctl.h>; Python wraps unshare only from 3.12 on.
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 1 << 17, 1 << 28, 1 << 29, 1 << 30
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

_entered = False


def enter() -> None:
    """Move this program into a private world; return only in the controller, inside.

    Call it once, early: before any thread, connection or temporary file exists. It forks, and what
    the caller does not want to see twice must not have begun. Inside, the process ids are new,
    /run is an empty tmpfs, the only interface is loopback, and there is no way out to the network.

    Raises MachineError where the machine does not allow it, with the setting that stands in the
    way and the mend; InternalError if threads are running.
    """
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise InternalError(f"namespaces entered too late: {len(threads)} threads are running")
    require_tools()
    try:
        _unshare()
    except OSError as error:
        raise MachineError(f"cannot make private namespaces: {error.strerror}{mend()}") from error
    _become_controller()
    try:
        _make_private()
    except OSError as error:
        raise MachineError(f"cannot set up private mounts: {error.strerror}{mend()}") from error


def entered() -> bool:
    """Whether this process runs inside a private world made by `enter`."""
    return _entered


def require_tools() -> None:
    """Raise MachineError naming the missing programs and the packages that bring them."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=search_path()) is None]
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        raise MachineError(f"not installed: {', '.join(missing)} (apt-get install {packages})")


def attempt(inside: Callable[[], None], *, timeout_s: float) -> str | None:
    """Try `enter` and then `inside` in a child process; return None or what went wrong.

    The caller itself stays where it is.
    """
    read, write = os.pipe()
    _flush()
    child = os.fork()
    if child == 0:
        try:
            enter()
            inside()
        except BaseException as error:  # whatever it is, it is the answer
            os.write(write, (str(error) or repr(error)).encode()[:4000])
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        # All three processes hold the write end: end of file means that they have gone.
        if select.select([answer], [], [], timeout_s)[0]:
            said = answer.read().decode(errors="replace")
        else:
            said = f"no answer within {timeout_s:g} s"
            os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0 and not said:
        return f"it ended with exit code {code} and said nothing"
    return said or None


def end_with_parent(number: signal.Signals) -> None:
    """Have this process get a signal when the one that made it ends, however it does."""
    _must(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))


def unmount(folder: str) -> None:
    """Take a file system away, whoever still uses it; one that is gone is fine."""
    _libc.umount2(folder.encode(), _MNT_DETACH)


def mend(read: Callable[[str], str | None] | None = None) -> str:
    """Name the setting that forbids private namespaces and the way out, as the end of a message.

    `read` returns the content of a file or None; by default it reads this machine's /proc.
    """
    value = read or _content
    for setting, forbidding, allowing in _SETTINGS:
        if value("/proc/sys/" + setting.replace(".", "/")) == forbidding:
            return (
                f"; {setting} is {forbidding}. "
                f"Allow it with: sudo sysctl -w {setting}={allowing} (or run labrys as root)"
            )
    if value("/.dockerenv") is not None or value("/run/.containerenv") is not None:
        return (
            "; this looks like a container whose seccomp profile or capabilities forbid it: start "
            "it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined, or with --privileged"
        )
    return "; run labrys as root, or choose --env docker"


# Setting, the value that stands in the way, and one that does not.
_SETTINGS = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "15000"),
    ("user.max_net_namespaces", "0", "15000"),
)


def _content(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _unshare() -> None:
    flags = _CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWPID
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(flags) == 0:
        return
    # Not root, or root without CAP_SYS_ADMIN.
    _must(_libc.unshare(flags | _CLONE_NEWUSER))
    # user_namespaces(7): without deny, an unprivileged process may not write gid_map.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _become_controller() -> None:
    """Fork init and the controller; return in the controller alone."""
    global _entered
    # An ignored SIGCHLD, inherited from some daemon, would make ends go unnoticed.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    alive, outer = os.pipe()
    _flush()
    if init := os.fork():
        os._exit(_relay(init))  # outer
    os.close(outer)
    end_with_parent(signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # outer died before PDEATHSIG was set
    os.close(alive)
    os.setsid()
    if controller := os.fork():
        os._exit(_relay(controller))  # init
    _entered = True
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _relay(child: int) -> int:
    """Pass signals on to `child` and reap whatever ends; return the exit code of `child`."""
    while True:
        received = signal.sigwait(_WATCHED)
        if received == signal.SIGCHLD:
            while ended := _reap():
                pid, code = ended
                if pid == child:
                    return code if code >= 0 else 128 - code
        else:
            # A child that has ended but was not reaped yet can still be signalled, harmlessly.
            os.kill(child, received)


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _make_private() -> None:
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    subprocess.run(
        ["ip", "link", "set", "lo", "up"], check=True, env={**os.environ, "PATH": search_path()}
    )


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    _must(_libc.mount(*encoded, flags, data.encode()), target)


def _must(result: int, path: str | None = None) -> None:
    """Raise OSError from errno if a C function failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _flush() -> None:
    """Empty the buffers that a fork would duplicate."""
    sys.stdout.flush()
    sys.stderr.flush()
