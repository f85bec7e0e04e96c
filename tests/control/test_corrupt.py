"""Damaged and lost data, on a cluster of real files and imagined processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.control.loopback import LoopbackEnvironment
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control.environments.base import Output
from labrys.control.errors import ClusterError, UsageError
from labrys.control.nemesis.corrupt import DAMAGES, Corrupt, CorruptOptions
from labrys.control.nemesis.nemesis import parse_faults
from labrys.control.nemesis.package import Planned
from labrys.control.process import State
from labrys.control.systems.base import DataFiles

SOUND = b"x" * 1000


class Files(FakeSystem):
    """Nodes that each keep a log and refuse to start when a byte of it is another."""

    def __init__(self, env: LoopbackEnvironment) -> None:
        super().__init__(env.nodes)
        self.env = env
        self.voters_at_start: dict[str, tuple[str, ...]] = {}
        for node in env.nodes:
            self.log(node).write_bytes(SOUND)

    def log(self, node: str) -> Path:
        return Path(self.env.home(node), "log")

    def data_files(self, node: str) -> Mapping[str, DataFiles]:
        home = self.env.home(node)
        return {
            "log": DataFiles((f"{home}/log",), end_is_checked=False),
            "snapshot": DataFiles((f"{home}/snapshot-*",), end_is_checked=True),
            "meta": DataFiles((f"{home}/meta",), end_is_checked=True),
        }

    def is_damaged(self, node: str) -> bool:
        log = self.log(node)
        return log.exists() and log.read_bytes().strip(b"x") != b""

    def start(self, node: str) -> None:
        if self.states[node] is State.DEAD:
            self.voters_at_start[node] = self.voters
        super().start(node)
        if self.is_damaged(node):
            self.states[node] = State.DEAD

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        return ("the log is damaged",) if self.is_damaged(node) else ("event=boot",)

    def lose_data(self, node: str) -> int:
        self.log(node).unlink(missing_ok=True)
        return super().lose_data(node)

    def make_newcomer(self, node: str) -> None:
        super().make_newcomer(node)
        self.log(node).unlink(missing_ok=True)


@pytest.fixture
def env(tmp_path: Path) -> LoopbackEnvironment:
    made = LoopbackEnvironment(FIVE, tmp_path, print)
    made.provision()
    return made


def fault(system: Files, **options: Any) -> Corrupt:
    return Corrupt(system.env, system, CorruptOptions(**options))


def strike(package: Corrupt, turn: int = 0) -> tuple[Planned, Any]:
    planned = package.settle(package.plan(turn, "seed"))
    return planned, package.apply(planned)


def test_plans_come_from_the_seed_and_name_every_damage_in_turn() -> None:
    def plans() -> list[dict[str, Any]]:
        package = Corrupt(FakeEnvironment(), FakeSystem(), CorruptOptions())
        return [package.plan(turn, "seed") for turn in range(len(DAMAGES))]

    assert plans() == plans()
    assert {plan["damage"] for plan in plans()} == {*DAMAGES}


def test_flipped_bits_are_refused_and_the_node_is_replaced(env: LoopbackEnvironment) -> None:
    system = Files(env)
    package = fault(system, damages=("flip",), targets=(("n2",),), files=("log",), bits=(3,))
    _, outcome = strike(package)
    assert outcome.bit is True
    assert outcome.done == {"n2": "refuses to start"}
    seen = outcome.observed["n2"]
    assert seen["said"] == "the log is damaged"
    assert (seen["bits"], seen["size_bytes"]) == (3, 1000)
    assert system.voters == FIVE, "it is left to the undo"
    assert package.undo().done == {"n2": "replaced"}
    assert system.newcomers == {"n2"}
    assert {*system.states.values()} == {State.RUNNING}
    assert package.undo().done == {}


def test_a_log_loses_its_end_only_while_its_node_is_no_member(env: LoopbackEnvironment) -> None:
    system = Files(env)
    package = fault(system, damages=("truncate",), targets=(("n2",),), files=("log",))
    _, outcome = strike(package)
    assert outcome.done == {"n2": "serves"}
    assert system.voters_at_start["n2"] == ("n1", "n3", "n4", "n5")
    assert package.undo().done == {"n2": "takes full part"}
    assert system.voters == FIVE


def test_a_node_that_cannot_be_removed_keeps_its_log(env: LoopbackEnvironment) -> None:
    system = Files(env)
    system.refusing = {("change", "n3")}
    package = fault(system, damages=("truncate",), targets=(("n2",),), files=("log",))
    _, outcome = strike(package)
    assert outcome.bit is False
    assert system.log("n2").read_bytes() == SOUND
    assert system.states["n2"] is State.RUNNING


def test_a_log_is_left_alone_while_somebody_may_not_know_of_the_removal(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    system.pause("n4")
    package = fault(system, damages=("truncate",), targets=(("n2",),), files=("log",))
    _, outcome = strike(package)
    assert outcome.bit is False
    assert outcome.done == {"n2": "killed, not hurt: n4 may not know of the removal"}
    assert system.log("n2").read_bytes() == SOUND
    system.resume("n4")
    assert package.undo().done == {"n2": "takes full part"}
    assert system.voters == FIVE


def test_beyond_the_bounds_a_member_starts_on_the_rest_of_its_log(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    package = fault(system, damages=("truncate",), targets=("all",), files=("log",), beyond=True)
    planned, outcome = strike(package)
    assert planned.targets == FIVE
    assert outcome.done == dict.fromkeys(FIVE, "serves")
    assert system.voters_at_start["n2"] == FIVE


def test_where_there_is_no_such_file_another_is_damaged(env: LoopbackEnvironment) -> None:
    system = Files(env)
    package = fault(system, damages=("flip",), targets=(("n2",),), files=("snapshot",))
    _, outcome = strike(package)
    assert outcome.observed["n2"]["file"].endswith("/log")
    package = fault(system, damages=("truncate",), targets=(("n4",),), files=("snapshot",))
    _, outcome = strike(package)
    assert outcome.bit is False, "a log is not cut in the place of a snapshot"
    assert system.log("n4").read_bytes() == SOUND


def test_lost_data_is_counted_until_the_node_knows_what_it_promised(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    package = fault(system, damages=("lose-data",), targets=("all",))
    planned, outcome = strike(package)
    assert len(planned.targets) == 2, "no more than the cluster tolerates"
    assert outcome.observed == {node: {"lost_bytes": 7} for node in planned.targets}
    for what in ("starts without data", "serves, and finds out what it forgot"):
        assert package.undo().done == dict.fromkeys(sorted(planned.targets), what)
    again, outcome = strike(package, turn=1)
    assert again.targets == planned.targets, "they may lose it again"
    hurt = ", ".join(planned.targets)
    assert again.plan["note"].endswith(f"spared: {hurt} not mended yet")
    system.tolerated = 1
    package.undo()
    system.blank.clear()
    assert {*package.undo().done.values()} == {"takes full part"}
    assert len(strike(package, turn=2)[0].targets) == 1


def test_a_removed_node_that_is_hurt_again_becomes_a_member_all_the_same(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    strike(fault(system, damages=("truncate",), targets=(("n2",),), files=("log",)))
    assert "n2" not in system.voters
    package = fault(system, damages=("lose-data",), targets=(("n2",),))
    strike(package)
    package.undo()
    assert system.voters == FIVE


def test_a_node_that_another_fault_removed_is_a_member_again_in_the_end(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    package = fault(system, damages=("lose-data",), targets=(("n2",),))
    strike(package)
    system.change_members(1.0, remove=("n2",))  # and its undo comes after this one
    system.start("n2")
    assert package.undo().done == {"n2": "serves, and finds out what it forgot"}
    assert "n2" not in system.voters, "it is left to whoever removed it"
    system.blank.clear()
    assert package.undo_for_good().errors == {}
    assert "n2" in system.voters


def test_who_was_hurt_before_is_mended_before_others_are_hurt(env: LoopbackEnvironment) -> None:
    system = Files(env)
    strike(fault(system, damages=("lose-data",), targets=(("n1", "n2"),)))
    system.blank.clear()
    for node in ("n1", "n2"):
        system.start(node)
    planned, _ = strike(fault(system, damages=("lose-data",), targets=(("n4", "n5"),)))
    assert planned.targets == ("n4", "n5")


def test_nobody_is_hurt_while_nobody_can_tell_how_many_may_be(env: LoopbackEnvironment) -> None:
    system = Files(env)
    system.tolerated = 0
    package = fault(system, targets=(("n2",),))
    planned, outcome = strike(package)
    assert planned.targets == ()
    assert planned.plan["note"] == "n2 spared: nobody may be lost now"
    assert outcome.bit is False


def test_another_rig_mends_what_a_dead_one_left_and_says_which_node_it_cannot(
    env: LoopbackEnvironment,
) -> None:
    system = Files(env)
    dead = fault(system, damages=("flip",), targets=(("n1", "n2"),), files=("log",))
    strike(dead)

    class Broken(LoopbackEnvironment):
        def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
            if node == "n1":
                raise ClusterError("n1: no answer")
            return super().run(node, script, timeout_s=timeout_s)

    broken = Broken(FIVE, env.run_dir, print)
    outcome = Corrupt(broken, system, CorruptOptions()).undo()
    assert outcome.done == {"n2": "replaced"}
    assert outcome.errors == {"n1": "no answer"}
    assert Corrupt(env, system, CorruptOptions()).undo_for_good().errors == {}
    assert {*system.states.values()} == {State.RUNNING}
    assert system.voters == FIVE


def test_at_the_end_who_refuses_is_replaced_even_without_a_mark(env: LoopbackEnvironment) -> None:
    system = Files(env)
    system.kill("n4")
    system.log("n4").write_bytes(b"y")
    package = fault(system)
    assert package.undo().done == {}
    assert package.undo_for_good().errors == {}
    assert system.newcomers == {"n4"}


def test_a_new_run_does_not_begin_with_damaged_data(env: LoopbackEnvironment) -> None:
    system = Files(env)
    strike(fault(system, damages=("flip",), targets=(("n2",),), files=("log",)))
    package = fault(system)
    package.set_up()
    assert system.nodes_of("lose") == ["n2"]
    package.set_up()
    assert system.nodes_of("lose") == ["n2"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"damages": []}, "damages: name at least one of flip, truncate, lose-data"),
        ({"damages": ["flips"]}, "unknown damage 'flips'; did you mean 'flip'"),
        ({"files": []}, "files: name at least one of log, snapshot, meta"),
        ({"files": ["logs"]}, "unknown file 'logs'; did you mean 'log'"),
        ({"bits": [0]}, "bits: numbers from 1 to 10000, not 0"),
        ({"bits": []}, "bits: numbers from 1 to 10000, not nothing"),
        ({"cut_percent": [101]}, "cut_percent: more than 0 and at most 100, not 101"),
        ({"targets": ["leaders"]}, "unknown target 'leaders'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_faults({"corrupt": options}, FIVE)


def test_with_two_nodes_none_may_lose_its_data() -> None:
    with pytest.raises(UsageError, match="of 2 node"):
        parse_faults(["corrupt"], ("n1", "n2"))
    parse_faults({"corrupt": {"beyond": True}}, ("n1", "n2"))
