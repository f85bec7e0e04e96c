"""Which removals a cluster can stand, as data, and how a node is replaced."""

import pytest
from tests.control.nemesis_fakes import FIVE, FakeSystem

from labrys.control.errors import ClusterError
from labrys.control.nemesis.members import removable, replace


@pytest.mark.parametrize(
    ("voters", "whole", "wanted", "least", "chosen"),
    [
        (FIVE, FIVE, ("n5", "n1"), 1, ("n5", "n1")),
        (FIVE, FIVE, FIVE, 3, ("n1", "n2")),
        (FIVE, FIVE, ("n1", "n1"), 1, ("n1",)),
        # Who is no member cannot be removed.
        (("n1", "n2", "n3"), FIVE, ("n4", "n1"), 1, ("n1",)),
        # Of n1, n3, n4, n5 only two would be left to answer: n2 must stay, the dead n4 need not.
        (FIVE, ("n1", "n2", "n3"), ("n2", "n4"), 1, ("n4",)),
        # The dead one may always go.
        (("n1", "n2", "n3"), ("n1", "n2"), ("n1", "n3"), 1, ("n3",)),
        # Nobody could agree on anything now.
        (FIVE, ("n1", "n2"), ("n5",), 1, ()),
        ((), FIVE, ("n1",), 1, ()),
        (("n1",), ("n1",), ("n1",), 1, ()),
    ],
)
def test_only_so_many_go_that_the_rest_can_agree(
    voters: tuple[str, ...],
    whole: tuple[str, ...],
    wanted: tuple[str, ...],
    least: int,
    chosen: tuple[str, ...],
) -> None:
    assert removable(voters, whole, wanted, least=least) == chosen


def test_a_node_is_emptied_only_after_it_was_removed_and_comes_back_as_a_new_one() -> None:
    system = FakeSystem()
    replace(system, "n2", 1.0)
    assert [what for what, _ in system.calls] == ["kill", "change", "newcomer", "start", "change"]
    assert system.voters == FIVE
    assert system.newcomers == {"n2"}


def test_a_node_keeps_its_data_when_it_cannot_be_removed() -> None:
    system = FakeSystem()
    system.refusing = {("change", "n3")}
    with pytest.raises(ClusterError, match="change refused"):
        replace(system, "n2", 1.0)
    assert system.newcomers == set()
