"""The environment: places where nodes run, and what can be done to them.

Every environment offers the same few primitives, and the database, the nemesis and the log
collection are written once against them: a shell script can be run in a node, files can be put
there and fetched. A node is a machine that stays up; the processes inside are what dies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from labrys.control.environments.scripts import Ended
from labrys.control.errors import ClusterError

T = TypeVar("T")


class Output(msgspec.Struct, frozen=True):
    """What a script left: exit code and decoded output."""

    code: int
    out: str
    err: str


class Environment(Protocol):
    """Nodes, and the means to act on them."""

    @property
    def name(self) -> str:
        """docker, netns, ..."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node names, n1, n2, ..."""

    def require(self, needs: frozenset[str]) -> None:
        """Let the nodes be able to do more than usual; to be called before `provision`.

        `fuse`: mount a file system of their own by /dev/fuse.
        """

    def provision(self) -> None:
        """Make the nodes. On return each can run scripts and reach the others."""

    def address(self, node: str) -> str:
        """The IP address at which peers and clients reach `node`."""

    def home(self, node: str) -> str:
        """A directory in `node` for code, data and pid files; made by `provision`."""

    def log_dir(self, node: str) -> str:
        """A directory in `node` for logs; made by `provision`, fetched by `collect_logs`."""

    def python(self, node: str) -> str:
        """The Python interpreter in `node` that has the node's dependencies."""

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        """Run `script` with /bin/sh as root in `node` and return what it left.

        The exit code is the caller's to judge. Raises ClusterError when the script could not be
        run at all or did not end within `timeout_s`.
        """

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put files, by path below `home(node)`, into `node`."""

    def collect_logs(self, node: str, into: Path) -> None:
        """Copy the files of `log_dir(node)` into the local folder `into`; none is fine."""

    def destroy(self) -> None:
        """Remove everything that `provision` made. Idempotent; safe after a failed `provision`."""


@runtime_checkable
class Freezable(Protocol):
    """An environment that can let a whole node stand still.

    Whoever wants to run something in a node that does is refused at once, with a ClusterError.
    """

    def freeze(self, node: str) -> int:
        """Let everything in `node` stand still, once the scripts that run there have ended.

        Returns how many processes were seen to.
        """

    def thaw(self, node: str) -> bool:
        """Let everything go on that `freeze` stopped; whether there was a node that stood still."""


@runtime_checkable
class CpuLimited(Protocol):
    """An environment that can give a whole node less of the CPU."""

    def limit_cpu(self, node: str, share: float | None) -> int:
        """Give `node` this share of one core; None: all it wants.

        Returns how often it had to wait for its share so far, over its whole life.
        """


@runtime_checkable
class MemoryLimited(Protocol):
    """An environment that can give a whole node less memory."""

    def limit_memory(self, node: str, room_bytes: int | None) -> int:
        """Let `node` have so much more than it has now; None: all it wants.

        Returns how many of its processes the kernel killed for lack of memory, over its whole life.
        """


def check(node: str, what: str, output: Output) -> str:
    """Return the output of a script that must have succeeded; else raise ClusterError."""
    if output.code != 0:
        said = (output.err.strip() or output.out.strip() or "no output")[-2000:]
        raise ClusterError(f"{node}: {what} failed (exit {output.code}): {said}")
    return output.out


def output(node: str, script: str, timeout_s: float, ended: Ended) -> Output:
    """Return what a script left; raise ClusterError if it was cut off for lack of time."""
    if ended.code is None:
        said = (ended.err.strip() or ended.out.strip())[-500:]
        raise ClusterError(
            f"{node}: script did not end within {timeout_s:g} s: {script.strip()[:200]!r}"
            + (f"; it said {said!r}" if said else "")
        )
    return Output(ended.code, ended.out, ended.err)


def on_nodes(nodes: Iterable[str], action: Callable[[str], T]) -> dict[str, T]:
    """Do `action` on all nodes in parallel and return the results by node.

    All of them are tried. If some fail, raises the first failure with the others as notes. Nothing
    goes on when it returns or raises, even if the caller was interrupted while it waited: whoever
    then removes what there is would miss what a straggler is about to make.
    """
    results: dict[str, T] = {}
    failures: dict[str, BaseException] = {}

    def attempt(node: str) -> None:
        try:
            results[node] = action(node)
        except BaseException as error:
            failures[node] = error

    names = tuple(nodes)
    if names:
        side_by_side.get()([partial(attempt, node) for node in names])
    errors = [(node, failures[node]) for node in names if node in failures]
    if errors:
        first = errors[0][1]
        for node, error in errors[1:]:
            first.add_note(f"also on {node}: {error}")
        raise first
    return {node: results[node] for node in names}


def by_threads(pieces: Sequence[Callable[[], None]]) -> None:
    """Do all pieces side by side and wait for their end; none of them raises."""
    with ThreadPoolExecutor(max_workers=len(pieces)) as pool:
        futures = [pool.submit(piece) for piece in pieces]
        try:
            wait(futures)
        finally:
            # The end of the pool does not suffice: it joins the threads, and in Python 3.11 a join
            # that was interrupted takes its thread for ended from then on.
            wait(futures)


side_by_side: ContextVar[Callable[[Sequence[Callable[[], None]]], None]] = ContextVar(
    "side_by_side", default=by_threads
)
"""How several things are done at once: by threads, wherever there is no other way to be."""
