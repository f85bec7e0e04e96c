"""The system under test, as the nemesis sees it.

A system is a database that runs as one process in each node. Everything here may be called at any
time, in any order and twice: killing the dead, resuming the running and starting what already
runs are no errors, because an undo goes to all nodes and does not know which ones need it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from labrys.control.process import State


class DataFiles(msgspec.Struct, frozen=True):
    """Files of one kind in a node's data."""

    patterns: tuple[str, ...]
    """Where they are, as absolute paths with wildcards."""
    end_is_checked: bool
    """Whether a file that lost its end is noticed for certain. Of one that grows, such as a log,
    nobody can tell what was never written from what was lost."""


class System(Protocol):
    """A cluster whose processes can be hurt. Methods raise ClusterError when a node refuses."""

    @property
    def process_name(self) -> str:
        """The name of its process in every node, as `labrys.control.process` knows it."""

    environ: Mapping[str, Mapping[str, str]]
    """By node: variables that its process is started with, every time. Some faults need them."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that does not run backwards, simulated like the system itself."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def data_dir(self, node: str) -> str:
        """The directory in which the database keeps its data; faults may mount a disk there."""

    def start(self, node: str) -> None:
        """Start the process; one that is there already, running or paused, is left alone.

        Does not wait until the database serves.
        """

    def kill(self, node: str) -> None:
        """Kill the process with SIGKILL and wait until it is gone."""

    def pause(self, node: str) -> None:
        """Stop the process in its tracks with SIGSTOP."""

    def resume(self, node: str) -> None:
        """Let a paused process go on with SIGCONT."""

    def state(self, node: str) -> State:
        """Return whether the process runs, is stopped or is dead."""

    def leaders(self) -> tuple[str, ...]:
        """Return the nodes that call themselves leader, the newest first; nobody may.

        Must answer soon even if every node hangs.
        """

    def transfer_leadership(self, target: str, timeout_s: float) -> None:
        """Let the leader hand over to `target`, and wait until that one leads.

        Raises ClusterError when it does not within `timeout_s`; it may do so later.
        """

    def members(self) -> tuple[str, ...] | None:
        """Return the nodes that vote, as the newest leader says; None when nobody leads."""

    def change_members(
        self, timeout_s: float, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Let nodes become members or cease to be, and return who votes then.

        Who is one already, or is none, is left alone. Raises ClusterError when it is not done
        within `timeout_s`; it may be done later all the same.
        """

    def data_files(self, node: str) -> Mapping[str, DataFiles]:
        """Return where the node keeps its data, by kind: `log`, `snapshot`, `meta`."""

    def lose_data(self, node: str) -> int:
        """Remove all data of a dead process, and return how many bytes that was.

        A later `start` is that of a member that lost everything, done as the system wants it done.
        """

    def make_newcomer(self, node: str) -> None:
        """Let a dead process that is no member any more forget everything, its membership too.

        From then on `start` starts a new node of that name, which waits to be made a member.
        """

    def knows_removal(self, node: str, removed: Sequence[str]) -> bool:
        """Return whether the node will never count on a vote of `removed` while they are out.

        That a majority agreed to it does not mean that everybody knows.
        """

    def is_whole(self, node: str) -> bool | None:
        """Return whether the node knows all that it ever promised; None when it does not answer.

        One that lost its data does not until the others have told it.
        """

    def tolerated_losses(self) -> int:
        """Return how many nodes may lose their data at once, whoever of those asked for votes now.

        0 when nobody answers.
        """

    def log_end(self, node: str) -> int:
        """Return the length of the log of the node's process, in bytes."""

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        """Return the first lines that the process wrote after the log had the length `end`."""
