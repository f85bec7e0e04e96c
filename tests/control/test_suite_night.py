"""A night of a suite with attempts that are made up: what is started when, and what again."""

from collections import deque
from collections.abc import Iterator, Sequence

from labrys.checkers.verdict import Verdict
from labrys.control.spec import Spec
from labrys.control.suite.attempt import Ended
from labrys.control.suite.cells import Cell
from labrys.control.suite.night import BUDGET, INTERRUPTED, UNTIL_FAIL, Case, Night, Policy
from labrys.control.suite.plan import Run

VALID, INVALID = Ended(Verdict.VALID), Ended(Verdict.INVALID, "wrong")
UNKNOWN, ERROR = Ended(Verdict.UNKNOWN, "vacuous"), Ended(Verdict.ERROR, "no nodes")


class Made:
    """An attempt whose end is known."""

    def __init__(self, rig: "Rig", spec: Spec) -> None:
        self._rig = rig
        self.name = str(spec.name)
        self.interrupted = 0

    def interrupt(self) -> None:
        self.interrupted += 1

    def ended(self) -> Ended:
        ends = self._rig.ends.get(self.name, deque())
        return ends.popleft() if ends else VALID


class Rig:
    """Starts made-up attempts that take ten seconds each, and remembers what was started."""

    def __init__(self, policy: Policy, *passes: list[Run], **ends: Sequence[Ended]) -> None:
        self.ends = {name: deque(each) for name, each in ends.items()}
        self.started: list[str] = []
        self.beside: list[tuple[str, ...]] = []
        """Who was going on each time one ended."""
        self.signals = 0
        self.signal_at_s: float | None = None
        self.told: list[Made] = []
        self.now_s = 0.0
        self.night = Night(
            iter(passes),
            policy,
            start=self._start,
            wait=self._wait,
            asked=lambda: self.signals,
            clock=lambda: self.now_s,
        )

    def run(self) -> list[Case]:
        return list(self.night.cases())

    def _start(self, spec: Spec) -> Made:
        self.started.append(str(spec.name))
        return Made(self, spec)

    def _wait(self, going: Sequence[Made], seconds: float) -> Sequence[Made]:
        if self.signal_at_s is not None and self.now_s >= self.signal_at_s and not self.signals:
            self.signals = 1
            return ()
        self.beside.append(tuple(made.name for made in going))
        self.told += [made for made in going if made.interrupted]
        self.now_s += 10.0
        return going[:1]


def runs(*names: str, env: str = "sim", number: int = 1) -> list[Run]:
    return [
        Run(Cell(name, Spec(name=name, env=env), "none", 1, "some.yaml:1"), number, seed=5)
        for name in names
    ]


def verdicts(cases: Iterator[Case] | list[Case]) -> dict[str, str]:
    return {case.run.cell.name: case.verdict.value for case in cases}


def test_simulated_runs_go_on_side_by_side_and_real_ones_alone() -> None:
    rig = Rig(Policy(jobs=2), [*runs("a", "b", "c"), *runs("r", "s", env="netns"), *runs("d")])
    rig.run()
    assert rig.started == ["a", "b", "c", "r", "s", "d"]
    assert rig.beside == [("a", "b"), ("b", "c"), ("c",), ("r",), ("s",), ("d",)]


def test_no_error_and_no_unknown_hides_what_comes_after_it() -> None:
    rig = Rig(Policy(retries=0), runs("a", "b", "c", "d"), a=[ERROR], b=[UNKNOWN], c=[INVALID])
    assert verdicts(rig.run()) == {"a": "error", "b": "unknown", "c": "invalid", "d": "valid"}
    assert rig.night.stopped is None


def test_error_of_the_rig_is_tried_again_and_the_count_is_kept() -> None:
    rig = Rig(Policy(retries=2), runs("a", env="netns"), a=[ERROR, ERROR, VALID])
    (case,) = rig.run()
    assert rig.started == ["a", "a", "a"]
    assert case.verdict is Verdict.VALID
    assert [ended.why for ended in case.attempts] == ["no nodes", "no nodes", ""]


def test_error_that_stays_is_an_error() -> None:
    rig = Rig(Policy(retries=1), runs("a", env="netns"), a=[ERROR, ERROR, VALID])
    assert verdicts(rig.run()) == {"a": "error"}
    assert rig.started == ["a", "a"]


def test_simulated_error_would_be_the_same_and_is_not_tried_again() -> None:
    rig = Rig(Policy(retries=5), runs("a"), a=[ERROR, VALID])
    assert verdicts(rig.run()) == {"a": "error"}
    assert rig.started == ["a"]


