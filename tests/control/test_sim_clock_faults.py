"""Clocks of simulated machines that jump, drift, flicker and skip, and nodes that go by them."""

from typing import Any

import pytest
from tests.control.sim_rig import Rig, running

from labrys.control.nemesis.package import Outcome
from labrys.control.sim.world import SECOND_NS

CLOCK = {"faults": ["clock"]}


def passed(rig: Rig, node: str, seconds: float) -> tuple[float, float]:
    """How much time passes in so many seconds by the monotonic clock of a node, and by its wall."""
    clock = rig.machine(node).clock
    begun_s, begun_ms = clock.now_s(), clock.wall_ms()
    rig.world.sleep(seconds)
    return clock.now_s() - begun_s, (clock.wall_ms() - begun_ms) / 1e3


def hurt(rig: Rig, node: str, **plan: Any) -> Outcome:
    done = rig.fault(node, **plan)
    assert done.bit, done
    assert not done.errors
    return done


def test_a_wall_clock_jumps_and_is_set_right_again() -> None:
    with running(**CLOCK) as rig:
        clock, before_ms = rig.machine("n1").clock, rig.machine("n1").clock.wall_ms()
        done = hurt(rig, "n1", mode="jump", jump_ms=-60_000.0)
        assert done.done == {"n1": "wall clock -60 s"}
        assert done.observed["n1"]["wall_ms"] == -60_000
        assert clock.wall_ms() - before_ms == -60_000
        mono_s, wall_s = passed(rig, "n1", 1)
        assert (round(mono_s, 3), round(wall_s, 2)) == (1.0, 1.0)
        rig.put("n1", "k", 1)
        assert not rig.package.undo().errors
        assert abs(clock.wall_ms() - before_ms - 1000) < 50


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_clocks_drift_together_or_alone_and_go_on_from_where_they_are(rate: float) -> None:
    with running(**CLOCK) as rig:
        done = hurt(rig, "n1", mode="drift", rate=rate, clocks=["wall", "monotonic"])
        assert done.observed["n1"]["monotonic_rate"] == pytest.approx(rate, rel=1e-3)
        mono_s, wall_s = passed(rig, "n1", 10)
        assert mono_s == pytest.approx(10 * rate, rel=1e-3)
        assert wall_s == pytest.approx(10 * rate, rel=1e-3)
        clock = rig.machine("n1").clock
        before_ns = clock.now_ns()
        rig.package.undo()
        assert clock.now_ns() == before_ns
        assert passed(rig, "n1", 10) == pytest.approx((10, 10), rel=1e-3)
        hurt(rig, "n1", mode="drift", rate=rate, clocks=["wall"])
        assert passed(rig, "n1", 10) == pytest.approx((10, 10 * rate), rel=1e-3)


def test_a_wall_clock_flickers() -> None:
    with running(**CLOCK) as rig:
        done = hurt(rig, "n1", mode="strobe", strobe_ms=4000.0, period_ms=200.0)
        assert done.observed["n1"]["wall_strobe_ms"] == 4000
        clock, seen = rig.machine("n1").clock, set()
        for _ in range(40):
            rig.world.sleep(0.02)
            seen.add(clock.wall_ahead_ns() // SECOND_NS)
        assert seen == {0, 4}
        rig.package.undo()
        rig.world.sleep(0.1)
        assert clock.wall_ahead_ns() == 0


def test_a_monotonic_clock_skips_and_never_steps_back() -> None:
    with running(**CLOCK) as rig:
        clock = rig.machine("n1").clock
        before_s = clock.now_s()
        hurt(rig, "n1", mode="skip", skip_ms=5000.0)
        assert clock.now_s() - before_s == pytest.approx(5.0)
        rig.package.undo()
        assert clock.now_s() - before_s == pytest.approx(5.0)


def test_a_clock_of_a_dead_process_is_not_seen_to_bite() -> None:
    with running(**CLOCK) as rig:
        rig.system.kill("n1")
        done = rig.fault("n1", mode="jump", jump_ms=1000.0)
        assert not done.bit
        # A process that is started there finds the time as it is.
        rig.begin()
        assert rig.machine("n1").clock.wall_ahead_ns() == SECOND_NS


@pytest.mark.parametrize("rate", [4.0, 1.0, 0.25])
def test_timers_of_a_node_go_by_its_own_clock(rate: float) -> None:
    """Who hears nothing waits for one to two timeouts by its clock, true or not."""
    with running(**CLOCK) as rig:
        leader, (follower, other) = rig.leader(), rig.followers()
        if rate != 1.0:
            hurt(rig, follower, mode="drift", rate=rate, clocks=["monotonic"])
        rig.world.sleep(2)
        begun_ns = rig.world.now_ns
        rig.system.kill(leader)
        rig.system.kill(other)
        while "role=pre-candidate" not in rig.machine(follower).log[-1][1]:
            rig.world.sleep(0.001)
        waited_ms = (rig.world.now_ns - begun_ns) / 1e6
        process = rig.machine(follower).process
        assert process is not None
        timeout_ms = process._settings.config.election_timeout_ms / rate
        # It last heard of the leader up to one heartbeat before.
        assert 0.6 * timeout_ms < waited_ms < 2 * timeout_ms + 2


def test_a_wait_that_has_begun_goes_on_when_the_clock_has_become_slow() -> None:
    with running(**CLOCK) as rig:
        process, fired = rig.machine("n1").process, []
        assert process is not None
        process.call_later(1.0, lambda: fired.append(rig.world.now_ns))
        begun_ns = rig.world.now_ns
        rig.world.sleep(0.5)
        rig.machine("n1").clock.set({"mono_drift": -0.5})
        rig.world.sleep(2)
        assert fired == [pytest.approx(begun_ns + 1.5 * SECOND_NS, rel=1e-3)]
