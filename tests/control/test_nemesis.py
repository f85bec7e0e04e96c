"""The nemesis: what it plans, does, records and undoes, on a cluster made of dictionaries."""

import errno
import itertools
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.ledger import Ledger, in_force, read_ledger
from labrys.control.nemesis import aimed
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.kill import Kill
from labrys.control.nemesis.nemesis import (
    PACKAGES,
    Nemesis,
    assert_possible,
    build_packages,
    parse_faults,
)
from labrys.control.nemesis.partition import GROUPS
from labrys.control.nemesis.pause import Pause
from labrys.control.nemesis.schedule import Timetable
from labrys.control.nemesis.targets import TARGETS
from labrys.control.process import State
from labrys.workloads import generator as gen
from labrys.workloads.simulate import simulate

ALL = ("partition", "kill", "pause")


class Rig:
    """A nemesis with everything around it."""

    def __init__(self, path: Path, faults: Any = ALL, seed: int = 1) -> None:
        self.env = FakeEnvironment()
        self.system = FakeSystem()
        self.path = path
        self.ledger = Ledger(path, lambda: 0)
        packages = build_packages(faults, self.env, self.system)
        self.nemesis = Nemesis(packages, self.ledger, random.Random(seed))

    def play(self, f: str, value: Any = None) -> Op:
        return self.nemesis.invoke(Op(type=OpType.INFO, process=NEMESIS, f=f, value=value))

    @property
    def events(self) -> tuple[FaultEvent, ...]:
        return read_ledger(self.path)

    @property
    def stages(self) -> list[str]:
        return [event.stage.value for event in self.events]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "faults.jsonl")
    yield made
    made.ledger.close()


def nodes(*names: str) -> dict[str, Any]:
    return {"targets": "named", "nodes": list(names)}


# --- Kills and pauses -----------------------------------------------------------------------------


def test_kill_hits_its_targets_and_start_goes_to_all_nodes(rig: Rig) -> None:
    done = rig.play("kill", nodes("n2", "n4"))
    assert rig.system.nodes_of("kill") == ["n2", "n4"]
    assert done.type is OpType.INFO
    assert done.value["done"] == {"n2": "killed", "n4": "killed"}
    assert done.value["bit"] is True
    assert done.error is None
    undone = rig.play("start")
    assert rig.system.nodes_of("start") == list(FIVE)
    assert undone.value["done"]["n2"] == "is running, was dead"
    assert undone.value["done"]["n1"] == "is running"
    assert set(rig.system.states.values()) == {State.RUNNING}


def test_pause_hits_its_targets_and_resume_goes_to_all_nodes(rig: Rig) -> None:
    done = rig.play("pause", nodes("n5"))
    assert done.value["observed"] == {"n5": {"before": "running", "after": "stopped"}}
    assert done.value["bit"] is True
    rig.play("resume")
    assert rig.system.nodes_of("resume") == list(FIVE)
    assert set(rig.system.states.values()) == {State.RUNNING}


def test_killing_what_is_dead_already_is_no_error_and_no_evidence(rig: Rig) -> None:
    rig.system.states["n2"] = State.DEAD
    done = rig.play("kill", nodes("n2"))
    assert done.error is None
    assert done.value["bit"] is False
    assert done.value["done"] == {"n2": "is dead, was dead"}


def test_pausing_a_dead_node_is_no_error_and_no_evidence(rig: Rig) -> None:
    rig.play("kill", nodes("n2"))
    done = rig.play("pause", nodes("n2"))
    assert done.error is None
    assert done.value["bit"] is False
    assert rig.play("resume").error is None, "resuming the dead is fine"


def test_pause_that_catches_one_of_two_has_bitten(rig: Rig) -> None:
    rig.play("kill", nodes("n2"))
    assert rig.play("pause", nodes("n1", "n2")).value["bit"] is True


def test_paused_node_can_be_killed_and_comes_back_running(rig: Rig) -> None:
    rig.play("pause", nodes("n2"))
    killed = rig.play("kill", nodes("n2"))
    assert killed.value["observed"] == {"n2": {"before": "stopped", "after": "dead"}}
    assert killed.value["bit"] is True
    rig.play("start")
    rig.play("resume")
    assert rig.system.states["n2"] is State.RUNNING


