"""Restart storms, slow CPU, lack of memory and freezes: as data, and with real processes."""

import json
import re
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.control.inside import run_inside
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem, LimitedEnvironment

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.environments import netns
from labrys.control.environments.gate import Gate
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.ledger import Ledger, read_ledger
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.freeze import Freeze
from labrys.control.nemesis.nemesis import (
    PACKAGES,
    Nemesis,
    assert_possible,
    build_packages,
    parse_faults,
)
from labrys.control.nemesis.oom import Oom, OomOptions
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.schedule import Rounds, Timetable, schedule_of
from labrys.control.nemesis.slow_cpu import SlowCpu, SlowCpuOptions
from labrys.control.nemesis.storm import RestartStorm, StormOptions
from labrys.control.process import State
from labrys.control.running import without_impossible
from labrys.control.spec import resolve

_REASON = netns.probe()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"restart-storm": {"up_ms": [1]}}, "up_ms: name at least one, each from 5 to 60000"),
        ({"restart-storm": {"up_ms": []}}, "up_ms: name at least one"),
        ({"slow-cpu": {"share": [0]}}, "share: name at least one, each from 0.01 to 0.99"),
        ({"slow-cpu": {"share": [1]}}, "each from 0.01 to 0.99 of a core"),
        ({"slow-cpu": {"shares": [0.1]}}, "did you mean 'share'?"),
        ({"oom": {"room_mib": [0]}}, "room_mib: name at least one, each from 1 to 1024"),
        ({"freeze": {"targets": ["nobody"]}}, "unknown target 'nobody'"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults(given, FIVE)
    assert told in str(refused.value)


# --- Restart storms -------------------------------------------------------------------------------


def eventually(fact: Any, what: str) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


def test_storm_goes_on_by_itself_and_ends_with_its_undo() -> None:
    system = FakeSystem()
    storm = RestartStorm(FakeEnvironment(), system, StormOptions())
    outcome = storm.apply(Planned(("n1", "n2"), {"up_ms": 1, "seed": "x"}))
    assert outcome.done == dict.fromkeys(("n1", "n2"), "is killed every 1 ms")
    assert outcome.bit is None, "it has only begun"
    for node in ("n1", "n2"):
        eventually(lambda node=node: system.calls.count(("kill", node)) > 2, "three kills")
    undone = storm.undo()
    kills = system.nodes_of("kill")
    assert undone.bit is True
    assert undone.errors == {}
    assert {node: facts["kills"] for node, facts in undone.observed.items()} == {
        node: kills.count(node) for node in ("n1", "n2")
    }
    assert set(system.nodes_of("start")) == {*FIVE}
    assert set(system.states.values()) == {State.RUNNING}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("storm-")]


def test_storm_that_is_refused_goes_on_and_its_undo_reaches_the_others() -> None:
    system = FakeSystem()
    system.refusing = {("start", "n1")}
    storm = RestartStorm(FakeEnvironment(), system, StormOptions())
    storm.apply(Planned(("n1", "n2"), {"up_ms": 1, "seed": "x"}))
    eventually(lambda: system.calls.count(("kill", "n1")) > 2, "three kills")
    undone = storm.undo()
    assert set(undone.errors) == {"n1"}
    assert undone.observed["n1"]["refused"] > 2
    assert set(undone.done) == {*FIVE} - {"n1"}
    again = storm.undo()
    assert (again.bit, again.observed) == (None, {}), "one that was told has been told"


def test_storm_of_a_rig_that_died_is_undone_by_a_start_of_all() -> None:
    system = FakeSystem()
    system.states["n4"] = State.DEAD
    undone = RestartStorm(FakeEnvironment(), system, StormOptions()).undo()
    assert (undone.done["n4"], undone.bit) == ("is running", None)


