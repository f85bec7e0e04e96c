"""Clocks as faults: as data, and bitten and healed in network namespaces with real processes."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from tests.control.inside import run_inside
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control import doctor
from labrys.control.environments import netns
from labrys.control.environments import registry as environments
from labrys.control.environments.base import Output
from labrys.control.errors import InternalError, MachineError, UsageError
from labrys.control.ledger import Ledger
from labrys.control.nemesis import shim
from labrys.control.nemesis.clock import Clock, ClockOptions, Mode, WhichClock, has_bitten
from labrys.control.nemesis.nemesis import Nemesis, assert_possible, parse_faults
from labrys.control.nemesis.package import FaultPackage
from labrys.control.spec import stream

_REASON = netns.probe()


def clock(env: FakeEnvironment | None = None, **options: Any) -> Clock:
    return Clock(env or FakeEnvironment(), FakeSystem(), ClockOptions(**options))


def test_plans_come_from_the_seed_alone_and_draw_every_mode_and_strength() -> None:
    plans = [clock().plan(turn, "seed") for turn in range(60)]
    assert plans == [clock().plan(turn, "seed") for turn in range(60)]
    assert plans != [clock().plan(turn, "other") for turn in range(60)]
    options = ClockOptions()
    assert {plan["jump_ms"] for plan in plans if "jump_ms" in plan} == {*options.jump_ms}
    assert {plan["rate"] for plan in plans if "rate" in plan} == {*options.rates}
    assert {plan["strobe_ms"] for plan in plans if "strobe_ms" in plan} == {*options.strobe_ms}
    assert {plan["targets"] for plan in plans} >= {"leader", "one", "minority"}
    assert json.loads(json.dumps(plans)) == plans


def test_every_mode_has_its_turn_once_in_a_round() -> None:
    fault = clock(modes=tuple(Mode))
    modes = [fault.plan(turn, "seed")["mode"] for turn in range(40)]
    for begin in range(0, 40, 4):
        assert sorted(modes[begin : begin + 4]) == sorted(Mode)


def test_default_stays_within_what_lease_reads_of_the_node_bear() -> None:
    """No clock a third faster than another, and no monotonic clock that skips."""
    options = ClockOptions()
    assert max(*options.rates, 1) / min(*options.rates, 1) < 4 / 3
    assert Mode.SKIP not in options.modes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"modes": []}, "modes: name at least one of jump, drift, strobe, skip"),
        ({"modes": ["leap"]}, "Invalid enum value 'leap'"),
        ({"clocks": []}, "clocks: name at least one of wall, monotonic"),
        (
            {"clocks": ["monotonic"]},
            "modes: jump is of the wall clock, and clocks names only monotonic; "
            "name the modes: [drift, skip]",
        ),
        ({"clocks": ["wall"], "modes": ["skip"]}, "modes: skip is of the monotonic clock"),
        ({"jump_ms": []}, "jump_ms: name at least one"),
        ({"jump_ms": [0]}, "jump_ms: less than a millisecond is no change to be seen"),
        ({"strobe_ms": [0.5]}, "strobe_ms: less than a millisecond"),
        ({"rates": [0]}, "rates: name at least one, each from 0.01 to 100"),
        ({"rates": [-1]}, "rates: name at least one, each from 0.01 to 100"),
        ({"rates": [1]}, "rates: each at least 0.001 off 1, the true rate"),
        ({"strobe_period_ms": [1]}, "strobe_period_ms: name at least one, each from 2 to 2000"),
        ({"skip_ms": [-5]}, "skip_ms: name at least one, each from 1 to"),
        ({"jumps_ms": [1]}, "did you mean 'jump_ms'?"),
        ({"targets": ["nobody"]}, "unknown target 'nobody'"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults({"clock": given}, FIVE)
    assert told in str(refused.value)


def test_without_a_compiler_the_fault_is_refused_before_there_are_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shim.build.cache_clear()
    monkeypatch.setattr(shim, "compiler", lambda: None)
    with pytest.raises(UsageError) as refused:
        assert_possible(["clock"], "docker")
    assert str(refused.value) == (
        "--faults clock: not with --env docker here: "
        "no C compiler `cc` to build the clock shim with (apt install gcc libc6-dev)"
    )


def test_doctor_tells_of_a_missing_compiler_and_a_test_can_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.build.cache_clear()
    monkeypatch.setattr(shim, "compiler", lambda: None)
    monkeypatch.setattr(environments, "obstacle", lambda name: None)
    assert doctor.examine(None, tmp_path, quiet=False, as_json=False) == 0
    assert "NO  clocks     no clock faults: no C compiler `cc`" in capsys.readouterr().out


def test_compiler_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shim.build.cache_clear()
    monkeypatch.setattr(shim, "compiler", lambda: "/bin/false")
    with pytest.raises(MachineError, match=r"/bin/false does not compile the clock shim \(apt"):
        shim.build()


def test_node_with_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "build", lambda: b"")
    env = FakeEnvironment()
    env.answers = dict.fromkeys(FIVE, Output(0, "pdp11\n", ""))
    with pytest.raises(MachineError, match="its processor is pdp11 and the clock shim was"):
        clock(env).set_up()


def test_node_whose_clock_does_not_obey_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env = FakeEnvironment()
    monkeypatch.setattr(shim, "build", lambda: b"")
    monkeypatch.setattr(platform, "machine", lambda: json.dumps(_seen()))
    env.answers = dict.fromkeys(FIVE, Output(0, json.dumps(_seen()), ""))
    with pytest.raises(MachineError, match=r"does not obey: \+0.0 ms off\. The preloaded library"):
        clock(env).set_up()


def test_undo_goes_to_all_nodes_even_if_one_does_not_answer() -> None:
    env = FakeEnvironment()
    env.broken.add("n4")
    outcome = clock(env).undo()
    assert set(outcome.errors) == {"n4"}
    assert outcome.done == dict.fromkeys({*FIVE} - {"n4"}, "never had another clock")
    assert outcome.bit is None


def _seen(*, processes: int = 1, **found: Any) -> dict[str, Any]:
    right = {"wall_ns": 0, "monotonic_ns": 0, "true_ns": 0}
    rates = {"wall_rate": 1.0, "monotonic_rate": 1.0, "strobe_ns": 0, "processes": processes}
    return {"before": right, "after": right | found, **rates, **found}


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        ({"mode": "jump", "jump_ms": -1000}, {"wall_ns": -1_000_000_020}),
        ({"mode": "drift", "rate": 1.1, "clocks": ["wall"]}, {"wall_rate": 1.101}),
        ({"mode": "strobe", "strobe_ms": 200}, {"strobe_ns": 200_000_000}),
        ({"mode": "skip", "skip_ms": 1000}, {"monotonic_ns": 1_000_000_000}),
    ],
)
def test_fault_bit_if_the_clock_did_as_was_planned_and_somebody_lives_by_it(
    plan: dict[str, Any], found: dict[str, Any]
) -> None:
    assert has_bitten(plan, _seen(**found))
    assert not has_bitten(plan, _seen())
    assert not has_bitten(plan, _seen(processes=0, **found)), "a database without the shim"


def test_drift_bites_only_if_all_its_clocks_drift() -> None:
    plan = {"mode": "drift", "rate": 0.9, "clocks": [*WhichClock]}
    assert has_bitten(plan, _seen(wall_rate=0.9, monotonic_rate=0.9))
    assert not has_bitten(plan, _seen(wall_rate=0.9))


class Preloading(Clock):
    """Wants another library, and a page elsewhere if it is told to."""

    elsewhere = False

    def environ(self, node: str) -> dict[str, str]:
        page = {"LABRYS_CLOCK_PAGE": "/elsewhere"} if self.elsewhere else {}
        return {"LD_PRELOAD": "/other.so", **page}


def test_database_is_started_with_what_all_its_faults_need(tmp_path: Path) -> None:
    other = Preloading(FakeEnvironment(), FakeSystem(), ClockOptions())
    with Ledger(tmp_path / "faults.jsonl", lambda: 0) as ledger:

        def environ(*packages: FaultPackage) -> dict[str, str]:
            return Nemesis(packages, ledger, stream(1, "nemesis")).environ("n2")

        page = {"LABRYS_CLOCK_PAGE": "/home/n2/clock.page"}
        assert environ() == {}
        assert environ(clock()) == {"LD_PRELOAD": "/home/n2/clock_shim.so", **page}
        both = {"LD_PRELOAD": "/home/n2/clock_shim.so:/other.so", **page}
        assert environ(clock(), other) == both
        other.elsewhere = True
        with pytest.raises(InternalError, match="two faults want LABRYS_CLOCK_PAGE"):
            environ(clock(), other)


SCENARIO = """
from labrys.control.nemesis.clock import Clock, ClockOptions
from labrys.control.nemesis.package import Planned

