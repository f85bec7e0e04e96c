"""Members that are removed and come back, on a cluster that is only its states."""

from collections.abc import Sequence

import pytest
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control.errors import UsageError
from labrys.control.nemesis.membership import TARGETS, Membership, MembershipOptions
from labrys.control.nemesis.nemesis import parse_faults
from labrys.control.nemesis.package import Planned


def package(system: FakeSystem, targets: tuple[str, ...] = TARGETS) -> Membership:
    return Membership(FakeEnvironment(), system, MembershipOptions(targets=targets))


def test_plans_come_from_the_seed_and_name_every_target_in_turn() -> None:
    fault = package(FakeSystem())
    plans = [fault.plan(turn, "seed") for turn in range(len(TARGETS))]
    assert {plan["targets"] for plan in plans} == {*TARGETS}
    assert plans == [package(FakeSystem()).plan(turn, "seed") for turn in range(len(TARGETS))]


def test_the_leader_is_removed_and_comes_back() -> None:
    system = FakeSystem()
    fault = package(system, targets=("leader",))
    planned = fault.settle(fault.plan(0, "seed"))
    assert planned.targets == ("n3",)
    outcome = fault.apply(planned)
    assert outcome.bit is True
    assert outcome.observed == {"members": ("n1", "n2", "n4", "n5")}
    assert fault.undo().errors == {}
    assert system.voters == FIVE


def test_a_cluster_that_refuses_was_not_hurt_and_nothing_went_wrong() -> None:
    system = FakeSystem()
    system.refusing = {("change", "n3")}
    outcome = package(system).apply(Planned(("n1",), {"nodes": ["n1"]}))
    assert outcome.bit is False
    assert outcome.errors == {}
    assert outcome.done["n1"].startswith("not removed: ")


def test_an_undo_that_does_not_succeed_says_so() -> None:
    system = FakeSystem()
    system.refusing = {("change", "n3")}
    assert "change refused" in package(system).undo().errors["cluster"]


@pytest.mark.parametrize(
    ("options", "told"),
    [({"targets": []}, "name at least one"), ({"targets": ["all"]}, "unknown target 'all'")],
)
def test_bad_options_are_refused(options: dict[str, list[str]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_faults({"membership": options}, FIVE)


def test_a_cluster_in_which_nobody_can_be_spared_is_refused() -> None:
    with pytest.raises(UsageError, match="none can be removed"):
        parse_faults(["membership"], ("n1",))


def test_at_the_end_the_undo_may_take_its_time() -> None:
    waited: list[float] = []

    class Patient(FakeSystem):
        def change_members(self, timeout_s: float, **change: Sequence[str]) -> tuple[str, ...]:
            waited.append(timeout_s)
            return self.voters

    fault = package(Patient())
    fault.undo()
    fault.undo_for_good()
    assert waited[0] < waited[1]
