"""One night of a suite: what is started when, what is tried again, and when it is enough.

The rules:

- What is simulated runs in parallel, up to `jobs`; a run in a real environment has the machine for
  itself, since what runs beside it would change its timing.
- An error of the rig is tried again, up to `retries` times, and the count is told. Nothing else is:
  an invalid result stays one, and a simulated error would only be the same again.
- An invalid run is made again with its own seed `confirm` times, to tell how often it shows.
- When the budget is spent, or somebody asks to stop, nothing more is started; what goes on ends.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.spec import Spec
from labrys.control.suite.attempt import Attempt, Ended
from labrys.control.suite.plan import Run

POLL_S: Final = 0.2
"""How long a signal may go unnoticed."""

_FAILED: Final = (Verdict.INVALID, Verdict.ERROR)

BUDGET: Final = "the time budget is spent"
INTERRUPTED: Final = "interrupted"
UNTIL_FAIL: Final = "a run failed"


class Policy(msgspec.Struct, frozen=True):
    """How a night goes."""

    jobs: int = 1
    retries: int = 1
    confirm: int = 0
    budget_s: float | None = None
    until_fail: bool = False


class Case:
    """One run with all attempts at it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.attempts: list[Ended] = []
        """Errors of the rig, and last what counts."""
        self.confirming: list[Ended] = []
        """The same seed again, after it was invalid."""

    @property
    def spec(self) -> Spec:
        """The resolved test, with its seed."""
        return msgspec.structs.replace(self.run.cell.spec, seed=self.run.seed)

    @property
    def is_real(self) -> bool:
        """Whether it needs the machine for itself."""
        return self.run.cell.spec.env != "sim"

    @property
    def verdict(self) -> Verdict:
        """Of the last attempt, as all before were errors of the rig."""
        return self.attempts[-1].verdict

    def add(self, ended: Ended) -> None:
        """One more attempt has ended."""
        is_again = bool(self.attempts) and self.verdict is Verdict.INVALID
        (self.confirming if is_again else self.attempts).append(ended)

    def wants_another(self, policy: Policy) -> bool:
        """Whether there is to be a further attempt."""
        if self.verdict is Verdict.ERROR:
            return self.is_real and len(self.attempts) <= policy.retries
        return self.verdict is Verdict.INVALID and len(self.confirming) < policy.confirm


AttemptT = TypeVar("AttemptT", bound=Attempt)


class Night(Generic[AttemptT]):
    """Goes through the runs of a suite."""

    def __init__(
        self,
        passes: Iterator[list[Run]],
        policy: Policy,
        *,
        start: Callable[[Spec], AttemptT],
        wait: Callable[[Sequence[AttemptT], float], Sequence[AttemptT]],
        asked: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Nothing is started yet.

        `wait` returns which attempts have ended, after some seconds at the latest; `asked` tells
        how often somebody has asked to stop.
        """
        self._passes = passes
        self._policy = policy
        self._start = start
        self._wait = wait
        self._asked = asked
        self._clock = clock
        self._due: deque[Run] = deque()
        self._again: deque[Case] = deque()
        self._going: dict[AttemptT, Case] = {}
        self._passed_on = 0
        self._is_fresh = False
        """Whether nothing was started yet of the pass that is due."""
        self.passes_begun = 0
        self.stopped: str | None = None
        """Why nothing more is started, if there was something left."""

    def cases(self) -> Iterator[Case]:
        """Run everything; yield each case when it has ended. Call `stop` to end early."""
        began_s = self._clock()
        while True:
            self._pass_signals_on()
            while (case := self._next(began_s)) is not None:
                self._going[self._start(case.spec)] = case
            if not self._going:
                break
            for attempt in self._wait(list(self._going), POLL_S):
                case = self._going.pop(attempt)
                case.add(attempt.ended())
                if case.wants_another(self._policy) and self.stopped is None:
                    self._again.append(case)
                    continue
                if self._policy.until_fail and case.verdict in _FAILED:
                    self.stop(UNTIL_FAIL)
                yield case
        # Those that were to be tried again and were not.
        yield from self._again

    def stop(self, why: str) -> None:
        """Start nothing more; what goes on ends by itself."""
        self.stopped = self.stopped or why

    def skipped(self) -> Sequence[Run]:
        """What was due in a pass that was begun, or in the first, and was not started."""
        if self.passes_begun == 0:
            self._has_more()
        return () if self._is_fresh and self.passes_begun else tuple(self._due)

    def _pass_signals_on(self) -> None:
        """Tell those that go on to end, as often as we were told."""
        count = self._asked()
        if count > self._passed_on:
            self._passed_on = count
            self.stop(INTERRUPTED)
            for attempt in self._going:
                attempt.interrupt()

    def _next(self, began_s: float) -> Case | None:
        """Return what may be started now."""
        if self.stopped is not None or not self._has_more():
            return None
        budget_s = self._policy.budget_s
        if budget_s is not None and self._clock() - began_s >= budget_s:
            self.stop(BUDGET)
            return None
        case = self._again[0] if self._again else Case(self._due[0])
        going = self._going.values()
        if going and (case.is_real or any(other.is_real for other in going)):
            return None
        if len(going) >= self._policy.jobs:
            return None
        if self._again:
            return self._again.popleft()
        self._due.popleft()
        self.passes_begun += self._is_fresh
        self._is_fresh = False
        return case

    def _has_more(self) -> bool:
        if self._again:
            return True
        while not self._due:
            runs = next(self._passes, None)
            if runs is None:
                return False
            self._due.extend(runs)
            self._is_fresh = True
        return True
