"""Which kind of fault strikes when: rounds, weights, quiet, and lists of faults at fixed times."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import UsageError
from labrys.control.nemesis.fault_plan import PlannedFault, faults_of, play
from labrys.control.nemesis.nemesis import build_packages, parse_faults
from labrys.control.nemesis.schedule import Rounds, Timetable, compose
from labrys.control.planning import read_plan
from labrys.control.spec import read_spec, rerun_command, resolve, to_yaml
from labrys.workloads import generator as gen
from labrys.workloads.generator import Generator
from labrys.workloads.simulate import simulate

MANY = ("partition", "loss", "kill", "pause", "leadership", "membership")


def played(source: Generator, seconds: float) -> list[Op]:
    """What the nemesis is told to do; each step takes it 10 ms."""
    history = simulate(
        gen.time_limit(seconds, gen.nemesis(source)),
        clients=1,
        system=lambda op: (op, 10_000_000),
        seed=1,
    )
    return history[::2]


def schedule(
    faults: Any, timetable: Timetable, seconds: float = 60, seed: str = "seed"
) -> list[tuple[float, str, bool]]:
    """(seconds, kind, whether it begins) of what is played."""
    packages = build_packages(faults, FakeEnvironment(), FakeSystem())
    kinds = {package.start_f: (package.kind, True) for package in packages}
    kinds |= {package.stop_f: (package.kind, False) for package in packages}
    ops = played(compose(packages, timetable, seed), seconds)
    return [(op.time / 1e9, *kinds[op.f]) for op in ops]


# --- Rounds ---------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.text(max_size=3))
def test_nobody_has_a_second_turn_before_all_have_had_their_first(
    kind_count: int, at_once: int, seed: str
) -> None:
    kinds = [f"k{number}" for number in range(kind_count)]
    at_once = min(at_once, kind_count)
    rounds = Rounds(dict.fromkeys(kinds, 1), at_once, seed)
    for turn in range(5):
        at = [rounds.of_turn(kind, turn) for kind in kinds]
        assert max(at) <= -(-(turn + 1) * kind_count // at_once) - 1
        assert max(Counter(at).values()) <= at_once
    for kind in kinds:
        mine = [rounds.of_turn(kind, turn) for turn in range(5)]
        assert mine == sorted(set(mine)), "once in a round, and later ones later"


def test_all_kinds_at_once_play_every_round() -> None:
    rounds = Rounds({"a": 1, "b": 1}, 2, "seed")
    assert [rounds.of_turn("a", turn) for turn in range(9)] == list(range(9))


def test_weights_are_shares_of_the_turns() -> None:
    rounds = Rounds({"often": 6, "seldom": 2, "rare": 1}, 1, "seed")
    turns = {"often": 600, "seldom": 200, "rare": 100}
    ends = {kind: rounds.of_turn(kind, count - 1) for kind, count in turns.items()}
    assert all(880 <= end <= 920 for end in ends.values()), ends


def test_who_plays_together_is_drawn_from_the_seed() -> None:
    def pairs(seed: str) -> set[frozenset[str]]:
        rounds = Rounds(dict.fromkeys("abcdef", 1), 2, seed)
        by_round: dict[int, set[str]] = {}
        for kind, turn in itertools.product("abcdef", range(30)):
            by_round.setdefault(rounds.of_turn(kind, turn), set()).add(kind)
        return {frozenset(pair) for pair in by_round.values()}

    assert pairs("one") == pairs("one")
    assert len(pairs("one")) == 15, "each meets each"


# --- The rhythm -----------------------------------------------------------------------------------


def test_many_kinds_take_turns_so_that_each_has_its_own_within_the_limit() -> None:
    for seed in map(str, range(10)):
        found = schedule(MANY, Timetable(5.0), seed=seed)
        assert {kind for _, kind, begins in found if begins} == {*MANY}
        active: set[str] = set()
        for _, kind, begins in found:
            (active.add if begins else active.discard)(kind)
            assert len(active) <= 3


def test_few_kinds_strike_in_every_round() -> None:
    found = schedule(MANY[:4], Timetable(5.0), seconds=100)
    assert Counter(kind for _, kind, begins in found if begins) == dict.fromkeys(MANY[:4], 10)


def test_as_many_at_once_as_are_asked_for() -> None:
    found = schedule(MANY, Timetable(5.0, at_once=3), seconds=200)
    counts = Counter(kind for _, kind, begins in found if begins)
    assert set(counts.values()) == {10}, "half of 20 rounds each"


def test_without_quiet_one_strikes_as_the_other_heals() -> None:
    timetable = Timetable(4.0, quiet_s=0, at_once=1)
    found = schedule(("kill", "pause"), timetable, seconds=200)
    begins = [at for at, _, is_start in found if is_start]
    ends = [at for at, _, is_start in found if not is_start]
    assert len(begins) > 40
    assert all(abs(begin - end) < 2.5 for begin, end in zip(begins[1:], ends, strict=False))
    assert {kind for _, kind, _ in found} == {"kill", "pause"}


def test_quiet_is_as_long_as_is_asked_for() -> None:
    found = schedule(["kill"], Timetable(2.0, quiet_s=18), seconds=200)
    begins = [at for at, _, is_start in found if is_start]
    ends = [at for at, _, is_start in found if not is_start]
    assert len(begins) == 10
    assert all(1 < end - begin < 3 for begin, end in zip(begins, ends, strict=False))
    assert all(17 < begin - end < 19 for begin, end in zip(begins[1:], ends, strict=False))


@pytest.mark.parametrize(
    ("timetable", "faults", "told"),
    [
        (Timetable(5.0, at_once=0), MANY, "--faults-at-once 0: must be at least 1"),
        (Timetable(5.0, quiet_s=-1), MANY, "--fault-quiet -1: must be 0 or more seconds"),
        (Timetable(5.0, quiet_s=float("inf")), MANY, "--fault-quiet inf: must be 0 or more"),
        (Timetable(5.0), {"kill": {"weight": 2}, "pause": {}}, "set --faults-at-once below 2"),
        (Timetable(5.0, quiet_s=0), {"kill": {"hold_s": 5}}, "5 s do not fit into a round"),
    ],
)
def test_rhythms_that_cannot_be_are_refused(timetable: Timetable, faults: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        timetable.check(parse_faults(faults, FIVE))
    assert told in str(refused.value)


def test_weights_are_taken_where_kinds_take_turns() -> None:
    options = parse_faults({"kill": {"weight": 2}, "pause": {}}, FIVE)
    Timetable(5.0, at_once=1).check(options)
    found = schedule({"kill": {"weight": 3}, "pause": {}}, Timetable(5.0, at_once=1), seconds=400)
    counts = Counter(kind for _, kind, begins in found if begins)
    assert counts == {"kill": 30, "pause": 10}


def test_late_nemesis_plays_in_order_of_time() -> None:
    """Each step takes it three intervals: what was due first goes first, ends before beginnings."""
    packages = build_packages(["partition", "kill", "pause"], FakeEnvironment(), FakeSystem())
    source = compose(packages, Timetable(1.0), "seed")
    history = simulate(
        gen.time_limit(300, gen.nemesis(source)),
        clients=1,
        system=lambda op: (op, 3_000_000_000),
        seed=1,
    )
    fs = [op.f for op in history[::2]]
    turns = [fs[place : place + 6] for place in range(0, len(fs) - 6, 6)]
    assert len(turns) > 10
    starts, stops = {"start-partition", "kill", "pause"}, {"stop-partition", "start", "resume"}
    assert all({*turn[:3]} == starts and {*turn[3:]} == stops for turn in turns), turns


@pytest.mark.parametrize(
    ("kind_count", "seconds", "at_once"),
    [
        (4, 60, 4),
        (5, 60, 3),
        (5, 120, 2),
        (9, 60, 4),
        (17, 60, 4),
        (17, 120, 4),
        (17, 30, 6),
        (17, 5, 17),
    ],
)
def test_of_many_kinds_so_many_strike_that_each_has_its_turn(
    kind_count: int, seconds: float, at_once: int
) -> None:
    assert Timetable(5.0, time_limit_s=seconds).kinds_at_once(kind_count) == at_once


# --- Lists of faults ------------------------------------------------------------------------------

PLAN = [
    {"at_s": 1, "hold_s": 2.5, "kind": "kill", "options": {"targets": [["n2"]]}},
    {"at_s": 3, "hold_s": 1, "kind": "partition", "options": {"shapes": ["isolate-leader"]}},
    {"at_s": 3.5, "hold_s": 0.5, "kind": "kill", "options": {"targets": ["majority"]}},
]


def fixed(faults: list[PlannedFault], nodes: tuple[str, ...] = FIVE) -> list[Op]:
    packages = [
        build_packages({fault.kind: fault.options}, FakeEnvironment(nodes), FakeSystem(nodes))[0]
        for fault in faults
    ]
    return played(play(faults, packages, "seed"), 100)


def test_list_of_faults_is_played_at_its_times() -> None:
    ops = fixed(msgspec.convert(PLAN, list[PlannedFault]))
    assert [(round(op.time / 1e9, 1), op.f) for op in ops] == [
        (1.0, "kill"),
        (3.0, "start-partition"),
        (3.5, "start"),
        (3.5, "kill"),
        (4.0, "stop-partition"),
        (4.0, "start"),
    ]
    assert ops[0].value == {"targets": "named", "nodes": ["n2"]}
    assert ops[1].value["shape"] == "isolate-leader"
    assert len(ops[3].value["nodes"]) == 3


def test_faults_of_a_run_are_found_in_its_history_and_played_again() -> None:
    starts, stops = {"kill": "kill", "pause": "pause"}, {"start": "kill", "resume": "pause"}

    def op(at_s: float, f: str, value: Any = None, process: str | int = NEMESIS) -> Op:
        kind = OpType.INFO if process == NEMESIS else OpType.OK
        return Op(type=kind, process=process, f=f, value=value, time=round(at_s * 1e9))

    one, leader = {"targets": "one", "nodes": ["n3"]}, {"targets": "leader", "fallback": "n2"}
    history = [
        op(10, "phase", "main"),
        op(11, "kill", one),
        op(11.5, "kill", {**one, "fault": 1, "done": {}}),
        op(12, "pause", leader),
        op(12.1, "read", 4, process=3),
        op(12.5, "pause", {**leader, "nodes": ["n1"], "fault": 2}),
        op(13, "start"),
        op(13.1, "start", {"done": {}}),
        op(14, "kill", leader),
        op(14.1, "kill", {**leader, "nodes": ["n1"], "fault": 3}),
        op(20, "phase", "heal"),
        op(21, "phase", "final"),
    ]
    found = faults_of(history, starts, stops)
    assert found == [
        PlannedFault(at_s=1.0, hold_s=2.0, kind="kill", plan=one),
        PlannedFault(at_s=2.0, hold_s=8.0, kind="pause", plan=leader),
        PlannedFault(at_s=4.0, hold_s=6.0, kind="kill", plan=leader),
    ]
    again = fixed(found)
    assert [op.value for op in again if op.f in starts] == [one, leader, leader]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ([{"at_s": -1, "hold_s": 1, "kind": "kill"}], "fault 1 (kill): at_s -1: must be 0 or more"),
        ([{"at_s": 1, "hold_s": 0, "kind": "kill"}], "fault 1 (kill): hold_s 0: must be more than"),
        ([{"at_s": 60, "hold_s": 1, "kind": "kill"}], "at_s 60 is not before the end of the test"),
        (
            [{"at_s": 5, "hold_s": 1, "kind": "kill"}, {"at_s": 4, "hold_s": 2, "kind": "kill"}],
            "fault 1 (kill) begins before fault 2 of the same kind ends, at 6 s",
        ),
        ([{"at_s": 1, "hold_s": 1, "kind": "kil"}], "unknown fault 'kil'; did you mean 'kill'?"),
        (
            [{"at_s": 1, "hold_s": 1, "kind": "kill", "options": {"targets": [["n9"]]}}],
            "faults: kill: unknown node 'n9'",
        ),
        (
            [{"at_s": 1, "hold_s": 1, "kind": "kill", "options": {"weight": 3}, "plan": {}}],
            "give options or a plan, not both",
        ),
        ([{"at_s": 1, "hold": 1, "kind": "kill"}], "unknown field `hold`"),
    ],
)
def test_mistakes_in_a_list_are_named(plan: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve({"fault_plan": plan})
    assert told in str(refused.value)


def test_plan_of_another_kind_or_of_other_nodes_is_refused() -> None:
    kill = PlannedFault(at_s=1, hold_s=1, kind="kill", plan={"shape": "halves"})
    with pytest.raises(UsageError, match=r"fault 1 \(kill\): no plan of this kind; one looks like"):
        fixed([kill])
    kill = PlannedFault(at_s=1, hold_s=1, kind="kill", plan={"targets": "one", "nodes": ["n5"]})
    assert fixed([kill])
    with pytest.raises(UsageError, match="it names n5; the nodes of this test are n1, n2, n3"):
        fixed([kill], ("n1", "n2", "n3"))


def test_list_is_read_from_a_file_or_as_it_is_and_survives_test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("- {at_s: 1, hold_s: 2.5, kind: kill, options: {targets: [[n2]]}}\n")
    plan = read_plan(str(file), tmp_path)
    assert plan == PLAN[:1]
    spec = resolve({"fault_plan": plan, "seed": 1})
    assert spec.fault_kinds == ("kill",)
    (tmp_path / "test.yaml").write_text(to_yaml(spec))
    assert resolve(read_spec(tmp_path / "test.yaml")) == spec
    flag = "--fault-plan '[{at_s: 1.0, hold_s: 2.5, kind: kill, options: {targets: [[n2]]}}]'"
    assert flag in rerun_command(spec)
    assert resolve({"fault_plan": read_plan(flag.split("'")[1], tmp_path), "seed": 1}) == spec


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {at_s: 1\n", "plan.yaml, line 2: not YAML"),
        ("kill\n", "plan.yaml: a plan is a list such as"),
        ("[]\n", "plan.yaml: a plan is a list such as"),
        ("- {at_s: 1, hold_s: 1}\n", "plan.yaml: fault 1: Object missing required field `kind`"),
        ("- {at_s: x, hold_s: 1, kind: kill}\n", "plan.yaml: fault 1: Expected `float`, got `str`"),
    ],
)
def test_mistakes_in_the_file_of_a_list_are_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_plan(str(file), tmp_path)
    assert told in str(refused.value)


def test_list_that_is_nowhere_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fault-plan nowhere: neither a file nor a run: "):
        read_plan("nowhere", tmp_path)


def test_faults_and_a_list_of_faults_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        resolve({"fault_plan": PLAN, "faults": ["kill"]})
