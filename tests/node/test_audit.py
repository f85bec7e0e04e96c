"""The corruption check: who differs from a majority is told so, and nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.node.audit import AUDIT_EVERY, REMEMBERED, Audit, DivergedState
from labrys.node.bugs import BUGS
from labrys.node.configuration import Configuration
from labrys.node.messages import Diverged, StateReport

THREE = Configuration(("n1", "n2", "n3"))
AT = AUDIT_EVERY


def test_the_one_that_differs_is_told() -> None:
    audit = Audit("n1")
    assert audit.hear("n1", audit.note(AT, 7), THREE) == []
    assert audit.hear("n2", StateReport(AT, 8), THREE) == []
    assert audit.hear("n3", StateReport(AT, 7), THREE) == [("n2", Diverged(AT, 7))]


def test_a_leader_that_differs_stops_itself() -> None:
    audit = Audit("n1")
    audit.hear("n1", audit.note(AT, 6), THREE)
    audit.hear("n2", StateReport(AT, 7), THREE)
    ((node, verdict),) = audit.hear("n3", StateReport(AT, 7), THREE)
    assert node == "n1"
    with pytest.raises(DivergedState, match=f"at index {AT}"):
        audit.check(verdict)


def test_without_a_majority_nothing_is_concluded() -> None:
    audit = Audit("n1")
    for number, node in enumerate(THREE.voters):
        assert audit.hear(node, StateReport(AT, number), THREE) == []


def test_learners_and_strangers_do_not_count() -> None:
    audit = Audit("n1")
    members = Configuration(("n1", "n2", "n3"), learners=("n4",))
    audit.hear("n1", audit.note(AT, 7), members)
    audit.hear("n4", StateReport(AT, 8), members)
    assert audit.hear("n9", StateReport(AT, 8), members) == []
    assert set(audit.hear("n2", StateReport(AT, 7), members)) == {
        ("n4", Diverged(AT, 7)),
        ("n9", Diverged(AT, 7)),
    }


def test_what_a_node_cannot_compare_it_does_not_believe() -> None:
    audit = Audit("n1")
    audit.check(Diverged(AT, 1))
    audit.note(AT, 7)
    audit.check(Diverged(AT, 7))
    audit.check(Diverged(2 * AT, 8))
    for times in range(2, REMEMBERED + 2):
        audit.note(times * AT, 7)
    audit.check(Diverged(AT, 8))  # Too long ago.


@pytest.mark.parametrize("index", [0, -AT, AT + 1])
def test_reports_of_other_indexes_are_passed_over(index: int) -> None:
    audit = Audit("n1")
    for node in THREE.voters:
        assert audit.hear(node, StateReport(index, ord(node[1])), THREE) == []


reports = st.tuples(st.sampled_from("abcde"), st.integers(1, 40), st.integers(0, 1))


@given(st.lists(reports, max_size=80))
def test_who_agrees_with_the_majority_is_never_accused(said: list[tuple[str, int, int]]) -> None:
    audit = Audit("a")
    five = Configuration(tuple("abcde"))
    last: dict[tuple[str, int], int] = {}
    for node, times, state_hash in said:
        last[node, times] = state_hash
        for accused, verdict in audit.hear(node, StateReport(times * AT, state_hash), five):
            at = verdict.index // AT
            holders = [n for n in "abcde" if last.get((n, at)) == verdict.state_hash]
            assert len(holders) >= 3
            assert last[accused, at] != verdict.state_hash
    assert len(audit._reports) <= REMEMBERED


def test_a_faulty_variant_does_not_give_itself_away() -> None:
    for bug in BUGS.values():
        audit = bug.parts.audit("n1")
        audit.note(AT, 7)
        audit.check(Diverged(AT, 8))
