"""Many calls of one function, in processes side by side."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import Any

MapInOrder = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
MapAsTheyEnd = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


@contextmanager
def in_order(jobs: int) -> Iterator[MapInOrder]:
    """Yield how to call a function for many arguments, in `jobs` processes; one: in this one.

    Results come in the order of the arguments. The processes end with the block, whatever ends it.
    """
    if jobs == 1:
        yield map
        return
    with _processes(jobs) as pool:
        yield pool.imap


@contextmanager
def as_they_end(jobs: int) -> Iterator[MapAsTheyEnd]:
    """The same, but a result comes as soon as there is one."""
    if jobs == 1:
        yield map
        return
    with _processes(jobs) as pool:
        yield pool.imap_unordered


def _processes(jobs: int) -> Pool:
    # All of them are made now, before signals are handled here, and none is replaced later: one
    # that is just being made would not end with the others.
    return multiprocessing.get_context("fork").Pool(jobs, _leave_signals)


def _leave_signals() -> None:
    """Signals are for the parent: it ends the others, by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
