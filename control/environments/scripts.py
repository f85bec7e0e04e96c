"""Run a shell script with its output kept apart and its end bounded; over a pipe if need be.

The standard library only, and nothing of ours: netns calls `run_script` where the controller is,
docker sends this very file into each container and keeps it running there as the node's long-lived
shell (`serve`), since a new exec per script costs 56 ms. Both therefore agree on what happens to
output, background processes and scripts that do not end.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, NamedTuple


class Ended(NamedTuple):
    """How a script ended."""

    code: int | None
    """The exit code (negative: ended by that signal); None if it was cut off for lack of time."""
    out: str
    err: str


def run_script(script: str, timeout_s: float, within: Sequence[str] = ()) -> Ended:
    """Run `script` with /bin/sh, behind the command `within`, and return how it ended.

    Output goes to memory files, not pipes: a background process that still holds them cannot make
    the script seem endless, nor get its output into a later script's. When time is up the process
    group is killed; what has left it by setsid stays.
    """
    with _memory_file() as out, _memory_file() as err:
        shell = subprocess.Popen(
            [*within, "/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "PATH": search_path()},
            start_new_session=True,
        )
        in_time = _ended_within(shell.pid, timeout_s)
        if not in_time:
            os.killpg(shell.pid, signal.SIGKILL)
        code = shell.wait()
        return Ended(code if in_time else None, _content(out), _content(err))


def search_path() -> str:
    """PATH with the sbin directories, which an ordinary user's PATH often lacks."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def serve() -> None:
    """Answer requests on standard input, one JSON line each: [script, timeout_s] -> Ended."""
    for line in sys.stdin:
        script, timeout_s = json.loads(line)
        print(json.dumps(run_script(script, timeout_s)), flush=True)


def _ended_within(pid: int, timeout_s: float) -> bool:
    """Wait for a child to end, without the polling that Popen.wait does when given a time-out."""
    descriptor = os.pidfd_open(pid)
    try:
        # Not select(): it takes no descriptor above 1023, and a rig of many clients has those.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(descriptor)


def _memory_file() -> IO[bytes]:
    return open(os.memfd_create("labrys"), "w+b")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


if __name__ == "__main__":
    serve()
