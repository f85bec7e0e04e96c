"""All cores for one check: calls spread over forked processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_function: Callable[[int], Any] | None = None
"""What the forked processes call: they inherit it, and all it refers to, without a copy."""


def spread(function: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield `function(0)`, `function(1)`, ... in order, worked out on all cores at once.

    Closing the iterator stops what is still going on.
    """
    global _function
    cores = min(len(os.sched_getaffinity(0)), count)
    if cores < 2 or _function is not None:
        yield from map(function, range(count))
        return
    _function = function
    try:
        with multiprocessing.get_context("fork").Pool(cores) as pool:
            yield from pool.imap(_call, range(count), chunksize=max(1, count // (8 * cores)))
    finally:
        _function = None


def _call(place: int) -> Any:
    assert _function is not None, "set before the fork"
    return _function(place)
