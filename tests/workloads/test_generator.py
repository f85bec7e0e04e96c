"""Every combinator, by the exact ops that it makes in a simulated run."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.workloads import generator as gen
from labrys.workloads.context import CLIENTS_MASK, Context, context
from labrys.workloads.generator import PENDING, Generator, Source, Step, template
from labrys.workloads.simulate import System, always, simulate

S = 1_000_000_000
R = template("r")
W = template("w")


def begun(
    source: Source, *, clients: int = 1, system: System | None = None, seed: int = 0
) -> list[tuple[int, int | str, str]]:
    """Return (time, process, f) of every op that began."""
    history = simulate(source, clients=clients, system=system, seed=seed)
    return [(op.time, op.process, op.f) for op in _invocations(history)]


def fs(source: Source, *, clients: int = 1, system: System | None = None, seed: int = 0) -> str:
    """Return the `f` of every op that began, in one string."""
    return "".join(f for _, _, f in begun(source, clients=clients, system=system, seed=seed))


def _invocations(history: Iterable[Op]) -> list[Op]:
    open_faults = False
    found = []
    for op in history:
        if op.process == NEMESIS and op.f not in gen.MARKS:
            open_faults = not open_faults
            if open_faults:
                found.append(op)
        elif op.type is OpType.INVOKE or op.f in gen.MARKS:
            found.append(op)
    return found


# --- plain values ---------------------------------------------------------------------------------


def test_a_template_is_played_once() -> None:
    assert begun(R) == [(0, 0, "r")]


def test_nothing_is_played_for_none() -> None:
    assert begun(None) == []


def test_a_list_is_played_in_order() -> None:
    assert begun([R, W, [R, None, W]]) == [
        (0, 0, "r"), (10, 0, "w"), (20, 0, "r"), (30, 0, "w"),
    ]  # fmt: skip


def test_a_function_is_called_again_until_it_returns_none() -> None:
    def three_rounds(ctx: Context) -> Source:
        return [R, W] if ctx.time < 50 else None

    assert begun(three_rounds) == [
        (0, 0, "r"), (10, 0, "w"), (20, 0, "r"), (30, 0, "w"), (40, 0, "r"), (50, 0, "w"),
    ]  # fmt: skip


def test_a_function_that_makes_only_empty_generators_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(RuntimeError, match="empty generators in a row"):
        begun(lambda ctx: [])


def test_an_iterator_is_refused_because_reading_it_would_change_it() -> None:
    with pytest.raises(TypeError, match="not a generator"):
        gen.limit(1, iter([R]))  # type: ignore[arg-type]


def test_a_mistake_deep_in_a_list_shows_when_the_generator_is_made() -> None:
    with pytest.raises(TypeError, match="not a generator"):
        gen.phases([R, [3]])  # type: ignore[list-item]


def test_an_op_without_a_process_never_goes_to_the_nemesis_beside_clients() -> None:
    history = simulate(gen.limit(50, gen.repeat(R)), clients=2)
    assert {op.process for op in history} == {0, 1}


def test_an_op_that_names_its_process_waits_for_it() -> None:
    second = msgspec.structs.replace(R, process=1)
    assert begun([second, second, R], clients=2)[:2] == [(0, 1, "r"), (10, 1, "r")]


def test_a_mark_occupies_nobody_and_has_no_completion() -> None:
    history = simulate([gen.mark("phase", "main"), R], clients=1)
    assert [(op.process, op.type, op.f, op.value) for op in history] == [
        (NEMESIS, OpType.INFO, "phase", "main"),
        (0, OpType.INVOKE, "r", None),
        (0, OpType.OK, "r", None),
    ]


def test_only_known_marks_can_be_made() -> None:
    with pytest.raises(ValueError, match="a mark is one of log, phase"):
        gen.mark("kill", "n1")


# --- counts ---------------------------------------------------------------------------------------


@given(count=st.integers(0, 40), clients=st.integers(1, 7), seed=st.integers(0, 99))
def test_limit_makes_exactly_so_many_ops(count: int, clients: int, seed: int) -> None:
    assert fs(gen.limit(count, gen.repeat(R)), clients=clients, seed=seed) == "r" * count


def test_once_takes_the_first_op() -> None:
    assert fs(gen.once([W, R])) == "w"


def test_repeat_starts_over() -> None:
    assert fs(gen.repeat([R, W], times=3)) == "rwrwrw"


def test_repeating_nothing_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(RuntimeError, match="nothing to repeat"):
        fs(gen.repeat(None))


def test_process_limit_ends_before_one_process_too_many() -> None:
    ops = begun(gen.process_limit(4, gen.repeat(R)), clients=2, system=always(OpType.INFO))
    assert len(ops) == 4
    assert len({process for _, process, _ in ops}) == 4


# --- choice ---------------------------------------------------------------------------------------


def test_mix_draws_uniformly() -> None:
    drawn = Counter(fs(gen.limit(3000, gen.mix(gen.repeat(R), gen.repeat(W)))))
    assert 1400 < drawn["r"] < 1600


def test_mix_draws_by_weight() -> None:
    drawn = Counter(fs(gen.limit(3000, gen.mix(gen.repeat(R), gen.repeat(W), weights=(3, 1)))))
    assert 2150 < drawn["r"] < 2350


def test_mix_refuses_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 sources need as many positive weights"):
        gen.mix(R, W, weights=(1,))


def test_mix_goes_on_until_all_are_exhausted() -> None:
    assert Counter(fs(gen.mix([R, R], [W, W, W]))) == {"r": 2, "w": 3}


def test_mix_does_not_stick_to_a_pending_child() -> None:
    assert begun(gen.mix([gen.sleep(5), W], gen.limit(3, gen.repeat(R)))) == [
        (0, 0, "r"), (10, 0, "r"), (20, 0, "r"), (5 * S, 0, "w"),
    ]  # fmt: skip


class _Heard(Generator, frozen=True):
    """Counts the events that it hears of and ends after `events` of them."""

    events: int

    def op(self, ctx: Context) -> Step | None:
        return (PENDING, self) if self.events > 0 else None

    def update(self, ctx: Context, event: Op) -> Generator:
        return _Heard(self.events - 1)


def test_mix_lets_every_child_hear_of_every_event() -> None:
    # With one that never hears, the run would end stuck.
    assert fs(gen.mix(_Heard(6), _Heard(4), gen.limit(3, gen.repeat(R)))) == "rrr"


def test_any_of_takes_what_is_due_first() -> None:
    early, late = gen.delay(2, gen.repeat(R)), [gen.sleep(3), gen.delay(2, gen.repeat(W))]
    assert begun(gen.time_limit(8, gen.any_of(early, late))) == [
        (0, 0, "r"), (2 * S, 0, "r"), (3 * S, 0, "w"), (4 * S, 0, "r"), (5 * S, 0, "w"),
        (6 * S, 0, "r"), (7 * S, 0, "w"),
    ]  # fmt: skip


def test_any_of_draws_ties_at_random() -> None:
    firsts = Counter(fs(gen.once(gen.any_of(R, W)), seed=seed) for seed in range(400))
    assert 150 < firsts["r"] < 250


def test_flip_flop_alternates_until_one_has_no_more() -> None:
    assert fs(gen.flip_flop(gen.repeat(R), [W, W])) == "rwrwr"


def test_flip_flop_waits_for_the_one_whose_turn_it_is() -> None:
    assert begun(gen.flip_flop(gen.delay(1, gen.repeat(R)), [W, W])) == [
        (0, 0, "r"), (10, 0, "w"), (S, 0, "r"), (S + 10, 0, "w"), (2 * S, 0, "r"),
    ]  # fmt: skip


def test_both_sides_of_flip_flop_hear_of_every_event() -> None:
    source = gen.flip_flop(gen.until_ok(gen.repeat(R)), gen.until_ok(gen.repeat(W)))
    assert fs(source) == "rw"


# --- time -----------------------------------------------------------------------------------------


def test_time_limit_counts_from_the_first_ask() -> None:
    source = [gen.sleep(2), gen.time_limit(1, gen.delay(0.4, gen.repeat(R)))]
    assert begun(source) == [
        (2 * S, 0, "r"), (2 * S + 400_000_000, 0, "r"), (2 * S + 800_000_000, 0, "r"),
    ]  # fmt: skip


class _Forever(Generator, frozen=True):
    def op(self, ctx: Context) -> Step | None:
        return PENDING, self


def test_time_limit_cuts_a_child_that_is_pending_for_ever() -> None:
    assert begun([gen.time_limit(3, _Forever()), R]) == [(3 * S, 0, "r")]


def test_time_limit_does_not_wait_for_a_child_that_ends_early() -> None:
    assert begun([gen.time_limit(3, R), W]) == [(0, 0, "r"), (10, 0, "w")]


def test_delay_spaces_beginnings_evenly() -> None:
    assert [time for time, _, _ in begun(gen.limit(4, gen.delay(1, gen.repeat(R))))] == [
        0, S, 2 * S, 3 * S,
    ]  # fmt: skip


def test_delay_does_not_burst_after_all_threads_were_busy() -> None:
    def slow_at_first(op: Op) -> tuple[Op, int]:
        return msgspec.structs.replace(op, type=OpType.OK), 10 if op.time else 5 * S

    ops = begun(gen.limit(4, gen.delay(1, gen.repeat(R))), system=slow_at_first)
    late = 5 * S - gen.SLACK_NS
    assert [time for time, _, _ in ops] == [0, 5 * S, late + S, late + 2 * S]


def test_a_small_lateness_does_not_lower_the_rate() -> None:
    def jittery(op: Op) -> tuple[Op, int]:
        # Every other op ends 5 ms after the next one is due.
        latency_ns = 15_000_000 if op.index % 4 else 10
        return msgspec.structs.replace(op, type=OpType.OK), latency_ns

    ops = begun(gen.time_limit(10, gen.delay(0.01, gen.repeat(R))), system=jittery)
    assert len(ops) == 1000


def test_stagger_has_gaps_from_zero_to_twice_the_interval() -> None:
    times = [time for time, _, _ in begun(gen.limit(2000, gen.stagger(1, gen.repeat(R))))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) < 0.05 * S
    assert max(gaps) <= 2 * S
    assert 0.95 * S < sum(gaps) / len(gaps) < 1.05 * S


@pytest.mark.parametrize("clients", [1, 10])
def test_the_rate_of_stagger_is_that_of_all_threads_together(clients: int) -> None:
    ops = begun(gen.time_limit(100, gen.stagger(0.1, gen.repeat(R))), clients=clients)
    assert 920 < len(ops) < 1080


def test_stagger_around_each_thread_is_a_rate_per_thread() -> None:
    per_thread = gen.clients(gen.each_thread(gen.stagger(0.1, gen.repeat(R))))
    ops = begun(gen.time_limit(100, per_thread), clients=3)
    assert 2800 < len(ops) < 3200


def test_sleep_makes_a_pause() -> None:
    assert begun([R, gen.sleep(1), W]) == [(0, 0, "r"), (S, 0, "w")]


def test_sleep_behind_synchronize_counts_from_the_end_of_the_op_before() -> None:
    assert begun(gen.phases(R, [gen.sleep(1), W])) == [(0, 0, "r"), (S + 10, 0, "w")]


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        gen.delay(-1, R)


# --- threads --------------------------------------------------------------------------------------


def test_on_threads_keeps_to_its_threads() -> None:
    ops = begun(gen.on_threads([1, 3], gen.limit(20, gen.repeat(R))), clients=5)
    assert {process for _, process, _ in ops} == {1, 3}


def test_on_threads_hides_the_ops_of_other_threads() -> None:
    source = gen.any_of(
        gen.on_threads([0], _Heard(2)), gen.on_threads([1], gen.limit(3, gen.repeat(R)))
    )
    with pytest.raises(RuntimeError, match="stuck"):
        simulate(source, clients=2)


def test_the_nemesis_gets_only_its_own() -> None:
    source = gen.any_of(
        gen.clients(gen.limit(9, gen.repeat(R))), gen.nemesis([template("kill"), template("start")])
    )
    history = simulate(source, clients=2)
    faults = [op for op in history if op.process == NEMESIS]
    assert [op.f for op in faults] == ["kill", "kill", "start", "start"]
    assert {op.type for op in faults} == {OpType.INFO}
    assert sum(op.f == "r" for op in history) == 18


def test_each_thread_has_its_own_copy() -> None:
    ops = begun(gen.clients(gen.each_thread([R, W])), clients=3)
    assert Counter(ops) == {
        (0, 0, "r"): 1, (0, 1, "r"): 1, (0, 2, "r"): 1,
        (10, 0, "w"): 1, (10, 1, "w"): 1, (10, 2, "w"): 1,
    }  # fmt: skip


def test_each_thread_goes_on_when_its_process_is_retired() -> None:
    ops = begun(gen.clients(gen.each_thread([R, R])), clients=2, system=always(OpType.INFO))
    assert sorted(process for _, process, _ in ops) == [0, 1, 2, 3]


def _threads_by_f(source: Source, clients: int) -> dict[str, set[int]]:
    seen: dict[str, set[int]] = {}
    for _, process, f in begun(gen.time_limit(1e-5, source), clients=clients):
        assert isinstance(process, int)
        seen.setdefault(f, set()).add(process)
    return seen


def test_reserve_gives_the_first_threads_to_the_first_part() -> None:
    parts = [(2, gen.repeat(R)), (1, gen.repeat(W))]
    assert _threads_by_f(gen.clients(gen.reserve(parts, gen.repeat(template("c")))), 6) == {
        "r": {0, 1}, "w": {2}, "c": {3, 4, 5},
    }  # fmt: skip


def test_a_nested_reserve_divides_the_threads_of_its_own_view() -> None:
    inner = gen.reserve([(1, gen.repeat(W))], gen.repeat(template("c")))
    assert _threads_by_f(gen.clients(gen.reserve([(2, gen.repeat(R))], inner)), 5) == {
        "r": {0, 1}, "w": {2}, "c": {3, 4},
    }  # fmt: skip


def test_reserve_may_use_up_all_threads() -> None:
    assert fs(gen.clients(gen.reserve([(1, R), (1, W)], R)), clients=2) in {"rw", "wr"}


def test_reserve_says_when_there_are_too_few_threads() -> None:
    with pytest.raises(ValueError, match=r"cannot reserve \[3\] threads: there are only 2 here"):
        begun(gen.clients(gen.reserve([(3, R)])), clients=2)


def test_phases_begin_when_all_ops_of_the_one_before_have_ended() -> None:
    latencies = {0: 10, 1: 500}

    def system(op: Op) -> tuple[Op, int]:
        assert isinstance(op.process, int)
        return msgspec.structs.replace(op, type=OpType.OK), latencies[op.process]

    both = gen.clients(gen.each_thread(R))
    ops = begun(gen.clients(gen.phases(both, W)), clients=2, system=system)
    assert [(time, f) for time, _, f in ops] == [(0, "r"), (0, "r"), (500, "w")]


# --- outcomes and shapes --------------------------------------------------------------------------


def _failing(times: int) -> System:
    left = [times]

    def system(op: Op) -> tuple[Op, int]:
        left[0] -= 1
        kind = OpType.OK if left[0] < 0 else (OpType.FAIL, OpType.INFO)[left[0] % 2]
        return msgspec.structs.replace(op, type=kind), 10

    return system


def test_until_ok_tries_until_the_first_success() -> None:
    source = gen.until_ok(gen.delay(1, gen.repeat(R)))
    assert [time for time, _, _ in begun(source, system=_failing(3))] == [0, S, 2 * S, 3 * S]


def test_until_ok_does_not_take_the_success_of_others_for_its_own() -> None:
    def system(op: Op) -> tuple[Op, int]:
        kind = OpType.OK if op.f == "w" or op.time > 5 * S else OpType.FAIL
        return msgspec.structs.replace(op, type=kind), 10

    source = gen.any_of(gen.until_ok(gen.delay(1, gen.repeat(R))), [W, W, W])
    assert fs(source, clients=3, system=system).count("r") == 7


def test_final_reads_are_retried_per_thread_until_ok() -> None:
    source = gen.clients(gen.each_thread(gen.until_ok(gen.delay(1, gen.repeat(R)))))
    history = simulate(source, clients=3, system=_failing(7))
    ok = [op.process for op in history if op.type is OpType.OK]
    assert sorted(process % 3 for process in ok) == [0, 1, 2]


def test_map_changes_ops() -> None:
    source = gen.map_ops(lambda op: msgspec.structs.replace(op, key="k"), [R, W])
    assert {op.key for op in simulate(source, clients=1)} == {"k"}


def test_filter_leaves_out_ops() -> None:
    assert fs(gen.filter_ops(lambda op: op.f == "r", [W, R, W, W, R, W])) == "rr"


def test_a_filter_that_lets_nothing_pass_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(RuntimeError, match="let none of"):
        fs(gen.filter_ops(lambda op: False, gen.repeat(R)))


# --- the whole ------------------------------------------------------------------------------------

_leaves: st.SearchStrategy[Source] = st.sampled_from([R, W, gen.limit(3, gen.repeat(R))])
_sources: st.SearchStrategy[Source] = st.recursive(
    _leaves,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, min_size=1, max_size=3).map(lambda parts: gen.mix(*parts)),
        st.lists(children, min_size=1, max_size=3).map(lambda parts: gen.phases(*parts)),
        st.tuples(children, children).map(lambda pair: gen.flip_flop(*pair)),
        children.map(lambda child: gen.clients(gen.each_thread(child))),
        children.map(lambda child: gen.clients(gen.reserve([(1, child)], child))),
        children.map(lambda child: gen.stagger(1e-8, child)),
        children.map(lambda child: gen.until_ok(child)),
        children.map(lambda child: gen.time_limit(1e-7, gen.repeat([child, R]))),
    ),
    max_leaves=8,
)


def _messy(seed: int) -> System:
    rng = random.Random(seed)

    def system(op: Op) -> tuple[Op, int]:
        kind = rng.choice([OpType.OK, OpType.FAIL, OpType.INFO])
        kind = OpType.INFO if op.process == NEMESIS else kind
        return msgspec.structs.replace(op, type=kind), rng.randrange(60)

    return system


@given(source=_sources, clients=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_run_is_a_wellformed_history(source: Source, clients: int, seed: int) -> None:
    history = simulate(source, clients=clients, system=_messy(seed), seed=seed)
    in_flight: set[int] = set()
    retired: set[int] = set()
    for place, op in enumerate(history):
        assert op.index == place
        assert place == 0 or op.time >= history[place - 1].time
        if not isinstance(op.process, int):
            continue
        thread = op.process % clients
        if op.type is OpType.INVOKE:
            assert op.process not in retired, "a process lived on after an unknown outcome"
            assert thread not in in_flight, "a thread has two ops in flight"
            in_flight.add(thread)
        else:
            in_flight.remove(thread)
            retired |= {op.process} if op.type is OpType.INFO else set()
    assert not in_flight


@given(source=_sources, seed=st.integers(0, 99))
def test_one_seed_gives_one_history(source: Source, seed: int) -> None:
    one, other = (simulate(source, clients=3, system=_messy(seed), seed=seed) for _ in range(2))
    assert one == other


def test_the_depth_of_the_stack_does_not_grow_with_the_run() -> None:
    source = gen.limit(20_000, gen.mix([R] * 10_000, gen.repeat(gen.filter_ops(bool, [R, W]))))
    assert len(simulate(source, clients=3)) == 40_000


def test_no_free_thread_starves() -> None:
    ops = begun(gen.limit(10_000, gen.repeat(R)), clients=10)
    share = Counter(process for _, process, _ in ops)
    assert all(900 < share[thread] < 1100 for thread in range(10))


def test_a_thread_that_is_always_free_first_does_not_starve_the_others() -> None:
    def system(op: Op) -> tuple[Op, int]:
        return msgspec.structs.replace(op, type=OpType.OK), 1 if op.process == 0 else 100

    ops = begun(gen.limit(2000, gen.stagger(1e-7, gen.repeat(R))), clients=4, system=system)
    share = Counter(process for _, process, _ in ops)
    assert all(share[thread] > 200 for thread in range(4))


def test_no_part_starves_when_the_rate_is_limited() -> None:
    parts = gen.clients(gen.each_thread(gen.repeat(R)))
    share = Counter(
        process for _, process, _ in begun(gen.limit(2000, gen.delay(1, parts)), clients=4)
    )
    assert all(400 < share[thread] < 600 for thread in range(4))


class _SeesCrashes(Generator, frozen=True):
    """Remembers which process each event's thread had in the context of the update."""

    seen: tuple[tuple[int | str, int | str], ...] = ()

    def op(self, ctx: Context) -> Step | None:
        if len(self.seen) == 2:
            # Reported as an op, so that the test can read it from the history.
            return gen.assign(ctx, template("seen", self.seen)), gen.DONE
        return gen.assign(ctx, R), self

    def update(self, ctx: Context, event: Op) -> Generator:
        if event.type is not OpType.INFO:
            return self
        present = ctx.process_of(ctx.bit_of(event.process))
        return _SeesCrashes((*self.seen, (event.process, present)))


def test_a_generator_hears_of_a_crash_under_the_old_process_number() -> None:
    history = simulate(_SeesCrashes(), clients=1, system=always(OpType.INFO))
    assert next(op.value for op in history if op.f == "seen") == ((0, 0), (1, 1))


def test_a_view_of_all_threads_is_the_context_itself() -> None:
    ctx = context(3, random.Random(0))
    assert ctx.only(-1) is ctx
    assert ctx.only(CLIENTS_MASK).only(CLIENTS_MASK).free == CLIENTS_MASK & ctx.free