def test_start_leaves_a_paused_node_paused(rig: Rig) -> None:
    rig.play("pause", nodes("n2"))
    rig.play("kill", nodes("n1"))
    undone = rig.play("start")
    assert undone.error is None
    assert undone.value["done"]["n2"] == "is stopped"


def test_signal_that_does_nothing_is_no_evidence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrys.control.nemesis.processes.SETTLE_TIMEOUT_S", 0)
    monkeypatch.setattr(rig.system, "pause", lambda node: None)
    assert rig.play("pause", nodes("n2")).value["bit"] is False


def test_undo_that_does_nothing_is_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrys.control.nemesis.processes.SETTLE_TIMEOUT_S", 0)
    rig.play("pause", nodes("n2"))
    monkeypatch.setattr(rig.system, "resume", lambda node: None)
    undone = rig.play("resume")
    assert undone.error == "n2: the process is still stopped after it was undone"
    assert rig.stages[-1] == "failed"


def test_leader_is_looked_up_when_the_moment_has_come(rig: Rig) -> None:
    plan = {"targets": "leader", "fallback": "n1"}
    rig.system.leading = ("n4", "n3")
    done = rig.play("kill", plan)
    assert done.value["nodes"] == ["n4"]
    assert rig.events[0].targets == ("n4",)
    assert "note" not in rig.events[0].plan


def test_without_a_leader_the_substitute_is_hit_and_the_ledger_says_so(rig: Rig) -> None:
    rig.system.leading = ()
    rig.play("kill", {"targets": "leader", "fallback": "n1"})
    assert rig.events[0].targets == ("n1",)
    assert "no leader answered" in rig.events[0].plan["note"]


@pytest.mark.parametrize("package", [Kill, Pause])
def test_four_turns_play_every_group_of_targets(package: type[Kill] | type[Pause]) -> None:
    fault = package(FakeEnvironment(), FakeSystem(), AimedOptions())
    for seed in map(str, range(50)):
        played = {fault.plan(turn, seed)["targets"] for turn in range(4)}
        assert all(played & set(group) for group in aimed.GROUPS)
    assert {fault.plan(turn, "seed")["targets"] for turn in range(100)} == set(TARGETS)


# --- The ledger -----------------------------------------------------------------------------------


def test_ledger_tells_the_whole_story_of_a_fault(rig: Rig) -> None:
    rig.play("kill", nodes("n2"))
    rig.play("start")
    assert rig.stages == ["planned", "applied", "evidence", "undone"]
    assert {event.id for event in rig.events} == {1}
    assert {event.kind for event in rig.events} == {"kill"}
    evidence = rig.events[2]
    assert evidence.bit is True
    assert evidence.targets == ("n2",)


def test_evidence_of_a_partition_comes_with_its_end(rig: Rig) -> None:
    rig.play("start-partition", {"shape": "x", "grudge": {"n1": ["n2"]}})
    assert rig.stages == ["planned", "applied"]
    done = rig.play("stop-partition")
    assert rig.stages == ["planned", "applied", "evidence", "undone"]
    assert done.value["bit"] is False, "nothing was dropped in a fake network"
    assert done.value["shape"] == "x"


def test_targets_are_in_the_ledger_before_anybody_is_hurt(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    kill = rig.system.kill

    def watching(node: str) -> None:
        seen.append(rig.stages)
        kill(node)

    monkeypatch.setattr(rig.system, "kill", watching)
    rig.play("kill", nodes("n1", "n2"))
    assert seen == [["planned"], ["planned"]]


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)


def test_fault_that_cannot_be_announced_is_not_begun(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch)
    with pytest.raises(MachineError, match="No space left"):
        rig.play("kill", nodes("n1"))
    assert rig.system.calls == []


def test_full_disk_does_not_keep_a_fault_from_being_undone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.play("kill", nodes("n1"))
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(ExceptionGroup) as caught:
            rig.nemesis.heal()
    assert [type(error) for error in caught.value.exceptions] == [MachineError]
    assert set(rig.system.states.values()) == {State.RUNNING}
    rig.nemesis.heal()
    assert rig.stages[-1] == "undone"


