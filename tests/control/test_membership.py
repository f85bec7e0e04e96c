"""Members that are removed and come back, on a cluster that is only its states."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control.errors import UsageError
from labrys.control.nemesis.membership import MODES, TARGETS, Membership, MembershipOptions
from labrys.control.nemesis.nemesis import parse_faults
from labrys.control.nemesis.package import Planned
from labrys.control.process import State


def package(system: FakeSystem, targets: tuple[str, ...] = TARGETS) -> Membership:
    return made(system, modes=("remove",), targets=targets)


def made(system: FakeSystem, **options: Any) -> Membership:
    return Membership(FakeEnvironment(), system, MembershipOptions(**options))


class Elections(FakeSystem):
    """Whoever votes and comes first leads; notes who voted after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.leading = ("n1",)
        self.history: list[tuple[str, ...]] = []

    def change_members(self, timeout_s: float, **change: Sequence[str]) -> tuple[str, ...]:
        before = self.voters
        voters = super().change_members(timeout_s, **change)
        self.leading = voters[:1]
        if voters != before:
            self.history.append(voters)
        return voters


def test_plans_come_from_the_seed_and_name_every_mode_and_target_in_turn() -> None:
    def plans(fault: Membership, count: int) -> list[dict[str, Any]]:
        return [fault.plan(turn, "seed") for turn in range(count)]

    removals = plans(package(FakeSystem()), len(TARGETS))
    assert {plan["targets"] for plan in removals} == {*TARGETS}
    assert {plan["mode"] for plan in plans(made(FakeSystem()), len(MODES))} == {*MODES}
    assert plans(made(FakeSystem()), 20) == plans(made(FakeSystem()), 20)


def test_the_cluster_shrinks_step_by_step_and_grows_again() -> None:
    system = Elections()
    fault = made(system, modes=("shrink",))
    planned = fault.settle(fault.plan(0, "seed"))
    assert planned.targets == tuple(planned.plan["order"][:2]), "3 of 5 stay"
    assert fault.apply(planned).bit is True
    assert [len(voters) for voters in system.history] == [4, 3]
    assert fault.undo().errors == {}
    assert [len(voters) for voters in system.history] == [4, 3, 4, 5]
    assert system.voters == FIVE


def test_whoever_leads_is_removed_and_whoever_leads_then() -> None:
    system = Elections()
    fault = made(system, modes=("leader",), times=9)
    outcome = fault.apply(fault.settle(fault.plan(0, "seed")))
    assert outcome.bit is True
    assert [" ".join(voters) for voters in system.history] == ["n2 n3 n4 n5", "n3 n4 n5"]
    assert outcome.done["cluster"] == "no more leaders can be removed now"
    fault.undo()
    assert system.voters == FIVE


def test_a_dead_node_is_removed_before_it_is_emptied_and_a_new_one_joins() -> None:
    system = FakeSystem()
    fault = made(system, modes=("replace",))
    planned = fault.settle(fault.plan(0, "seed"))
    (node,) = planned.targets
    outcome = fault.apply(planned)
    assert outcome.done == {node: "died, removed, and lost its data"}
    assert outcome.bit is True
    assert system.states[node] is State.DEAD
    assert system.newcomers == {node}
    assert node not in system.voters
    assert fault.undo().errors == {}
    assert system.states[node] is State.RUNNING
    assert system.voters == FIVE


def test_a_node_that_cannot_be_removed_is_not_emptied() -> None:
    system = FakeSystem()
    system.refusing = {("change", "n3")}
    fault = made(system, modes=("replace",))
    outcome = fault.apply(fault.settle(fault.plan(0, "seed")))
    assert outcome.bit is False
    assert system.newcomers == set()
    assert {*system.states.values()} == {State.RUNNING}


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_removed_whom_the_living_cannot_spare(mode: str) -> None:
    system = FakeSystem()
    for node in ("n1", "n2", "n4"):
        system.states[node] = State.DEAD
    fault = made(system, modes=(mode,))
    planned = fault.settle(fault.plan(0, "seed"))
    assert planned.targets == ()
    assert fault.apply(planned).bit is False
    assert system.voters == FIVE


def test_the_dead_are_not_added_and_that_is_told() -> None:
    class Stubborn(FakeSystem):
        def start(self, node: str) -> None: ...

    system = Stubborn()
    system.voters = ("n1", "n2", "n3")
    system.states["n4"] = State.DEAD
    outcome = package(system).undo()
    assert outcome.errors == {"n4": "is dead, and cannot become a member"}
    assert {*outcome.done} == {*system.voters} == {"n1", "n2", "n3", "n5"}


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
    [
        ({"targets": []}, "targets: name at least one"),
        ({"targets": ["all"]}, "unknown target 'all'"),
        ({"modes": []}, "modes: name at least one"),
        ({"modes": ["grow"]}, "unknown mode 'grow'"),
        ({"times": 0}, "times: a number from 1 to 10, not 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], told: str) -> None:
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