def clock():
    return Clock(env, system, ClockOptions())

def plan(nodes=("n1",), **how):
    return Planned(nodes, how)

def wall_ahead_s(node):
    '''By the clock of a new process in the node, beside the controller's own; and not less.'''
    variables = " ".join(f"{n}={v}" for n, v in system.environ[node].items())
    script = f"env {variables} {env.python(node)} -IS -c 'import time; print(time.time())'"
    before = time.time()
    told = float(env.run(node, script).out)
    assert before <= time.time(), "the controller's own clock stepped back"
    return told - before

def host():
    return time.time() - time.monotonic()

true_clock = host()
fault = clock()
fault.set_up()
system.environ = {node: fault.environ(node) for node in env.nodes}
for node in env.nodes:
    system.start(node)

for how in (
    {"mode": "jump", "jump_ms": -60000.0},
    {"mode": "jump", "jump_ms": 1000.0},
    {"mode": "drift", "rate": 0.5, "clocks": ["wall", "monotonic"]},
    {"mode": "drift", "rate": 1.1, "clocks": ["monotonic"]},
    {"mode": "strobe", "strobe_ms": 4000.0, "period_ms": 20.0},
    {"mode": "skip", "skip_ms": 10000.0},
):
    applied = fault.apply(plan(**how))
    ahead_s = wall_ahead_s("n1")
    other_s = wall_ahead_s("n2")
    undone = fault.undo()
    say(json.dumps([
        how["mode"], applied.bit, applied.done, applied.errors | undone.errors,
        applied.observed["n1"], ahead_s, 0 <= other_s < 50, 0 <= wall_ahead_s("n1") < 50,
        sorted({*undone.done.values()}),
    ]))

