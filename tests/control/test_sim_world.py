"""Virtual time: events in their order, and code that waits for them in greenlets."""

import pytest

from labrys.control.errors import InternalError
from labrys.control.sim.world import SECOND_NS, Signal, World


def test_events_come_in_order_of_time_and_then_of_planning() -> None:
    world = World(1)
    seen: list[str] = []
    for at, name in ((2, "c"), (1, "a"), (1, "b")):
        world.call_at(at * SECOND_NS, seen.append, name)
    world.call_soon(seen.append, "first")
    world.sleep(1)
    assert (seen, world.now_ns) == (["first", "a", "b"], SECOND_NS)
    world.sleep(5)
    assert (seen, world.now_ns) == (["first", "a", "b", "c"], 6 * SECOND_NS)


def test_timer_that_was_called_off_does_not_fire() -> None:
    world, seen = World(1), []
    kept = world.timer(SECOND_NS, lambda: seen.append("kept"))
    world.timer(SECOND_NS, lambda: seen.append("called off")).cancel()
    world.sleep(2)
    assert seen == ["kept"]
    kept.cancel()


def test_a_wait_ends_with_the_signal_or_with_its_time() -> None:
    world, seen = World(1), []
    early, late = Signal(), Signal()
    world.call_at(SECOND_NS, world.set, early)
    world.call_at(3 * SECOND_NS, world.set, late)

    def wait(signal: Signal) -> None:
        seen.append((world.wait(signal, 2 * SECOND_NS), world.now_ns // SECOND_NS))

    world.all_of([lambda: wait(late), lambda: wait(early)])
    assert seen == [(True, 1), (False, 2)]


def test_pieces_run_side_by_side_and_inside_each_other() -> None:
    world = World(1)

    def two() -> None:
        world.all_of([lambda: world.sleep(1), lambda: world.sleep(2)])

    world.all_of([two, two, lambda: world.sleep(1)])
    assert world.now_ns == 2 * SECOND_NS
    world.all_of([])


def test_a_wait_for_what_cannot_come_is_an_error() -> None:
    with pytest.raises(InternalError, match="nothing is going to happen"):
        World(1).wait(Signal())


def test_the_end_of_the_world_ends_who_waits_in_it() -> None:
    world, ended = World(1), []

    def wait() -> None:
        try:
            world.wait(Signal())
        finally:
            ended.append(True)

    world.spawn(wait)
    world.sleep(1)
    assert not ended
    world.end()
    assert ended


def test_streams_differ_by_name_and_by_seed_and_by_nothing_else() -> None:
    draws = [World(seed).stream(name).random() for seed in (1, 2) for name in ("a", "b")]
    assert len({*draws}) == 4
    assert draws[0] == World(1).stream("a").random()
