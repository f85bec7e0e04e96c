"""Bags (unordered queues) with distinct values: only emptiness joins the values."""

from collections.abc import Sequence

from labrys.checkers.distinct.contents import Contents, collect, judged
from labrys.checkers.distinct.outcome import Outcome
from labrys.checkers.history import Operation


def check(operations: Sequence[Operation]) -> Outcome:
    """Judge enqueues and dequeues of a bag that is empty at first, in order of invocation."""
    contents = collect(operations, "enqueue", "dequeue")
    if not isinstance(contents, Contents):
        return contents
    return judged(contents, lambda assumed: None)  # any order will do
