"""The budget of a search: polled inside its loop, so that it ends in `unknown` and never hangs."""

from typing import Final

from labrys.checkers.checker import Limits

_MOVES_PER_POLL: Final = 512


class BudgetSpent(Exception):
    """A limit was reached. Says which one and which knob raises it."""

    def __init__(self, limit: str, hint: str) -> None:
        super().__init__(limit)
        self.limit = limit
        self.hint = hint


class Budget:
    """What may be spent: moves of one search, and the time and memory of the whole check.

    Moves make a verdict reproducible, time and memory keep the machine alive.
    """

    def __init__(self, limits: Limits, moves_max: int | None = None) -> None:
        self._limits = limits
        self._deadline = None if limits.clock is None else limits.clock() + limits.seconds
        self._moves_max = moves_max
        self._until_poll = 0
        self.moves = 0

    def part(self, moves_max: int) -> "Budget":
        """Return a budget of its own moves under the same deadline and memory bound.

        What it spends is not counted here: the caller does that.
        """
        part = Budget(self._limits, moves_max)
        part._deadline = self._deadline
        return part

    def spend(self, moves: int = 1) -> None:
        """Count the work of so many moves. Raises `BudgetSpent` when a limit is reached."""
        self.moves += moves
        if self._moves_max is not None and self.moves > self._moves_max:
            raise BudgetSpent(
                f"{self._moves_max} moves of the search",
                "judge it again with labrys check --moves; or use more keys, fewer operations a "
                "key, or distinct values",
            )
        self._until_poll -= moves
        if self._until_poll < 0:
            self._until_poll = _MOVES_PER_POLL
            self.poll()

    def poll(self) -> None:
        """Look at clock and memory. Raises `BudgetSpent` when a limit is reached."""
        limits = self._limits
        if (
            self._deadline is not None
            and limits.clock is not None
            and limits.clock() >= self._deadline
        ):
            raise BudgetSpent(
                f"{limits.seconds:g} s of checking",
                "raise --check-timeout (seconds); of labrys check: --timeout",
            )
        if limits.memory_used_mib is not None:
            used_mib = limits.memory_used_mib()
            if used_mib > limits.memory_mib:
                raise BudgetSpent(
                    f"{limits.memory_mib} MiB of memory ({used_mib:.0f} in use)",
                    "raise --check-memory (MiB); of labrys check: --memory",
                )