def test_tear_down_kills_nobody_any_more_and_starts_nobody() -> None:
    system = FakeSystem()
    storm = RestartStorm(FakeEnvironment(), system, StormOptions())
    storm.apply(Planned(("n1",), {"up_ms": 1, "seed": "x"}))
    eventually(lambda: system.calls.count(("kill", "n1")) > 2, "three kills")
    storm.tear_down()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("storm-")]
    assert set(system.nodes_of("start")) == {"n1"}


# --- Slow CPU and lack of memory ------------------------------------------------------------------


def test_share_of_the_cpu_is_limited_where_the_environment_can() -> None:
    env = LimitedEnvironment()
    slow = SlowCpu(env, FakeSystem(), SlowCpuOptions())
    slow.set_up()
    assert slow.apply(Planned(("n2",), {"share": 0.2})).done == {"n2": "has 0.2 of a core"}
    env.broken.add("n5")
    undone = slow.undo()
    assert env.limits["n2"] == [None, 0.2, None]
    assert env.limits["n3"] == [None, None]
    assert (undone.bit, undone.observed, set(undone.errors)) == (True, {"n2": {"stops": 1}}, {"n5"})
    assert slow.undo().bit is False


def test_memory_is_limited_and_the_dead_are_started() -> None:
    env, system = LimitedEnvironment(), FakeSystem()
    system.states["n2"] = State.DEAD  # so that there is nobody to wait for
    oom = Oom(env, system, OomOptions())
    oom.set_up()
    outcome = oom.apply(Planned(("n2",), {"room_mib": 4.0}))
    assert outcome.done == {"n2": "has 4 MiB to spare, is dead"}
    assert not any("hog.py" in script for script in env.scripts["n2"]), "nobody is to be killed"
    env.broken.add("n5")
    undone = oom.undo()
    assert env.limits["n2"] == [None, 4 << 20, None]
    assert env.limits["n3"] == [None, None]
    assert (undone.bit, undone.observed) == (True, {"n2": {"oom_kills": 1}})
    assert set(undone.errors) == {"n5"}
    assert system.states["n2"] is State.RUNNING
    assert oom.undo().bit is None


def test_environment_without_limits_says_so_before_there_are_nodes() -> None:
    told = "oom: not with --env netns here: it cannot limit a node's memory"
    with pytest.raises(UsageError, match=told):
        assert_possible(["oom"], "netns")
    assert_possible(["oom", "freeze", "slow-cpu"], "docker")
    assert_possible(["freeze", "slow-cpu"], "netns")
    with pytest.raises(MachineError, match="cannot limit a node's memory"):
        Oom(FakeEnvironment(), FakeSystem(), OomOptions()).set_up()


def test_all_faults_are_those_that_can_be_had_and_the_others_are_told() -> None:
    said: list[str] = []
    spec = resolve({"faults": ["all"], "env": "netns", "seed": 1})
    kinds = without_impossible(spec, said.append).fault_kinds
    assert {*kinds} == {*PACKAGES} - {"oom"}
    assert [line.split(":")[:2] for line in said] == [["--faults all", " without oom"]]
    named = resolve({"faults": ["kill", "oom"], "env": "netns", "seed": 1})
    with pytest.raises(UsageError, match="--faults oom: not with --env netns"):
        without_impossible(named, said.append)


# --- Freezes --------------------------------------------------------------------------------------


def test_freeze_hits_its_targets_and_thaw_goes_to_all_nodes() -> None:
    env = FakeEnvironment()
    freeze = Freeze(env, FakeSystem(), AimedOptions())
    outcome = freeze.apply(Planned(("n2", "n4"), {}))
    assert env.frozen == {"n2", "n4"}
    assert (outcome.bit, outcome.observed["n2"]) == (True, {"processes": 3})
    env.broken.add("n1")
    undone = freeze.undo()
    assert env.frozen == set()
    assert set(undone.errors) == {"n1"}
    assert (undone.done["n2"], undone.done["n3"]) == ("goes on", "goes on as before")


