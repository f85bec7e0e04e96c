"""Damaged and lost data, and changes of members, with the real node in real namespaces."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.control.inside import run_inside

from labrys.control.environments import netns

_REASON = netns.probe()

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(_REASON is not None, reason=str(_REASON)),
]

_PRELUDE = """
import json
import requests
from labrys.control.environments.base import Output
from labrys.control.errors import ClusterError
from labrys.control.nemesis.corrupt import Corrupt, CorruptOptions
from labrys.control.nemesis.membership import Membership, MembershipOptions
from labrys.control.systems.raftkv import RaftKv

env = environment(3)
env.provision()
system = RaftKv(env, seed=1)
system.install()
system.start_all()
never = lambda: False
system.await_healthy(30, give_up=never)

def fault(package_type, options_type, **options):
    package = package_type(env, system, options_type(**options))
    package.set_up()
    return package

def corrupt(**options):
    return fault(Corrupt, CorruptOptions, **options)

def membership(**options):
    return fault(Membership, MembershipOptions, **options)

def strike(package, turn=0):
    return package.apply(package.settle(package.plan(turn, "seed")))

def put(key):
    with requests.Session() as session:
        session.trust_env = False
        return session.put(f"{system.url('n1')}/v1/kv/{key}", json={"value": 1}, timeout=10).ok

def write_all():
    assert all([put(f"k{number}") for number in range(50)])

def healed(package):
    errors = package.undo_for_good().errors
    system.await_healthy(30, give_up=never)
    states = system.end_states(20, give_up=never)
    agree = len({(state["applied"], state["state_hash"]) for state in states.values()}) == 1
    return [errors, list(system.members()), agree]

write_all()
"""


def inside(tmp_path: Path, code: str) -> list[Any]:
    return [json.loads(line) for line in run_inside(tmp_path, _PRELUDE + code).splitlines()]


ALL = ["n1", "n2", "n3"]
HEALED = [{}, ALL, True]


def test_a_node_refuses_flipped_bits_in_each_of_its_files_and_is_replaced(tmp_path: Path) -> None:
    code = """
for node in env.nodes:
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(f"{system.url(node)}/v1/snapshot", timeout=10).ok
for file in ("log", "meta"):
    package = corrupt(damages=("flip",), targets=(("n2",),), files=(file,), bits=(1,))
    outcome = strike(package)
    say(json.dumps([outcome.bit, outcome.done, outcome.observed["n2"], str(system.state("n2"))]))
    say(json.dumps(healed(package)))
package = corrupt(damages=("flip",), targets=(("n2",),), files=("snapshot",), bits=(1,))
outcome = strike(package)
say(json.dumps([outcome.bit, outcome.observed["n2"]]))
say(json.dumps(healed(package)))
"""
    lines = inside(tmp_path, code)
    for (bit, done, seen, state), end in (lines[:2], lines[2:4]):
        assert bit is True
        assert done == {"n2": "refuses to start"}
        assert state == "dead"
        assert " is damaged at byte " in seen["said"]
        assert seen["file"] in seen["said"]
        (change,) = seen["changes"]
        assert (change["before"] ^ change["after"]).bit_count() == 1
        assert end == HEALED
    assert lines[4][0] is True
    assert lines[5] == HEALED


def test_a_log_without_its_end_is_read_outside_the_cluster_only(tmp_path: Path) -> None:
    code = """
package = corrupt(damages=("truncate",), targets=(("n2",),), files=("log",), cut_percent=(20,))
outcome = strike(package)
say(json.dumps([outcome.bit, outcome.done, outcome.observed["n2"], system.members()]))
write_all()
say(json.dumps(healed(package)))
say(json.dumps(package.undo().done))
"""
    (bit, done, seen, members), end, again = inside(tmp_path, code)
    assert bit is True
    assert done == {"n2": "serves"}
    assert 0 < seen["cut_bytes"] < seen["size_bytes"]
    assert members == ["n1", "n3"]
    assert end == HEALED
    assert again == {}, "nothing is left to undo"


def test_a_node_that_lost_its_data_comes_back_whole_by_another_rig(tmp_path: Path) -> None:
    code = """
outcome = strike(corrupt(damages=("lose-data",), targets=("leader",)))
(lost,) = outcome.done
say(json.dumps([outcome.bit, outcome.observed[lost]["lost_bytes"] > 0, str(system.state(lost))]))
say(json.dumps(any(Path(env.home(lost), "data").iterdir())))
class Broken(type(env)):
    def run(self, node, script, *, timeout_s=10.0):
        if node == broken:
            raise ClusterError(f"{node}: no answer")
        return env.run(node, script, timeout_s=timeout_s)
broken = next(node for node in env.nodes if node != lost)
other = Broken(env.nodes, Path(RUN_DIR), print)
undone = Corrupt(other, system, CorruptOptions()).undo()
say(json.dumps([list(undone.done) == [lost], undone.errors == {broken: "no answer"}]))
say(json.dumps(healed(Corrupt(env, system, CorruptOptions()))))
"""
    assert inside(tmp_path, code) == [[True, True, "dead"], False, [True, True], HEALED]


def test_members_shrink_and_are_replaced_and_the_leader_goes_and_all_come_back(
    tmp_path: Path,
) -> None:
    code = """
for mode in ("shrink", "leader", "replace"):
    package = membership(modes=(mode,))
    outcome = strike(package)
    members = system.members()
    state = {str(system.state(node)) for node in outcome.done if node in env.nodes}
    say(json.dumps([outcome.bit, len(members), sorted(state)]))
    say(json.dumps(healed(package)))
"""
    assert inside(tmp_path, code) == [
        [True, 2, ["running"]],
        HEALED,
        [True, 2, ["running"]],
        HEALED,
        [True, 2, ["dead"]],
        HEALED,
    ]
