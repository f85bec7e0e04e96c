"""The algebra of verdicts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.checker import Evidence, run_checker
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Verdict, combine

_VERDICTS = st.lists(st.sampled_from(Verdict), max_size=6)


@given(_VERDICTS, st.randoms())
def test_order_of_combining_does_not_matter(verdicts: list[Verdict], rng: object) -> None:
    for order in itertools.islice(itertools.permutations(verdicts), 24):
        assert combine(order) is combine(verdicts)


@given(_VERDICTS.filter(bool), _VERDICTS.filter(bool))
def test_combining_in_parts_is_combining_the_whole(
    some: list[Verdict], others: list[Verdict]
) -> None:
    assert combine([combine(some), combine(others)]) is combine(some + others)
    assert combine([*some, *some]) is combine(some)


@given(_VERDICTS)
def test_a_violation_is_never_masked(verdicts: list[Verdict]) -> None:
    assert combine([*verdicts, Verdict.INVALID]) is Verdict.INVALID


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([Verdict.INVALID, Verdict.ERROR], Verdict.INVALID),
        ([Verdict.ERROR, Verdict.UNKNOWN], Verdict.ERROR),
        ([Verdict.UNKNOWN, Verdict.VALID], Verdict.UNKNOWN),
        ([Verdict.VALID], Verdict.VALID),
        ([], Verdict.UNKNOWN),
    ],
)
def test_worst_verdict_wins_and_nothing_is_unknown(verdicts: list[Verdict], whole: Verdict) -> None:
    assert combine(verdicts) is whole


@pytest.mark.parametrize("verdict", Verdict)
def test_verdict_has_no_truth_value(verdict: Verdict) -> None:
    with pytest.raises(TypeError, match="not a bool"):
        bool(verdict)


class _Broken:
    name = "broken"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        raise KeyError("k7")


def test_crash_of_a_checker_is_its_own_error() -> None:
    result = run_checker(_Broken(), History([]), Evidence())
    assert result.verdict is Verdict.ERROR
    assert "the broken checker failed: KeyError: 'k7'" in result.summary
    assert result.hint is not None