# A rig that died forgets everything; the next one finds a page and puts it right, for the
# process that was left there as well.
fault.apply(plan(("n1", "n3"), mode="jump", jump_ms=-1e8))
wrong_s = wall_ahead_s("n1")
clock().set_up()
again = clock().apply(plan(mode="jump", jump_ms=1000.0)).observed["n1"]["processes"]
clock().undo()
say(json.dumps([wrong_s < -9e4, wall_ahead_s("n1") >= 0, wall_ahead_s("n3") >= 0, again]))

# One node that cannot be put right does not keep the others from it.
fault = clock()
fault.apply(plan(("n1", "n2", "n3"), mode="jump", jump_ms=-1e8))
env.run("n2", f"cd {env.home('n2')} && mv clock_page.py away.py")
undone = fault.undo()
env.run("n2", f"cd {env.home('n2')} && mv away.py clock_page.py")
say(json.dumps([list(undone.errors), wall_ahead_s("n1") >= 0, wall_ahead_s("n3") >= 0]))

# A database that is not there is hurt by nobody.
system.kill("n1")
say(json.dumps([fault.apply(plan(mode="jump", jump_ms=1000.0)).bit]))
for _ in range(2):
    fault.tear_down()
say(json.dumps([env.run(node, f"ls {env.home(node)} | grep clock").out for node in env.nodes]))
say(json.dumps([abs(host() - true_clock) < 0.5]))
"""
"""In an environment `env` of three nodes with a system of sleepers; also played in containers."""


def assert_bites_and_heals(lines: list[list[Any]]) -> None:
    """Look at what SCENARIO printed."""
    ahead, back, slow, fast, strobe, skip, dead, broken, nobody, left, host = lines
    for mode, bit, done, errors, _, _, other_is_right, is_healed, undone in lines[:6]:
        assert (bit, errors, other_is_right, is_healed) == (True, {}, True, True), mode
        assert list(done) == ["n1"]
        assert undone == ["has the right time"]
    assert ahead[2] == {"n1": "wall clock -60 s"}
    assert abs(ahead[4]["wall_ms"] + 60_000) < 5
    assert -60 <= ahead[5] < -10
    assert back[5] >= 1
    assert 0.45 < slow[4]["wall_rate"] < 0.55
    assert 0.45 < slow[4]["monotonic_rate"] < 0.55
    assert fast[4]["wall_rate"] == pytest.approx(1, abs=0.001)
    assert fast[4]["monotonic_rate"] == pytest.approx(1.1, abs=0.02)
    assert strobe[4]["wall_strobe_ms"] == pytest.approx(4000, abs=5)
    assert skip[4]["monotonic_skip_ms"] == pytest.approx(10_000, abs=2_000)
    assert dead == [True, True, True, 1]
    assert broken == [["n2"], True, True]
    assert nobody == [False]
    assert left == ["", "", ""]
    assert host == [True]


@pytest.mark.netns
@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_clocks_bite_and_heal_in_namespaces(tmp_path: Path) -> None:
    code = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json
from tests.control.probes import Sleepers

env = environment(3)
env.provision()
system = Sleepers(env, leader="n3")
{SCENARIO}
"""
    assert_bites_and_heals([json.loads(line) for line in run_inside(tmp_path, code).splitlines()])