def test_freeze_strikes_last_and_is_over_before_the_others_are_undone() -> None:
    env, system = FakeEnvironment(), FakeSystem()
    last = max(PACKAGES.values(), key=lambda package: package.strike_order)
    first = min(PACKAGES.values(), key=lambda package: package.undo_order)
    assert last is first is Freeze
    rounds = Rounds({"freeze": 1}, 1, "seed")
    for options, hold_ns in (
        (AimedOptions(), 1_200_000_000),
        (AimedOptions(hold_s=3), 3_000_000_000),
    ):
        freeze = Freeze(env, system, options)
        assert schedule_of(freeze, Timetable(4.0), rounds, "seed").hold_ns == hold_ns


def test_freeze_that_is_late_ends_when_another_fault_is_undone(tmp_path: Path) -> None:
    env, system = FakeEnvironment(), FakeSystem()
    path = tmp_path / "faults.jsonl"
    ledger = Ledger(path, lambda: 0)
    nemesis = Nemesis(build_packages(["kill", "freeze"], env, system), ledger, Random(1))

    def play(f: str, *nodes: str) -> Op:
        value = {"targets": "named", "nodes": list(nodes)}
        return nemesis.invoke(Op(type=OpType.INFO, process=NEMESIS, f=f, value=value))

    play("kill", "n1")
    play("freeze", "n2")
    assert env.frozen == {"n2"}
    play("freeze", "n3")
    assert env.frozen == {"n3"}
    play("start")
    assert env.frozen == set()
    assert play("thaw").error is None
    ledger.close()
    undone = [event.kind for event in read_ledger(path) if event.stage == "undone"]
    assert undone == ["freeze", "freeze", "kill"]


def test_gate_is_closed_when_all_are_out_and_refuses_whoever_comes_then() -> None:
    gate = Gate()
    closed = threading.Event()

    def close() -> None:
        gate.close("n1")
        closed.set()

    with gate.passed("n1"):
        closing = threading.Thread(target=close)
        closing.start()
        refused = False

        def is_refused() -> bool:
            try:
                with gate.passed("n1"):
                    return False
            except ClusterError:
                return True

        eventually(is_refused, "nobody else gets in")
        refused = True
        assert not closed.is_set()
    closing.join(20)
    assert refused
    assert closed.is_set()
    with gate.passed("n2"):
        pass
    gate.open("n1")
    with gate.passed("n1"):
        pass


_PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json
from labrys.control import process
from labrys.control.errors import ClusterError
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.freeze import Freeze
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.pause import Pause
from labrys.control.nemesis.slow_cpu import SlowCpu, SlowCpuOptions
from labrys.control.nemesis.storm import RestartStorm, StormOptions
from labrys.control.process import State
from tests.control.probes import Sleepers, until_deadline

class Busy(Sleepers):
    '''Databases that use all the CPU they get.'''
    def start(self, node):
        argv = ["/bin/sh", "-c", "while :; do :; done"]
        process.start(self.env, node, "db", argv, f"{{self.env.log_dir(node)}}/log")

env = environment(3)
env.provision()
system = Busy(env, leader="n3")

def pid(node):
    return Path(env.home(node), "db.pid").read_text().split()[0]

