"""The context: what a generator may know about the run when it decides what comes next.

The threads of a run are the nemesis and the clients 0 .. n-1. A thread carries out one op at a time
under a *process* number. When an op ends in `info`, its process may still be busy inside the
database for ever, so the number is retired and the thread goes on as process + n. Hence the thread
of a process is `process % n` at any time, before and after such a change.

Sets of threads are integers used as bit masks (bit 0 the nemesis, bit i + 1 client i), because
every scheduling step narrows the view of nested generators to some of the threads, and
`free & mask` is the cheapest way to say that in Python.
"""

import random
from collections.abc import Iterable, Sequence

import msgspec

from labrys.checkers.op import NEMESIS

Thread = int | str
"""A client thread's number, or NEMESIS."""

Mask = int
"""A set of threads."""

NEMESIS_MASK: Mask = 1
CLIENTS_MASK: Mask = ~NEMESIS_MASK
"""Every client thread, however many there are."""


def mask_of(threads: Iterable[Thread]) -> Mask:
    """Return the mask that stands for these threads."""
    mask = 0
    for thread in threads:
        mask |= NEMESIS_MASK if isinstance(thread, str) else 2 << thread
    return mask


def bits_of(mask: Mask) -> list[Mask]:
    """Return the one-thread masks that make up `mask`, nemesis first, then clients in order."""
    assert mask >= 0, f"not a set of known size: {mask}"
    bits = []
    while mask:
        bit = mask & -mask
        bits.append(bit)
        mask ^= bit
    return bits


class Context(msgspec.Struct, frozen=True):
    """One moment of a run, seen by a generator. Immutable, but for the state of `rng`."""

    time: int
    """Nanoseconds since the run began."""
    threads: Mask
    """The threads of this view."""
    free: Mask
    """Those of them that have no op in flight."""
    processes: tuple[int | str, ...]
    """The process of each thread of the whole run, by bit number."""
    rng: random.Random
    """The only source of randomness. A step that returns is always taken, so no draw is wasted and
    one seed gives one sequence."""

    @property
    def clients(self) -> int:
        """How many client threads the whole run has."""
        return len(self.processes) - 1

    def thread_of(self, process: int | str) -> Thread:
        """Return the thread that runs or once ran `process`."""
        return process if isinstance(process, str) else process % (len(self.processes) - 1)

    def bit_of(self, process: int | str) -> Mask:
        """Return the mask of the one thread that runs or once ran `process`."""
        if isinstance(process, str):
            return NEMESIS_MASK
        return 2 << (process % (len(self.processes) - 1))

    def process_of(self, bit: Mask) -> int | str:
        """Return the present process of the one thread in the mask `bit`."""
        return self.processes[bit.bit_length() - 1]

    def free_process(self) -> int | str | None:
        """Return the process of a free thread chosen at random, None when all are busy.

        Random, because first-come would let fast threads starve the others. Clients only, unless
        this view has no clients: an op gets to the nemesis only when somebody says so.
        """
        free = self.free & CLIENTS_MASK if self.threads & CLIENTS_MASK else self.free
        if not free:
            return None
        for _ in range(self.rng.randrange(free.bit_count())):
            free &= free - 1
        return self.processes[(free & -free).bit_length() - 1]

    def only(self, mask: Mask) -> "Context":
        """Return this context as seen by a generator that may use the threads in `mask` alone."""
        threads = self.threads & mask
        if threads == self.threads:
            return self
        return Context(self.time, threads, self.free & mask, self.processes, self.rng)

    def at(self, time: int) -> "Context":
        """Return this context at another time."""
        return Context(time, self.threads, self.free, self.processes, self.rng)

    def busy(self, time: int, process: int | str) -> "Context":
        """Return the context after `process` began an op."""
        bit = self.bit_of(process)
        assert self.free & bit, f"process {process} began an op while it was busy"
        return Context(time, self.threads, self.free ^ bit, self.processes, self.rng)

    def freed(self, time: int, process: int | str) -> "Context":
        """Return the context after `process` ended its op, the process numbers still as before."""
        bit = self.bit_of(process)
        assert not self.free & bit, f"process {process} ended an op while it was free"
        return Context(time, self.threads, self.free | bit, self.processes, self.rng)

    def retired(self, process: int) -> "Context":
        """Return the context in which the thread of `process` goes on under a fresh number."""
        place = self.bit_of(process).bit_length() - 1
        assert self.processes[place] == process, f"process {process} was retired before"
        fresh = process + self.clients
        processes = (*self.processes[:place], fresh, *self.processes[place + 1 :])
        return Context(self.time, self.threads, self.free, processes, self.rng)

    def afresh(self) -> "Context":
        """Return the context in which all threads are free under fresh process numbers."""
        numbers = [p + self.clients for p in self.processes if isinstance(p, int)]
        return context(self.clients, self.rng, time=self.time, processes=numbers)


def context(
    clients: int, rng: random.Random, *, time: int = 0, processes: Sequence[int] | None = None
) -> Context:
    """Return the context of a run's start: all threads are free.

    `processes` are the client processes to go on with, in order of threads; by default thread i is
    process i. Raises ValueError without at least one client.
    """
    if clients < 1:
        raise ValueError(f"a run needs at least one client thread, not {clients}")
    numbers = tuple(range(clients)) if processes is None else tuple(processes)
    if [number % clients for number in numbers] != list(range(clients)):
        raise ValueError(f"processes {numbers} do not fit {clients} threads")
    everybody = (2 << clients) - 1
    return Context(time, everybody, everybody, (NEMESIS, *numbers), rng)
