"""Many calls of one function, in processes side by side."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MapInOrder = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


@contextmanager
def in_order(jobs: int) -> Iterator[MapInOrder]:
    """Yield how to call a function for many arguments, in `jobs` processes; one: in this one.

    Results come in the order of the arguments. The processes end with the block, whatever ends it.
    """
    if jobs == 1:
        yield map
        return
    # All of them are made now, before signals are handled here, and none is replaced later: one
    # that is just being made would not end with the others.
    with multiprocessing.get_context("fork").Pool(jobs, _leave_signals) as pool:
        yield pool.imap


def _leave_signals() -> None:
    """Signals are for the parent: it ends the others, by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