def ticks(node):
    fields = Path(f"/proc/{{pid(node)}}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

def await_fact(fact, what):
    for _ in until_deadline(what):
        if fact():
            return

"""


def inside(tmp_path: Path, code: str) -> list[Any]:
    return [json.loads(line) for line in run_inside(tmp_path, _PRELUDE + code).splitlines()]


@pytest.mark.netns
@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
class TestInNamespaces:
    """With real processes."""

    def test_slow_process_gets_its_share_and_all_of_it_again(self, tmp_path: Path) -> None:
        code = """
fault = SlowCpu(env, system, SlowCpuOptions())
fault.set_up()
for node in env.nodes:
    system.start(node)
applied = fault.apply(Planned(("n1",), {"share": 0.1}))
seen = set()

def state(node):
    seen.add(Path(f"/proc/{pid(node)}/stat").read_text().rpartition(")")[2].split()[0])
    return seen

await_fact(lambda: state("n1") >= {"T", "R"}, "the process stops and runs")
before = ticks("n1")
await_fact(lambda: ticks("n1") > before + 5, "CPU time of the slow one")
while_stopped = system.state("n1")
undone = fault.undo()
states = [system.state(node) for node in env.nodes]
facts = undone.observed["n1"]
before = ticks("n1")
await_fact(lambda: ticks("n1") > before + 20, "CPU time after the undo")
say(json.dumps([applied.done, applied.errors | undone.errors, while_stopped,
                undone.bit, facts["stops"] > 1, facts["used_share"] > 0,
                list(undone.observed), states, fault.undo().bit]))
"""
        done = {"n1": "has 0.1 of a core"}
        up = ["running"] * 3
        assert inside(tmp_path, code) == [
            [done, {}, "running", True, True, True, ["n1"], up, False]
        ]

    def test_slow_process_that_is_paused_sleeps_until_it_is_resumed(self, tmp_path: Path) -> None:
        code = """
slow = SlowCpu(env, system, SlowCpuOptions())
pause = Pause(env, system, AimedOptions())
slow.set_up()
for node in env.nodes:
    system.start(node)

def is_asleep():
    before = ticks("n1")
    time.sleep(0.5)  # five periods of the slower
    return system.state("n1") == "stopped" and ticks("n1") == before

slow.apply(Planned(("n1",), {"share": 0.5}))
states = {system.state("n1") for _ in range(50)}
paused = pause.apply(Planned(("n1",), {}))
first = is_asleep()
slow.undo()
second = is_asleep()
slow.apply(Planned(("n1",), {"share": 0.5}))
third = is_asleep()
resumed = pause.undo()
before = ticks("n1")
await_fact(lambda: ticks("n1") > before + 5, "CPU time after the undo of the pause")
slow.undo()
say(json.dumps([sorted(states), paused.bit, first, second, third, resumed.errors,
                system.state("n1")]))
"""
        assert inside(tmp_path, code) == [
            [["running"], True, True, True, True, {}, "running"],
        ]

    def test_slow_process_may_be_started_anew_and_the_program_may_die(self, tmp_path: Path) -> None:
        code = """
fault = SlowCpu(env, system, SlowCpuOptions())
fault.set_up()
for node in env.nodes:
    system.start(node)
fault.apply(Planned(("n1", "n2"), {"share": 0.02}))
system.kill("n1")
system.start("n1")

def state(node):
    return Path(f"/proc/{pid(node)}/stat").read_text().rpartition(")")[2].split()[0]

await_fact(lambda: state("n1") == "T", "the new process is stopped as well")
await_fact(lambda: state("n2") == "T", "the other is stopped")
process.signal(env, "n2", "slower", "STOP")
if state("n2") != "T":
    process.signal(env, "n2", "slower", "CONT")
    await_fact(lambda: state("n2") == "T", "the other is stopped once more")
process.kill(env, "n2", "slower")
undone = fault.undo()
say(json.dumps([undone.errors, [state(node) in "RS" for node in env.nodes]]))
"""
        assert inside(tmp_path, code) == [[{}, [True] * 3]]

    def test_storm_restarts_a_real_process_many_times_and_leaves_it_alive(
        self, tmp_path: Path
    ) -> None:
        code = """
fault = RestartStorm(env, system, StormOptions())
for node in env.nodes:
    system.start(node)
first = [pid(node) for node in env.nodes]
fault.apply(Planned(("n1",), {"up_ms": 5, "seed": "x"}))
seen = set()
def pids():
    try:
        seen.add(pid("n1"))
    except (OSError, IndexError):
        pass  # between two of them
    return seen
await_fact(lambda: len(pids()) > 5, "six processes")
undone = fault.undo()
last = [pid(node) for node in env.nodes]
time.sleep(0.1)
say(json.dumps([undone.bit, undone.errors, undone.observed["n1"]["kills"] >= 5,
                [a == b for a, b in zip(first, last)], [pid(node) for node in env.nodes] == last,
                [system.state(node) for node in env.nodes]]))
"""
        assert inside(tmp_path, code) == [
            [True, {}, True, [False, True, True], True, ["running"] * 3]
        ]

    def test_everything_in_a_frozen_node_stands_still_and_goes_on(self, tmp_path: Path) -> None:
        code = """
freeze = Freeze(env, system, AimedOptions())
freeze.set_up()
for node in env.nodes:
    system.start(node)
process.start(env, "n1", "other", ["sleep", "1000"], "/dev/null")
outcome = freeze.apply(Planned(("n1",), {}))
before = {node: ticks(node) for node in ("n1", "n2")}
await_fact(lambda: ticks("n2") > before["n2"] + 20, "CPU time of the other")
stood = ticks("n1") == before["n1"]
try:
    env.run("n1", "true")
except ClusterError as error:
    refusal = str(error)
say(json.dumps([outcome.done, outcome.observed, stood, refusal, env.run("n2", "true").code]))
freeze.apply(Planned(("n1",), {}))
undone = freeze.undo()
await_fact(lambda: ticks("n1") > before["n1"] + 5, "CPU time after the thaw")
say(json.dumps([undone.done["n1"], undone.errors, [system.state(n) for n in env.nodes],
                freeze.undo().done["n1"]]))
"""
        frozen, thawed = inside(tmp_path, code)
        assert frozen == [
            {"n1": "stands still"},
            {"n1": {"processes": 2}},
            True,
            "n1: stands still; nothing runs in it until it is thawed",
            0,
        ]
        assert thawed == ["goes on", {}, ["running"] * 3, "goes on as before"]

    def test_thaw_wakes_nobody_who_was_asleep_before(self, tmp_path: Path) -> None:
        code = """
freeze, pause = Freeze(env, system, AimedOptions()), Pause(env, system, AimedOptions())
slow = SlowCpu(env, system, SlowCpuOptions())
slow.set_up()
for node in env.nodes:
    system.start(node)
slow.apply(Planned(("n1", "n2"), {"share": 0.1}))
pause.apply(Planned(("n1",), {}))
freeze.apply(Planned(("n1", "n2"), {}))
errors = pause.undo().errors
freeze.undo()
before = ticks("n2")
await_fact(lambda: ticks("n2") > before + 3, "CPU time of the slow one after the thaw")
say(json.dumps([sorted(errors), [system.state(node) for node in env.nodes]]))
say(json.dumps([pause.undo().errors, slow.undo().errors, [system.state(n) for n in env.nodes]]))
"""
        assert inside(tmp_path, code) == [
            [["n1", "n2"], ["stopped", "running", "running"]],
            [{}, {}, ["running"] * 3],
        ]

    def test_frozen_nodes_can_be_removed_and_made_again(self, tmp_path: Path) -> None:
        code = """
for node in env.nodes:
    system.start(node)
pids = [pid(node) for node in env.nodes]
Freeze(env, system, AimedOptions()).apply(Planned(env.nodes, {}))
env.destroy()
gone = [not Path(f"/proc/{pid}/ns/net").exists() for pid in pids]
env.provision()
say(json.dumps([gone, env.run("n1", "echo alive").out]))
"""
        assert inside(tmp_path, code) == [[[True] * 3, "alive\n"]]


def test_programs_of_ours_import_nothing_but_the_standard_library() -> None:
    """They run in nodes that have nothing of ours."""
    folder = Path(netns.__file__).parents[1] / "nemesis"
    for name in ("delayer", "flapper", "slower", "hog"):
        assert not re.search(r"^(from|import) labrys", (folder / f"{name}.py").read_text(), re.M)
