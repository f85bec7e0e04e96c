"""What a check for distinct values can answer. It never guesses."""

from typing import Any, Final, NamedTuple, TypeAlias

from labrys.checkers.text import json_text

FOREVER: Final = 1 << 60
"""The return of a crashed operation."""


class Linearizable(NamedTuple):
    """There is an order."""


class Violation(NamedTuple):
    """There is none, because of these few operations."""

    message: str
    ops: tuple[int, ...]
    """Indices of their invocations."""


class NotApplicable(NamedTuple):
    """The history is none that this check can judge, and why: a search has to."""

    reason: str


Outcome: TypeAlias = Linearizable | Violation | NotApplicable


def told(key: Any) -> str:
    """Return a value that `keyed` made as JSON text."""
    return str(key)


def keyed(value: Any) -> int | str:
    """Return what stands for a JSON value in a dict: 1, true, 1.0 and "1" are four values."""
    return value if type(value) is int else json_text(value)
