"""Every fault bites and heals, in real network namespaces with real packets and processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.control.inside import run_inside

from labrys.control.environments import netns
from labrys.control.nemesis.partition import SHAPES

_REASON = netns.probe()

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(_REASON is not None, reason=str(_REASON)),
]

_PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json, random
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.ledger import Ledger, read_ledger
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.nemesis import Nemesis, build_packages
from labrys.control.nemesis.partition import SHAPES, Partition, PartitionOptions
from labrys.control.process import State
from tests.control.probes import Mesh, Sleepers

env = environment(5)
env.provision()
system = Sleepers(env, leader="n3")

def iptables(node, arguments):
    return env.run(node, "iptables -w " + arguments)
"""

_EVERY_SHAPE = """
mesh = Mesh(env)
everything = set(mesh.links)
for shape in SHAPES:
    cut = Partition(env, system, PartitionOptions(shapes=(shape,)))
    cut.set_up()
    planned = cut.settle(cut.plan(0, "seed"))
    grudge = grudges.from_json(planned.plan["grudge"])
    open_ = {(a, b) for a, b in everything if a not in grudge.get(b, ())}
    both_ways = {(a, b) for a, b in open_ if (b, a) in open_}

    started = time.monotonic()
    applied = cut.apply(planned)
    apply_ms = (time.monotonic() - started) * 1000
    mesh.send_datagrams()
    datagrams = mesh.datagrams(open_)
    mesh.send_over_established()
    established = mesh.received(open_)
    fresh = mesh.connects(both_ways)
    clients = mesh.is_reached_by_the_controller()
    datagrams |= mesh.datagrams(set())  # any that came late
    started = time.monotonic()
    undone = cut.undo()
    undo_ms = (time.monotonic() - started) * 1000
    late = mesh.received(everything - established)
    mesh.settle()
    mesh.send_datagrams()
    say(json.dumps({
        "shape": shape,
        "grudge": planned.plan["grudge"],
        "mechanism": planned.plan["mechanism"],
        "datagrams as planned": datagrams == open_,
        "established as planned": established == open_,
        "new connections as planned": fresh == both_ways,
        "clients get through": clients,
        "holders that saw drops": sorted(n for n, o in undone.observed.items() if o["packets"]),
        "bit": undone.bit,
        "errors": applied.errors | undone.errors,
        "stalled bytes came after the heal": late == everything - established,
        "healed": mesh.datagrams(everything) == everything == mesh.connects(everything),
        "apply_ms": apply_ms,
        "undo_ms": undo_ms,
    }))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What was seen of each shape of partition."""
    out = run_inside(tmp_path_factory.mktemp("shapes"), _PRELUDE + _EVERY_SHAPE)
    return {line["shape"]: line for line in map(json.loads, out.splitlines())}


@pytest.mark.parametrize("shape", SHAPES)
def test_partition_bites_as_planned_and_heals(seen: dict[str, dict[str, Any]], shape: str) -> None:
    found = seen[shape]
    assert found["errors"] == {}
    assert found["datagrams as planned"]
    assert found["established as planned"], "established connections are cut as well"
    assert found["new connections as planned"]
    assert found["clients get through"]
    assert found["bit"] is True
    assert found["holders that saw drops"] == sorted(found["grudge"])
    assert found["stalled bytes came after the heal"]
    assert found["healed"]
    assert found["mechanism"].startswith("iptables v")


def inside(tmp_path: Path, code: str) -> list[Any]:
    return [json.loads(line) for line in run_inside(tmp_path, _PRELUDE + code).splitlines()]


def test_cut_in_a_silent_network_is_no_evidence(tmp_path: Path) -> None:
    code = """
cut = Partition(env, system, PartitionOptions())
cut.set_up()
cut.apply(cut.settle(cut.plan(0, "seed")))
say(json.dumps(cut.undo().bit))
"""
    assert inside(tmp_path, code) == [False]


def test_set_up_heals_what_a_dead_rig_left_and_a_lost_chain_is_made_again(tmp_path: Path) -> None:
    code = """
def rules():
    return sum(iptables(node, "-S").out.count("-j DROP") for node in env.nodes)

def jumps():
    return [iptables(node, "-S INPUT").out.count("-j LABRYS") for node in env.nodes]

dead = Partition(env, system, PartitionOptions())
dead.set_up()
planned = dead.settle(dead.plan(0, "seed"))
dead.apply(planned)
dead.apply(planned)
before = rules()
cut = Partition(env, system, PartitionOptions())
cut.set_up()
say(json.dumps([before > 0, rules(), jumps()]))
for node in env.nodes:
    for arguments in ("-D INPUT -j LABRYS", "-X LABRYS"):
        assert iptables(node, arguments).code == 0
outcome = cut.apply(planned)
say(json.dumps([outcome.errors, rules() == before, jumps()]))
"""
    assert inside(tmp_path, code) == [[True, 0, [1] * 5], [{}, True, [1] * 5]]


def test_rules_of_others_are_left_alone(tmp_path: Path) -> None:
    code = """
for node in env.nodes:
    assert iptables(node, "-A INPUT -s 192.0.2.1 -j DROP").code == 0
    assert iptables(node, "-t nat -A OUTPUT -d 192.0.2.2 -j ACCEPT").code == 0

def everything():
    return [iptables(node, "-S").out + iptables(node, "-t nat -S").out for node in env.nodes]

before = everything()
cut = Partition(env, system, PartitionOptions())
cut.set_up()
cut.apply(cut.settle(cut.plan(0, "seed")))
during = everything()
cut.undo()
for _ in range(2):
    cut.tear_down()
say(json.dumps([before != during, before == everything()]))
"""
    assert inside(tmp_path, code) == [[True, True]]


def test_kills_and_pauses_bite_and_heal_on_real_processes(tmp_path: Path) -> None:
    code = """
for node in env.nodes:
    system.start(node)

def pids():
    return [Path(env.home(node), "db.pid").read_text() for node in env.nodes]

def states():
    return [system.state(node) for node in env.nodes]

ledger = Ledger(Path(RUN_DIR, "faults.jsonl"), time.monotonic_ns)
packages = build_packages(["partition", "kill", "pause"], env, system)
nemesis = Nemesis(packages, ledger, random.Random(1))
nemesis.setup()

def play(f, value=None):
    done = nemesis.invoke(Op(type=OpType.INFO, process=NEMESIS, f=f, value=value))
    assert done.error is None, done.error
    return done.value.get("bit")

first = pids()
bit = play("pause", {"targets": "named", "nodes": ["n1", "n2"]})
say(json.dumps([bit, states()]))
bit = play("kill", {"targets": "leader", "fallback": "n5"})
say(json.dumps([bit, states()]))
bit = play("start")
say(json.dumps([bit, states(), [a == b for a, b in zip(first, pids())]]))
play("kill", {"targets": "named", "nodes": ["n1", "n4"]})
say(json.dumps(states()))
nemesis.heal()
say(json.dumps([states(), [a == b for a, b in zip(first, pids())]]))
nemesis.teardown()
say(json.dumps([event.kind for event in read_ledger(Path(RUN_DIR, "faults.jsonl"))
                if event.stage == "undone"]))
"""
    up, held, dead = "running", "stopped", "dead"
    assert inside(tmp_path, code) == [
        [True, [held, held, up, up, up]],
        [True, [held, held, dead, up, up]],
        # The start goes to all: only n3 is a new process, and nobody is woken by it.
        [None, [held, held, up, up, up], [True, True, False, True, True]],
        [dead, held, up, dead, up],
        [[up] * 5, [False, True, False, False, True]],
        ["kill", "pause", "kill"],
    ]
