"""What a check for distinct values can answer. It never guesses."""

from typing import NamedTuple, TypeAlias


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
