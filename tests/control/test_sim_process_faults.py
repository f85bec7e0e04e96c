"""Simulated nodes that are frozen, slow, out of memory, or killed again and again."""

import itertools
from typing import Any

import pytest
import requests
from tests.control.sim_rig import Rig, running

from labrys.control.errors import ClusterError
from labrys.control.process import State
from labrys.control.sim.cpu import TURN_NS
from labrys.control.sim.world import MS_NS, SECOND_NS


def test_a_frozen_machine_stands_still_and_nothing_can_be_done_in_it() -> None:
    with running(faults=["freeze"]) as rig:
        leader = rig.leader()
        done = rig.fault(leader)
        assert (done.bit, done.observed) == (True, {leader: {"processes": 1}})
        with pytest.raises(requests.ReadTimeout):
            rig.put(leader, "k", 1)
        lines = len(rig.machine(leader).log)
        rig.world.sleep(3)
        assert len(rig.machine(leader).log) == lines
        assert rig.leader() != leader
        for act in (rig.system.kill, rig.system.start, rig.system.pause, rig.system.lose_data):
            with pytest.raises(ClusterError, match=f"{leader}: stands still"):
                act(leader)
        undone = rig.package.undo()
        assert undone.done[leader] == "goes on"
        rig.begin()
        assert len(rig.system.leaders()) == 1


def test_who_is_paused_in_a_frozen_machine_stays_paused_when_it_thaws() -> None:
    with running(faults=["freeze", "pause"]) as rig:
        rig.system.pause("n1")
        rig.machine("n1").freeze()
        rig.machine("n1").thaw()
        rig.world.sleep(1)
        assert rig.system.state("n1") is State.STOPPED
        assert rig.system.status("n1") is None
        rig.system.resume("n1")
        rig.world.sleep(1)
        assert rig.system.status("n1") is not None


def test_what_came_to_a_machine_while_it_stood_still_is_done_in_its_order() -> None:
    with running(faults=["freeze"]) as rig:
        process = rig.machine("n1").process
        assert process is not None
        seen: list[int] = []
        rig.machine("n1").freeze()
        for number in range(3):
            process.deliver(seen.append, number)
        rig.machine("n1").thaw()
        process.deliver(seen.append, 3)
        rig.world.sleep(0)
        assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_turns_of_a_slow_node_take_time_one_after_the_other(share: float) -> None:
    with running(faults=["slow-cpu"]) as rig:
        process, seen = rig.machine("n1").process, []
        assert process is not None
        rig.fault("n1", share=share)
        rig.machine("n1").pause()  # so that nobody else has anything to do there
        rig.world.sleep(0.1)
        process._held.clear()
        rig.machine("n1").resume()
        for _ in range(5):
            process.deliver(lambda: seen.append(rig.world.now_ns))
        rig.world.sleep(0.1)
        gaps = {after - before for before, after in itertools.pairwise(seen)}
        assert gaps == {round(TURN_NS / share)}
        undone = rig.package.undo()
        assert undone.bit
        assert undone.observed["n1"]["stops"] >= 4
        assert rig.machine("n1").cpu is None


def test_a_slow_node_starts_slowly_and_a_cluster_of_them_serves_on() -> None:
    with running(faults=["slow-cpu"]) as rig:
        rig.fault("n1", "n2", "n3", share=0.2)
        rig.put("n1", "k", 1)
        rig.system.kill("n3")
        rig.system.start("n3")
        rig.world.sleep(0.24)  # the least is 50 ms of a whole core
        assert rig.system.status("n3") is None
        rig.begin()
        assert rig.get("n3", "k") == 1
        assert rig.package.undo().bit


def test_the_kernel_kills_a_process_for_which_there_is_no_memory() -> None:
    with running(faults=["oom"]) as rig:
        begun_ns = rig.world.now_ns
        done = rig.fault("n1", room_mib=16.0)
        assert done.done == {"n1": "has 16 MiB to spare, is dead"}
        assert rig.world.now_ns - begun_ns >= 16 * MS_NS
        undone = rig.package.undo()
        assert undone.bit
        assert undone.observed["n1"] == {"hog_mib": 16, "oom_kills": 1}
        assert rig.package.undo().observed == {}
        rig.begin()


def test_nobody_is_killed_when_the_limit_is_lifted_in_time_or_the_node_is_dead() -> None:
    with running(faults=["oom"]) as rig:
        machine = rig.machine("n1")
        machine.hog_mib = 0
        machine.limit_memory(16 << 20)
        machine.limit_memory(None)
        rig.world.sleep(1)
        assert rig.system.state("n1") is State.RUNNING
        rig.system.kill("n1")
        assert rig.fault("n1", room_mib=4.0).done == {"n1": "has 4 MiB to spare, is dead"}
        assert not rig.package.undo().bit


def test_a_storm_kills_again_and_again_until_it_is_over() -> None:
    with running(faults=["restart-storm"]) as rig:
        follower = rig.followers()[0]
        boots = rig.log(follower).count("event=boot")
        rig.fault(follower, up_ms=400.0, seed="s")
        rig.world.sleep(4)
        undone = rig.package.undo()
        assert undone.bit
        kills = undone.observed[follower]["kills"]
        assert 6 <= kills <= 20
        # Some die before they have come up.
        assert 3 <= rig.log(follower).count("event=boot") - boots <= kills
        rig.begin()
        rig.world.sleep(3)
        assert rig.log(follower).count("event=boot") - boots <= kills + 1
        assert rig.package.undo().observed == {}


def test_kills_of_a_storm_come_at_the_same_moments_again() -> None:
    def kills() -> list[tuple[int, Any]]:
        with running(faults=["restart-storm"]) as rig:
            seen: list[tuple[int, Any]] = []
            kill = rig.system.kill

            def noted(node: str) -> None:
                seen.append((rig.world.now_ns, node))
                kill(node)

            rig.system.kill = noted  # type: ignore[method-assign]
            rig.fault("n1", "n2", up_ms=50.0, seed="s")
            rig.world.sleep(2)
            rig.package.undo()
            return seen

    first = kills()
    assert len(first) > 20
    assert first == kills()


def _time_of_a_put(rig: Rig) -> float:
    begun_ns = rig.world.now_ns
    rig.put("n1", "k", 1)
    return (rig.world.now_ns - begun_ns) / SECOND_NS


def test_a_slow_node_answers_late_and_at_once_when_it_is_over() -> None:
    with running(faults=["slow-cpu"]) as rig:
        usual_s = _time_of_a_put(rig)
        rig.fault(rig.leader(), share=0.02)
        assert _time_of_a_put(rig) > 2 * usual_s
        rig.package.undo()
        rig.world.sleep(1)
        assert _time_of_a_put(rig) < 0.02