def test_invalid_is_never_run_again_to_green() -> None:
    rig = Rig(Policy(retries=5), runs("a", env="netns"), a=[INVALID, VALID])
    assert verdicts(rig.run()) == {"a": "invalid"}
    assert rig.started == ["a"]
    rig = Rig(Policy(retries=5, confirm=3), runs("a", env="netns"), a=[INVALID, VALID, ERROR])
    (case,) = rig.run()
    assert case.verdict is Verdict.INVALID
    assert rig.started == ["a"] * 4
    assert [ended.verdict.value for ended in case.confirming] == ["valid", "error", "valid"]


def test_invalid_after_an_error_of_the_rig_is_confirmed_too() -> None:
    rig = Rig(Policy(confirm=1), runs("a", env="netns"), a=[ERROR, INVALID, INVALID])
    (case,) = rig.run()
    assert (case.verdict, len(case.attempts), len(case.confirming)) == (Verdict.INVALID, 2, 1)


def test_unknown_is_neither_tried_again_nor_confirmed() -> None:
    rig = Rig(Policy(retries=3, confirm=3), runs("a", env="netns"), a=[UNKNOWN])
    assert verdicts(rig.run()) == {"a": "unknown"}
    assert rig.started == ["a"]


def test_spent_budget_starts_nothing_more_and_lets_what_goes_on_end() -> None:
    rig = Rig(Policy(jobs=2, budget_s=15.0), runs("a", "b", "c", "d", "e"))
    assert verdicts(rig.run()) == {"a": "valid", "b": "valid", "c": "valid"}
    assert rig.night.stopped == BUDGET
    assert [run.cell.name for run in rig.night.skipped()] == ["d", "e"]


def test_budget_that_ends_with_the_last_run_has_stopped_nothing() -> None:
    rig = Rig(Policy(budget_s=15.0), runs("a", "b"))
    rig.run()
    assert rig.night.stopped is None
    assert not rig.night.skipped()


def test_spent_budget_ends_retries_and_confirmations_without_losing_the_run() -> None:
    rig = Rig(
        Policy(retries=3, budget_s=15.0), runs("a", env="netns"), a=[ERROR, ERROR, VALID, VALID]
    )
    assert verdicts(rig.run()) == {"a": "error"}
    assert rig.started == ["a", "a"]
    rig = Rig(Policy(confirm=5, budget_s=25.0), runs("a"), a=[INVALID] * 9)
    (case,) = rig.run()
    assert (case.verdict, len(case.confirming)) == (Verdict.INVALID, 2)


def test_signal_is_passed_on_once_and_the_rest_is_skipped() -> None:
    rig = Rig(Policy(jobs=2), runs("a", "b", "c", "d"))
    rig.signal_at_s = 10.0
    assert verdicts(rig.run()) == {"a": "valid", "b": "valid", "c": "valid"}
    assert rig.night.stopped == INTERRUPTED
    assert [(made.name, made.interrupted) for made in rig.told] == [("b", 1), ("c", 1), ("c", 1)]
    assert [run.cell.name for run in rig.night.skipped()] == ["d"]


def test_signal_before_the_first_run_skips_all() -> None:
    rig = Rig(Policy(), runs("a", "b"))
    rig.signals = 1
    assert rig.run() == []
    assert [run.cell.name for run in rig.night.skipped()] == ["a", "b"]


def test_passes_are_begun_one_after_the_other_and_what_never_began_is_not_skipped() -> None:
    rig = Rig(Policy(budget_s=15.0), runs("a", "b"), runs("a", "b", number=2))
    rig.run()
    assert rig.started == ["a", "b"]
    assert (rig.night.passes_begun, rig.night.stopped) == (1, BUDGET)
    assert not rig.night.skipped()


def test_until_fail_goes_on_to_the_first_that_is_invalid_or_fails() -> None:
    ends = {"a": [VALID, VALID, INVALID], "b": [UNKNOWN]}
    rig = Rig(Policy(until_fail=True), *(runs("a", "b", number=n) for n in range(1, 9)), **ends)
    assert rig.run()[-1].verdict is Verdict.INVALID
    assert rig.started == ["a", "b", "a", "b", "a"]
    assert (rig.night.passes_begun, rig.night.stopped) == (3, UNTIL_FAIL)
    assert [run.cell.name for run in rig.night.skipped()] == ["b"]
