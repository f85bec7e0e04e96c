"""The checker: what it is given and what it must answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from labrys.checkers.fault import FaultEvent
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Verdict

T = TypeVar("T")


class Spread(Protocol):
    """Calls a function with 0 to `count` - 1, on all cores, and yields the results in order."""

    def __call__(self, function: Callable[[int], T], count: int) -> Iterator[T]:
        """Spread the calls. Arguments stay in memory; only results travel between processes."""


class Limits(msgspec.Struct, frozen=True):
    """Budgets of a check. Reaching one ends in `unknown` and names it; it never ends in `valid`."""

    seconds: float = 300.0
    memory_mib: int = 4096
    moves: int = 50_000_000
    """Of the search for one key: unlike time and memory, the same on every machine."""
    clock: Callable[[], float] | None = None
    """Monotonic seconds, passed in so that checkers read no clock themselves; None: no deadline."""
    memory_used_mib: Callable[[], float] | None = None
    """Resident memory of this process; None: no memory bound."""


class Evidence(msgspec.Struct, frozen=True):
    """What a run left behind besides its history. All is optional: a bare history file has none."""

    faults: Sequence[FaultEvent] = ()
    """The ledger, in order."""
    planned_faults: tuple[str, ...] = ()
    """The fault kinds that the spec asked for: each must be seen to bite."""
    logs: Mapping[str, Sequence[str]] = {}
    """The lines of each node's log."""
    end_states: Mapping[str, Mapping[str, Any] | None] = {}
    """What each node said of itself at the end, after recovery; None: it did not answer."""
    limits: Limits = Limits()
    spread: Spread | None = None
    """How to use all cores; None: one after the other."""


class Checker(Protocol):
    """Judges a history. Pure: no I/O, no clock, no randomness."""

    @property
    def name(self) -> str:
        """The name under `checkers` in results.json."""

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Judge `history`. May raise: the caller turns an exception into `error`."""


class DataChecker(Checker, Protocol):
    """A checker of one kind of data, which can say beforehand whether a history is of that kind."""

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` naming the first operation that is none of that kind."""


def run_checker(checker: Checker, history: History, evidence: Evidence) -> CheckResult:
    """Run one checker; its own crash becomes its own `error` and leaves the others alone."""
    try:
        return checker.check(history, evidence)
    except RecursionError:  # no bug: there is always a value that is nested too deeply
        return CheckResult(
            verdict=Verdict.ERROR,
            summary="a value is nested too deeply",
            hint="the history is to hold plainer values",
        )
    except Exception as crash:  # a checker's bug must not hide what its siblings found
        return CheckResult(
            verdict=Verdict.ERROR,
            summary=f"the {checker.name} checker failed: {type(crash).__name__}: {crash}",
            hint="this is a bug in labrys: please report it with the history file",
        )
