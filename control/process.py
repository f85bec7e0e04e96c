"""Processes in nodes: start, signal, look at and wait for them, by shell scripts.

The same scripts run in a container, in a network namespace and on a far host: all they need is
/bin/sh, `setsid` and /proc. A process is known by a name and a pid file in the node's home:

    4711 8839201          the pid, and the process's start time in clock ticks since boot

Pids are reused, and the file outlives the process (`docker kill` and a new start of the machine
even keep it), so a bare pid may name a stranger; pid and start time together name one process for
as long as the machine is up. Nothing is ever found by a pattern over command lines: a pattern
matches the shell that looks for it as well.

The pid file is written by the process's own shell just before it becomes the process (`exec`
keeps pid and start time), and `start` returns only once the file is there. So whoever calls
`kill` after `start` never misses a process that is still on its way up.

What SIGSTOP holds has a file beside the pid file, NAME.pid.held, until SIGCONT. So a program that
stops and continues a process many times a second, to slow it down, knows when to let it sleep. As
long as there is one, which its mark NAME.pid.slowed tells, only what is held counts as stopped.

Signals go to the whole process group, which `setsid` made: a database's helpers live and die
with it.
"""

import re
import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

from labrys.control.environments.base import Environment, check
from labrys.control.errors import ClusterError

KILL_TIMEOUT_S: Final = 5.0
"""How long a process may take to disappear after SIGKILL; only a hung disk makes it longer."""
_START_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.01
_SCRIPT_MARGIN_S: Final = 10.0
"""What a script may take beyond the wait that is written into it."""


class State(StrEnum):
    """What a process is doing."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Held by SIGSTOP."""
    DEAD = "dead"
    """Gone, a zombie, or never started."""


def start(env: Environment, node: str, name: str, argv: Sequence[str], log: str) -> bool:
    """Start `argv` in `node` as the process `name` and return whether it was started.

    False means that it is already there, running or stopped: there is never a second one. The
    process outlives the script; its standard input is empty and its output is appended to `log`.
    It begins in the node's home. Raises ClusterError when it could not be started at all; whether
    it then stays alive is for `state` to tell.
    """
    assert argv, "nothing to start"
    missing = shlex.quote(f"there is no program {argv[0]}")
    polls = round(_START_TIMEOUT_S / _POLL_S)
    script = f"""{_probe(env, node, name)}
probe
if [ "$state" != dead ]; then echo already; exit 0; fi
command -v {shlex.quote(argv[0])} >/dev/null || {{ echo {missing} >&2; exit 1; }}
rm -f "$file" "$file.held" && mkdir -p {shlex.quote(str(PurePosixPath(log).parent))} || exit 1
cd {shlex.quote(env.home(node))} || exit 1
setsid /bin/sh -c {shlex.quote(_BECOME)} "$file" {shlex.join(argv)} \
    </dev/null >>{shlex.quote(log)} 2>&1 &
polls={polls}
until [ -s "$file" ]; do
    polls=$((polls - 1))
    if [ $polls -le 0 ]; then echo "no pid file $file after {_START_TIMEOUT_S:g} s" >&2; exit 1; fi
    sleep {_POLL_S}
done
echo started
"""
    said = check(
        node, f"starting {name}", env.run(node, script, timeout_s=_limit(_START_TIMEOUT_S))
    )
    return said.strip() == "started"


def signal(env: Environment, node: str, name: str, signal_name: str) -> bool:
    """Send a signal (`KILL`, `STOP`, `CONT`, `TERM`, ...) and return whether there was a receiver.

    An absent or dead process is fine and gets nothing: False.
    """
    assert re.fullmatch("[A-Z0-9]+", signal_name), f"write the signal as KILL, not {signal_name!r}"
    mark = {"STOP": ': >"$file.held"', "CONT": 'rm -f "$file.held"'}.get(signal_name, ":")
    script = f"""{_probe(env, node, name)}
probe
if [ "$state" = dead ]; then echo absent; exit 0; fi
{mark}
if kill -s {signal_name} -- "-$pid"; then echo sent; exit 0; fi
probe
if [ "$state" = dead ]; then echo absent; else exit 1; fi
"""
    said = check(node, f"sending SIG{signal_name} to {name}", env.run(node, script))
    return said.strip() == "sent"