def test_partly_failed_kill_hits_the_others_and_says_which_failed(rig: Rig) -> None:
    rig.system.refusing = {("kill", "n2")}
    done = rig.play("kill", nodes("n1", "n2", "n3"))
    assert done.error == "n2: kill refused"
    assert done.value["done"] == {"n1": "killed", "n3": "killed"}
    assert done.value["bit"] is True
    assert rig.events[1].stage is FaultStage.APPLIED
    assert rig.events[1].error == "n2: kill refused"
    rig.play("start")
    assert rig.system.nodes_of("start") == list(FIVE)


def test_wholly_failed_kill_is_failed_and_did_not_bite(rig: Rig) -> None:
    rig.system.refusing = {("kill", "n2")}
    done = rig.play("kill", nodes("n2"))
    assert done.value["bit"] is False
    assert rig.stages == ["planned", "failed", "evidence"]


def test_fault_that_broke_off_half_way_is_undone_and_its_story_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(package: Kill, planned: object) -> None:
        rig.system.kill("n1")
        raise RuntimeError("half-way")

    monkeypatch.setattr(Kill, "apply", break_off)
    with pytest.raises(RuntimeError, match="half-way"):
        rig.play("kill", nodes("n1", "n2"))
    assert rig.stages == ["planned"]
    rig.nemesis.heal()
    assert rig.system.states["n1"] is State.RUNNING
    assert rig.stages == ["planned", "undone"]


def test_failed_undo_is_tried_again_by_the_next(rig: Rig) -> None:
    rig.play("kill", nodes("n1", "n2"))
    rig.system.refusing = {("start", "n2")}
    assert rig.play("start").error == "n2: start refused"
    assert rig.system.states["n1"] is State.RUNNING, "the others are undone"
    assert rig.stages[-1] == "failed"
    rig.system.refusing = set()
    rig.nemesis.heal()
    assert rig.system.states["n2"] is State.RUNNING
    assert rig.stages[-1] == "undone"


def test_fault_whose_undo_failed_is_closed_even_if_another_of_its_kind_came_after(
    rig: Rig,
) -> None:
    rig.play("kill", nodes("n1"))
    rig.system.refusing = {("start", "n1")}
    again = rig.play("kill", nodes("n2"))
    assert again.error == "n1: start refused"
    rig.system.refusing = set()
    rig.nemesis.heal()
    assert set(rig.system.states.values()) == {State.RUNNING}
    assert in_force(rig.events) == ()


# --- Healing --------------------------------------------------------------------------------------


def test_heal_undoes_all_kinds_the_network_first(rig: Rig) -> None:
    rig.play("kill", nodes("n1"))
    rig.play("pause", nodes("n2"))
    rig.play("start-partition", {"shape": "x", "grudge": {"n1": ["n2"]}})
    rig.nemesis.heal()
    undone = [event.kind for event in rig.events if event.stage is FaultStage.UNDONE]
    assert undone == ["partition", "pause", "kill"]
    assert set(rig.system.states.values()) == {State.RUNNING}
    assert all("-A LABRYS" not in rig.env.scripts[node][-1] for node in FIVE)


def test_heal_tries_everything_and_raises_all_that_failed(rig: Rig) -> None:
    for f, node in (("kill", "n1"), ("pause", "n2")):
        rig.play(f, nodes(node))
    rig.env.broken = {"n4", "n5"}
    rig.system.refusing = {("resume", "n3")}
    with pytest.raises(ExceptionGroup) as caught:
        rig.nemesis.heal()
    assert sorted(map(str, caught.value.exceptions)) == [
        "n3: undoing pause failed: resume refused",
        "n4: undoing partition failed: no answer",
        "n5: undoing partition failed: no answer",
    ]
    assert all(isinstance(error, ClusterError) for error in caught.value.exceptions)
    assert rig.system.states == dict.fromkeys(FIVE, State.RUNNING)
    assert {(event.kind, event.stage.value) for event in rig.events[-2:]} == {
        ("pause", "failed"),
        ("kill", "undone"),
    }


def test_heal_is_idempotent(rig: Rig) -> None:
    rig.play("kill", nodes("n1"))
    rig.nemesis.heal()
    before = rig.events
    rig.nemesis.heal()
    assert rig.events == before


def test_no_fault_begins_after_the_heal(rig: Rig) -> None:
    rig.nemesis.heal()
    late = rig.play("kill", nodes("n1"))
    assert rig.system.states["n1"] is State.RUNNING
    assert "healed for good" in str(late.error)
    assert rig.events == ()


