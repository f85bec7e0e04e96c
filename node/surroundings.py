"""What a running node needs of the world: time, randomness, peers, a disk that works beside it.

`server` gives it the real ones: an event loop, sockets and threads. A simulation gives it its own,
and the very same `engine.Engine` runs in both.
"""

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Protocol, TypeVar

from labrys.node.effects import Persist
from labrys.node.errors import DiskFull
from labrys.node.logline import Say
from labrys.node.messages import Message, NodeId, RaftMessage
from labrys.node.probes import Reach
from labrys.node.storage import Received, Storage

Address = tuple[str, int]
Messages = tuple[tuple[NodeId, RaftMessage], ...]
Job = tuple[Persist | None, Messages]
"""A batch for the disk, and the messages that may leave when it and all before it are there."""
Chore = Callable[[], object]

T = TypeVar("T")


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not make it."""
        ...

    def when(self) -> float:
        """When it is due, by `Scheduler.time`."""
        ...


class Scheduler(Protocol):
    """Calls in turns, one after the other. An asyncio loop is one."""

    def time(self) -> float:
        """Seconds on a clock that does not run backwards."""
        ...

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call it at the end of this turn."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call it when `delay` seconds are over."""
        ...


class Peers(Protocol):
    """The links to other nodes."""

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send a message; False if it was dropped at once and certainly not sent."""
        ...

    def update(self, addresses: Mapping[NodeId, Address]) -> None:
        """These are the members from now on."""
        ...


class LogWriter(Protocol):
    """Runs `Storage.write` beside the node; batches come back in the order they were given in."""

    def submit(self, job: Job) -> None:
        """Queue a job; one that has nothing for the disk and nothing before it is done at once."""
        ...

    def submit_chore(self, chore: Chore) -> None:
        """Queue something else that must not happen during a write, such as tidying up."""
        ...


class Surroundings(Protocol):
    """All of it."""

    scheduler: Scheduler
    rng: random.Random
    """For what may be known, such as election timeouts."""
    say: Say
    now_ms: Callable[[], int]
    """A clock that does not run backwards."""
    wall_ms: Callable[[], int]
    """The time of day, since 1970."""

    reach: Reach
    """Told of the rare states that the node gets into."""

    def new_id(self) -> int:
        """A number below 2^62 that no other life of any node has."""
        ...

    def connect(
        self, on_message: Callable[[NodeId, Message], None], on_lost: Callable[[NodeId], None]
    ) -> Peers:
        """Links to peers, which tell of messages and of peers that were lost."""
        ...

    def write_behind(
        self,
        storage: Storage,
        on_done: Callable[[list[Job], list[Received]], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[DiskFull | None], None],
    ) -> LogWriter:
        """A writer. `on_full` is told when the disk has become full, and None when it has room."""
        ...

    def work_aside(self, work: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """Do long work beside the node, one piece at a time; `done` is called in a turn."""
        ...

    def write_text(self, text: str) -> None:
        """Put several lines into the log as they are."""
        ...

    def end(self, code: int) -> None:
        """The node has come to its end, with this exit code; called once."""
        ...