def pid_file(env: Environment, node: str, name: str) -> str:
    """Return the path in `node` of the file that says which process is `name`."""
    return f"{env.home(node)}/{name}.pid"


def go_on(env: Environment, node: str, name: str) -> None:
    """Let the process go on, unless SIGSTOP is to hold it; take the mark of a slowed one away."""
    script = f"""{_probe(env, node, name)}
rm -f "$file.slowed"
probe
if [ "$state" = dead ] || [ -e "$file.held" ]; then exit 0; fi
kill -s CONT -- "-$pid" || {{ probe; [ "$state" = dead ]; }}
"""
    check(node, f"letting {name} go on", env.run(node, script))


def state(env: Environment, node: str, name: str) -> State:
    """Return what the process `name` in `node` is doing."""
    script = f'{_probe(env, node, name)}\nprobe\necho "$state"\n'
    return State(check(node, f"looking at {name}", env.run(node, script)).strip())


def wait_gone(env: Environment, node: str, name: str, *, timeout_s: float = KILL_TIMEOUT_S) -> None:
    """Wait until the process is dead; one that was never there is. Raises ClusterError if not."""
    script = f"""{_probe(env, node, name)}
polls={round(timeout_s / _POLL_S)}
probe
while [ "$state" != dead ] && [ $polls -gt 0 ]; do
    sleep {_POLL_S}
    polls=$((polls - 1))
    probe
done
echo "$state ${{pid:-}}"
"""
    said = env.run(node, script, timeout_s=_limit(timeout_s))
    found, _, pid = check(node, f"waiting for {name}", said).strip().partition(" ")
    if State(found) is not State.DEAD:
        raise ClusterError(
            f"{node}: {name} (pid {pid}) is still {found}; waited {timeout_s:g} s for its end"
        )


def kill(env: Environment, node: str, name: str, *, timeout_s: float = KILL_TIMEOUT_S) -> bool:
    """Send SIGKILL, wait until the process is gone, and return whether there was one.

    Works on a stopped process too. Raises ClusterError if it is not gone after `timeout_s`.
    """
    was_there = signal(env, node, name, "KILL")
    wait_gone(env, node, name, timeout_s=timeout_s)
    return was_there


def _limit(wait_s: float) -> float:
    return wait_s + _SCRIPT_MARGIN_S


def _probe(env: Environment, node: str, name: str) -> str:
    """The shell function `probe`: sets `state` and `pid` for the process `name`."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name), f"not a process name: {name!r}"
    return f"file={shlex.quote(pid_file(env, node, name))}\n{_PROBE}"


# proc(5): after the command in brackets (which may itself hold spaces and brackets, hence the
# longest match) come the state, field 3, the number of threads, field 20, and the start time,
# field 22. Only builtins: a fork for each of five nodes would cost more than all the rest.
#
# A zombie with threads left is a leader whose other threads are still on their way out, with
# files, locks and ports in their hands: it counts as running until they are gone. A zombie that
# nobody reaped is dead.
_PROBE: Final = """\
probe() {
    state=dead pid= born=
    { read -r pid born; } 2>/dev/null <"$file" || return 0
    case "$pid:$born" in :* | *: | *[!0-9:]*) return 0 ;; esac
    { IFS= read -r stat; } 2>/dev/null <"/proc/$pid/stat" || return 0
    set -- ${stat##*) }
    if [ "${20}" != "$born" ]; then return 0; fi
    case "$1" in
        T)
            state=stopped
            if [ -e "$file.slowed" ] && [ ! -e "$file.held" ]; then state=running; fi
            ;;
        Z) if [ "${18}" -gt 1 ]; then state=running; fi ;;
        X | x) ;;
        *) state=running ;;
    esac
}"""

# Runs in the new session and becomes the process. Written aside and renamed, so that nobody
# reads half a pid.
_BECOME: Final = """\
born() { set -- ${1##*) }; echo "${20}"; }
IFS= read -r stat </proc/$$/stat
echo "$$ $(born "$stat")" >"$0.new" && mv "$0.new" "$0" && exec "$@"
"""