def test_fault_that_outlasts_the_heal_undoes_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labrys.control.nemesis.nemesis.HEAL_WAIT_S", 0.01)
    kill = rig.system.kill
    begun, healed = threading.Event(), threading.Event()

    def slow(node: str) -> None:
        begun.set()
        assert healed.wait(30)
        kill(node)

    monkeypatch.setattr(rig.system, "kill", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(rig.play, "kill", nodes("n1"))
        assert begun.wait(30)
        with pytest.raises(ExceptionGroup, match="could not be undone"):
            rig.nemesis.heal()
        healed.set()
        assert "healed for good" in str(late.result(30).error)
    assert rig.system.states["n1"] is State.RUNNING
    assert in_force(rig.events) == ()


def test_teardown_before_any_setup_touches_nothing(rig: Rig) -> None:
    rig.env.broken = set(FIVE)
    rig.nemesis.teardown()
    assert rig.system.calls == []


def test_teardown_removes_the_chain_and_starts_nobody(rig: Rig) -> None:
    rig.nemesis.setup()
    rig.system.states["n1"] = State.DEAD
    rig.nemesis.teardown()
    assert rig.system.states["n1"] is State.DEAD
    assert all("-X LABRYS" in rig.env.scripts[node][-1] for node in FIVE)


def test_teardown_tries_everything(rig: Rig) -> None:
    rig.nemesis.setup()
    rig.env.broken = {"n4"}
    rig.system.refusing = {("resume", "n2")}
    with pytest.raises(ExceptionGroup) as caught:
        rig.nemesis.teardown()
    assert [str(error) for error in caught.value.exceptions] == [
        "n4: no answer",
        "n2: resume refused",
    ]


def test_setup_heals_without_starting_anything(rig: Rig) -> None:
    rig.system.states = {**dict.fromkeys(FIVE, State.DEAD), "n2": State.STOPPED}
    rig.nemesis.setup()
    assert rig.system.nodes_of("start") == []
    assert rig.system.states["n2"] is State.RUNNING
    assert all(":LABRYS" in rig.env.scripts[node][-1] for node in FIVE)


def test_second_fault_of_a_kind_ends_the_first(rig: Rig) -> None:
    rig.play("kill", nodes("n1"))
    rig.play("kill", nodes("n2"))
    assert rig.system.states["n1"] is State.RUNNING
    assert rig.system.states["n2"] is State.DEAD
    assert [(event.id, event.stage.value) for event in rig.events[3:]] == [
        (1, "undone"),
        (2, "planned"),
        (2, "applied"),
        (2, "evidence"),
    ]


def test_stop_without_a_start_undoes_all_the_same(rig: Rig) -> None:
    rig.system.states["n1"] = State.DEAD
    done = rig.play("start")
    assert done.error is None
    assert rig.system.states["n1"] is State.RUNNING
    assert rig.events == ()


def test_unknown_op_is_refused_with_the_nearest(rig: Rig) -> None:
    with pytest.raises(UsageError, match="unknown nemesis op 'kil'; did you mean 'kill'"):
        rig.play("kil")


# --- The schedule ---------------------------------------------------------------------------------


def schedule(path: Path, seed: int, seconds: float = 60, faults: Any = ALL) -> list[Op]:
    rig = Rig(path, faults, seed)
    generator = gen.time_limit(seconds, gen.nemesis(rig.nemesis.generator(Timetable(5.0))))

    def answer(op: Op) -> tuple[Op, int]:
        return op, 50_000_000

    history = simulate(generator, clients=1, system=answer, seed=seed)
    rig.ledger.close()
    return history[::2]  # one op at a time: every other one is the completion


def seconds_of(ops: list[Op], *fs: str) -> list[float]:
    return [op.time / 1e9 for op in ops if op.f in fs]


@pytest.mark.parametrize(
    ("kind", "start", "stop"),
    [
        ("partition", "start-partition", "stop-partition"),
        ("kill", "kill", "start"),
        ("pause", "pause", "resume"),
    ],
)
def test_each_kind_begins_soon_and_alternates_by_the_interval(
    tmp_path: Path, kind: str, start: str, stop: str
) -> None:
    for seed in range(10):
        ops = schedule(tmp_path / "f", seed, faults=[kind])
        assert [op.f for op in ops] == [start, stop] * (len(ops) // 2) + [start] * (len(ops) % 2)
        times = seconds_of(ops, start, stop)
        assert 1.7 <= times[0] <= 3.3
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert all(3.5 <= gap <= 6.5 for gap in gaps), gaps
        assert len([op for op in ops if op.f == start]) >= 5


STOP_OF = {"start-partition": "stop-partition", "kill": "start", "pause": "resume"}


def test_kinds_overlap_in_time_and_rest_together(tmp_path: Path) -> None:
    for seed in range(10):
        held = dict.fromkeys(range(4), 0)
        active: set[str] = set()
        ops = schedule(tmp_path / "f", seed, seconds=300)
        for op, following in itertools.pairwise(ops):
            active = (
                active | {op.f} if op.f in STOP_OF else {f for f in active if STOP_OF[f] != op.f}
            )
            held[len(active)] += following.time - op.time
        total = sum(held.values())
        assert held[2] + held[3] > 0.3 * total, held
        assert held[0] > 0.15 * total, held


def test_every_kind_begins_within_the_first_round(tmp_path: Path) -> None:
    for seed in range(10):
        ops = schedule(tmp_path / "f", seed)
        first = {f: min(op.time for op in ops if op.f == f) / 1e9 for f in STOP_OF}
        assert first["start-partition"] <= 3.3
        assert max(first.values()) <= 10


def test_a_minute_plays_every_group_of_shapes_and_targets(tmp_path: Path) -> None:
    for seed in range(10):
        ops = schedule(tmp_path / "f", seed)
        shapes = {op.value["shape"] for op in ops if op.f == "start-partition"}
        assert all(shapes & set(group) for group in GROUPS)
        for f in ("kill", "pause"):
            targets = {op.value["targets"] for op in ops if op.f == f}
            assert all(targets & set(group) for group in aimed.GROUPS)


def test_schedule_is_a_function_of_the_seed(tmp_path: Path) -> None:
    def plans(seed: int) -> dict[str, list[Any]]:
        ops = schedule(tmp_path / "f", seed)
        return {
            f: [op.value for op in ops if op.f == f] for f in ("start-partition", "kill", "pause")
        }

    assert plans(1) == plans(1)
    assert plans(1) != plans(2)


def test_adding_a_kind_does_not_change_the_plans_of_the_others(tmp_path: Path) -> None:
    alone = schedule(tmp_path / "f", 1, faults=["kill"])
    beside = schedule(tmp_path / "f", 1)
    plans = [[op.value for op in ops if op.f == "kill"] for ops in (alone, beside)]
    assert len(plans[1]) >= 5
    assert plans[0][: len(plans[1])] == plans[1]


def test_kind_may_have_an_interval_of_its_own(tmp_path: Path) -> None:
    ops = schedule(tmp_path / "f", 1, faults={"kill": {"interval_s": 1}, "pause": {}})
    assert len(seconds_of(ops, "kill")) > 20
    assert len(seconds_of(ops, "pause")) < 8


def test_without_faults_there_is_nothing_to_play(tmp_path: Path) -> None:
    assert schedule(tmp_path / "f", 1, faults=[]) == []


def test_fault_holds_half_its_time_even_if_the_nemesis_was_late(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "f", ["kill", "pause"])
    generator = gen.time_limit(300, gen.nemesis(rig.nemesis.generator(Timetable(5.0))))

    def slow_to_pause(op: Op) -> tuple[Op, int]:
        return op, 12_000_000_000 if op.f in ("pause", "resume") else 1_000

    ops = [op for op in simulate(generator, clients=1, system=slow_to_pause)[::2]]
    rig.ledger.close()
    kills = [op for op in ops if op.f in ("kill", "start")]
    assert len(kills) > 10
    assert all(b.time - a.time >= 2_000_000_000 for a, b in itertools.pairwise(kills))


# --- The spec -------------------------------------------------------------------------------------


def test_registry_names_the_kinds() -> None:
    assert {*ALL} < {*PACKAGES}
    assert all(package.kind == kind for kind, package in PACKAGES.items())
    for f in ("start_f", "stop_f"):
        assert len({getattr(package, f) for package in PACKAGES.values()}) == len(PACKAGES)


def test_options_come_from_the_spec() -> None:
    parsed = parse_faults(
        {
            "partition": {"shapes": ["isolate-leader"]},
            "kill": {"targets": ["all", ["n1", "n3"]]},
            "pause": None,
        }
    )
    assert list(parsed) == ["partition", "kill", "pause"]
    kill = parsed["kill"]
    assert isinstance(kill, AimedOptions)
    assert kill.targets == ("all", ("n1", "n3"))


def test_only_the_wanted_targets_are_hit() -> None:
    packages = build_packages(
        {"kill": {"targets": ["majority", ["n1", "n3"]]}}, FakeEnvironment(), FakeSystem()
    )
    plans = [packages[0].plan(turn, "seed") for turn in range(20)]
    assert {plan["targets"] for plan in plans} == {"majority", "named"}
    assert all(plan["nodes"] == ["n1", "n3"] for plan in plans if plan["targets"] == "named")


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["partitoin"], "unknown fault 'partitoin'; did you mean 'partition'?"),
        ({"partition": {"shape": []}}, "partition: unknown option 'shape'; did you mean 'shapes'"),
        ({"partition": {"shapes": ["bridg"]}}, "partition shape 'bridg'; did you mean 'bridge'"),
        ({"partition": {"shapes": []}}, "partition: shapes: name at least one"),
        ({"partition": {"shapes": "bridge"}}, "faults: partition: Expected `array`, got `str`"),
        ({"partition": ["bridge"]}, "faults: partition: options are a mapping"),
        ({"kill": {"targets": ["leaders"]}}, "unknown target 'leaders'; did you mean 'leader'"),
        ({"kill": {"targets": [["n9"]]}}, "kill: unknown node 'n9'"),
        ({"kill": {"targets": [[]]}}, "kill: targets: a list of nodes is empty"),
        ({"kill": {"targets": []}}, "kill: targets: name at least one"),
        ({"pause": {"interval_s": 0}}, "pause: interval_s: must be more than 0"),
        ({"pause": {"interval_s": "5"}}, "faults: pause: Expected `float | null`"),
        (["meteor"], "unknown fault 'meteor'; known: bandwidth, clock, "),
        ({"pause": {"weight": 0}}, "faults: pause: weight: must be from 1 to 1000, not 0"),
    ],
)  # fmt: skip
def test_mistakes_in_the_spec_are_named(faults: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_faults(faults, FIVE)
    assert message in str(caught.value)


@pytest.mark.parametrize("names", [("n1",), ("n1", "n2")])
def test_fewer_than_three_nodes_have_no_minority(names: tuple[str, ...]) -> None:
    env, system = FakeEnvironment(names), FakeSystem(names)
    (kill,) = build_packages(["kill"], env, system)
    assert "minority" not in {kill.plan(turn, "seed")["targets"] for turn in range(20)}
    with pytest.raises(UsageError, match="none is a minority"):
        build_packages({"kill": {"targets": ["minority"]}}, env, system)


def test_a_fault_can_hold_shorter_than_the_quiet_after_it(tmp_path: Path) -> None:
    ops = schedule(tmp_path / "f", 1, faults={"kill": {"interval_s": 2, "hold_s": 0.5}})
    starts, stops = seconds_of(ops, "kill"), seconds_of(ops, "start")
    assert 14 <= len(starts) <= 16, "a round still takes two intervals"
    assert all(0.25 <= stop - start <= 1 for start, stop in zip(starts, stops, strict=False))


@pytest.mark.parametrize("hold_s", [10, 11])
def test_a_fault_that_outlasts_its_round_is_refused(hold_s: float) -> None:
    options = parse_faults({"kill": {"hold_s": hold_s}})
    with pytest.raises(UsageError, match="do not fit into a round"):
        Timetable(5).check(options)
    Timetable(6).check(options)


def test_fault_that_cannot_be_had_is_refused_before_there_are_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Kill, "obstacle", lambda environment: f"no signals in {environment}")
    assert_possible(["partition", "pause"], "netns")
    told = "--faults kill: not with --env netns here: no signals in netns"
    with pytest.raises(UsageError, match=told):
        assert_possible(["partition", "kill"], "netns")
    monkeypatch.setattr(Pause, "obstacle", Kill.obstacle)
    with pytest.raises(UsageError, match="--faults pause,kill: not with --env netns here"):
        assert_possible(["pause", "partition", "kill"], "netns")
