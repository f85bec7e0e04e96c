"""Delta debugging: a small part of a list that still fails.

Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002), section 3: try
parts of the list, then the list without each of them; go on with what fails, and when nothing does,
with parts of half the size.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def ddmin(items: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """Return a part of `items` that fails, in their order; `items` themselves are known to fail.

    If `fails` gives one answer to one list, none of what is returned can be left out alone. Later
    parts are tried first, and earlier ones left out first: what matters is near the failure.
    """
    rest, count = list(items), 2
    if rest and fails([]):
        return []
    while len(rest) > 1:
        parts = _split(rest, count)
        part = next((part for part in reversed(parts) if fails(part)), None)
        if part is not None:
            rest, count = part, 2
            continue
        without = (_joined(parts, but=place) for place in range(count) if count > 2)
        smaller = next((part for part in without if fails(part)), None)
        if smaller is not None:
            rest, count = smaller, count - 1
        elif count < len(rest):
            count = min(2 * count, len(rest))
        else:
            break
    return rest


def _split(items: list[T], count: int) -> list[list[T]]:
    """Cut into `count` pieces of about the same size, none of them empty."""
    bounds = [len(items) * place // count for place in range(count + 1)]
    return [items[low:high] for low, high in pairwise(bounds)]


def _joined(parts: list[list[T]], but: int) -> list[T]:
    return [item for place, part in enumerate(parts) if place != but for item in part]
